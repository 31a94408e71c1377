// SPDX-License-Identifier: GPL-2.0-only
/*
 * An argument lies on two pages, one of which cannot be read or written. A call
 * fails if it needs a byte of that page, and only then. After EFAULT, nobody
 * holds the lock without knowing it; and where nobody was let in, the holder
 * still holds it.
 *
 * The kernel's fault injection reaches only copies of whole structures (see
 * faults.c); this test reaches each access to a field.
 */
#include <signal.h>

#include "tlock_test.h"

FIXTURE(pages)
{
	int fd;
	int other;
	char *pages;		/* two of them */
	long page;
	struct tlock_status before;
};

FIXTURE_VARIANT(pages)
{
	bool first;		/* the first page is the bad one */
	int prot;
};

FIXTURE_VARIANT_ADD(pages, first_inaccessible)
{
	.first = true,
	.prot = PROT_NONE,
};

FIXTURE_VARIANT_ADD(pages, first_read_only)
{
	.first = true,
	.prot = PROT_READ,
};

FIXTURE_VARIANT_ADD(pages, second_inaccessible)
{
	.prot = PROT_NONE,
};

FIXTURE_VARIANT_ADD(pages, second_read_only)
{
	.prot = PROT_READ,
};

FIXTURE_SETUP(pages)
{
	self->fd = contender();
	self->other = contender();
	ASSERT_FREE(self->fd);
	self->before = look(self->fd);
	self->page = sysconf(_SC_PAGESIZE);
	self->pages = mmap(NULL, 2 * self->page, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, self->pages);
}

FIXTURE_TEARDOWN(pages)
{
	close(self->fd);
	close(self->other);
	EXPECT_LEFT_FREE();
}

/* Places an argument with @there of its bytes on the first page */
static struct tlock_acquire *place(FIXTURE_DATA(pages) *self, size_t there,
				   __s64 timeout_ns, const char *job)
{
	struct tlock_acquire *arg = (void *)(self->pages + self->page - there);
	struct tlock_acquire asked = ask(timeout_ns, job);

	memcpy(arg, &asked, sizeof(asked));
	return arg;
}

static void protect(FIXTURE_DATA(pages) *self,
		    const FIXTURE_VARIANT(pages) *variant, int prot)
{
	if (mprotect(self->pages + (variant->first ? 0 : self->page),
		     self->page, prot))
		die("mprotect");
}

#define SPOIL()	protect(self, variant, variant->prot)
#define MEND()	protect(self, variant, PROT_READ | PROT_WRITE)

/* Whether an access to these bytes of the argument faults */
static bool faults(const FIXTURE_VARIANT(pages) *variant, size_t there,
		   size_t from, size_t to, bool write)
{
	if (!write && variant->prot == PROT_READ)
		return false;
	return variant->first ? from < there : to > there;
}

#define FIELD(field) offsetof(struct tlock_acquire, field),		\
		     offsetof(struct tlock_acquire, field) +		\
		     sizeof(((struct tlock_acquire *)0)->field)
#define READ_FAULTS(field)	faults(variant, there, FIELD(field), false)
#define WRITE_FAULTS(field)	faults(variant, there, FIELD(field), true)

/* For a short job, only its first word is read. */
#define JOB_FAULTS()							\
	faults(variant, there, offsetof(struct tlock_acquire, job),	\
	       offsetof(struct tlock_acquire, job) + sizeof(long), false)

/* The accesses of every call at its start, whatever becomes of it */
#define FAULTS_AT_THE_START()						\
	(WRITE_FAULTS(timeout_ns) || READ_FAULTS(flags) ||		\
	 WRITE_FAULTS(result) || WRITE_FAULTS(token) ||			\
	 WRITE_FAULTS(ticket) || READ_FAULTS(lease_ns) ||		\
	 READ_FAULTS(reserved) || JOB_FAULTS())

/* The accesses of a reacquire that has nothing to do */
#define FAULTS_OF_NO_CHANGE()						\
	(READ_FAULTS(flags) || WRITE_FAULTS(result) ||			\
	 WRITE_FAULTS(token) || READ_FAULTS(ticket) ||			\
	 READ_FAULTS(lease_ns) || READ_FAULTS(reserved) || JOB_FAULTS())

#define EACH_PLACE(there)						\
	size_t there = 1; there < sizeof(struct tlock_acquire); there++

/* For slow tests: the page ends between two fields or inside one */
static const size_t places[] = {
	4, 8, 12, 16, 20, 24, 28, 32, 36, 40, 44, 64, 72, 76, 80, 136, 144, 248
};

#define EACH_OF_THE_PLACES(there)					\
	size_t i = 0, there = places[0];				\
	i < ARRAY_SIZE(places) && (there = places[i]); i++

#define EXPECT_RET(expected, ret) EXPECT_EQ(expected, ret) {		\
	TH_LOG("with %zu bytes on the first page", there);		\
}

/*
 * One holder dies, and the next one, which flock(2) could not tell of that, is
 * revoked.
 */
#define LOST	(TLOCK_ABANDONED | TLOCK_REVOKED)

static void lose_lock(FIXTURE_DATA(pages) *self)
{
	int dying = contender();

	take(dying, "dying");
	close(dying);
	if (flock_try(self->other, NULL) ||
	    revoke_grant(self->fd, look(self->fd).holder.token, 0) ||
	    release(self->other) != -ESTALE)
		die("the other one is not revoked");
}

/*
 * Either the call returns the grant, or there is none, and the next grant
 * reports the death and the revocation.
 */
TEST_F(pages, g6_g12_acquire_of_a_lost_lock)
{
	struct tlock_acquire *arg;
	int expected, ret;

	for (EACH_PLACE(there)) {
		lose_lock(self);
		arg = place(self, there, LONG, "victim");
		expected = FAULTS_AT_THE_START() ? -EFAULT : 0;
		SPOIL();
		ret = acquire(self->fd, arg);
		MEND();
		EXPECT_RET(expected, ret);
		if (ret) {
			ASSERT_EQ(-EPERM, release(self->fd));
			ASSERT_EQ(0, look(self->fd).holder.token);
			EXPECT_NEXT_LEARNS(LOST, self->other);
		} else {
			EXPECT_EQ(look(self->fd).holder.token, arg->token);
			EXPECT_EQ(LOST, arg->result);
			ASSERT_EQ(0, release(self->fd));
		}
	}
}

/* EFAULT comes first, and leaves the file to learn that it was revoked. */
TEST_F(pages, g12_acquire_of_a_revoked_holder)
{
	struct tlock_acquire *arg;
	int expected, ret;

	for (EACH_OF_THE_PLACES(there)) {
		ASSERT_EQ(0, revoke_grant(self->other,
					  take(self->fd, "victim"), 0));
		arg = place(self, there, LONG, "victim");
		expected = FAULTS_AT_THE_START() ? -EFAULT : -ESTALE;
		SPOIL();
		ret = acquire(self->fd, arg);
		MEND();
		EXPECT_RET(expected, ret);
		EXPECT_STREQ(ret == -EFAULT ? "revoked" : "idle",
			     state_of(self->fd, NULL));
		EXPECT_EQ(ret == -EFAULT ? -ESTALE : -EPERM, release(self->fd));
		EXPECT_NEXT_LEARNS(TLOCK_REVOKED, self->other);
	}
}

TEST_F(pages, acquire_of_a_held_lock)
{
	static const __s64 timeouts[] = { 0, 1 };
	struct tlock_acquire *arg;
	struct tlock_holder holder;
	struct tlock_status st;
	int expected, ret;

	take(self->other, "holder");
	holder = look(self->fd).holder;
	for (EACH_PLACE(there)) {
		arg = place(self, there, timeouts[there % 2], "victim");
		expected = FAULTS_AT_THE_START() || WRITE_FAULTS(holder) ?
			   -EFAULT : -ETIMEDOUT;
		SPOIL();
		ret = acquire(self->fd, arg);
		MEND();
		EXPECT_RET(expected, ret);
		if (ret == -ETIMEDOUT) {
			EXPECT_EQ(0, memcmp(&holder, &arg->holder,
					    sizeof(holder)));
		}
		st = look(self->fd);
		EXPECT_EQ(holder.token, st.holder.token);
		EXPECT_EQ(0, st.waiters);
	}
	EXPECT_EQ(0, release(self->other));
}

/* Nobody waits: the caller goes on holding, with the job that it had. */
TEST_F(pages, g4_reacquire_where_nobody_waits)
{
	/* Two jobs that keep the old one, a new one, and that one again */
	static const char *const jobs[] = { "", "old", "new", "new" };
	struct tlock_acquire *arg;
	const char *job = "old";
	int expected, ret;
	__u64 token;

	token = take(self->fd, job);
	for (size_t i = 0; i < ARRAY_SIZE(jobs); i++) {
		for (EACH_PLACE(there)) {
			arg = place(self, there, LONG, jobs[i]);
			/* Without a new job, it accesses less */
			if (*jobs[i] && strcmp(job, jobs[i]))
				expected = FAULTS_AT_THE_START() ? -EFAULT : 0;
			else
				expected = FAULTS_OF_NO_CHANGE() ? -EFAULT : 0;
			SPOIL();
			ret = reacquire(self->fd, arg);
			MEND();
			EXPECT_RET(expected, ret);
			if (!ret) {
				EXPECT_EQ(token, arg->token);
				EXPECT_EQ(0, arg->result);
				if (*jobs[i])
					job = jobs[i];
			}
			ASSERT_EQ(token, look(self->fd).holder.token);
			ASSERT_STREQ(job, look(self->fd).holder.job);
		}
	}
	EXPECT_EQ(self->before.acquired + 1, look(self->fd).acquired);
	EXPECT_EQ(0, release(self->fd));
}

/* A call that fails at its start lets nobody in. */
TEST_F(pages, g4_reacquire_that_times_out)
{
	struct tlock_acquire *arg;
	struct call *waiter;
	int ret, fd;

	for (EACH_OF_THE_PLACES(there)) {
		take(self->fd, "victim");
		fd = contender();
		waiter = call(fd, acquire, FOREVER, "waiter");
		ASSERT_TRUE(await_waiters(self->fd, 1));
		arg = place(self, there, MSEC, "");
		SPOIL();
		ret = reacquire(self->fd, arg);
		MEND();
		if (FAULTS_AT_THE_START()) {
			EXPECT_RET(-EFAULT, ret);
			EXPECT_EQ(1, look(self->fd).waiters);
			EXPECT_EQ(0, release(self->fd));
		} else {
			EXPECT_RET(WRITE_FAULTS(holder) ? -EFAULT : -ETIMEDOUT,
				   ret);
			EXPECT_EQ(-EPERM, release(self->fd));
		}
		ASSERT_EQ(0, result(waiter));
		EXPECT_EQ(waiter->arg->token, look(self->fd).holder.token);
		EXPECT_EQ(0, release(fd));
		close(fd);
	}
}

/* Makes the first contender wait for the lock, which the other one holds. */
static struct call *begin_wait(FIXTURE_DATA(pages) *self,
			       int (*fn)(int fd, struct tlock_acquire *arg),
			       struct tlock_acquire *arg)
{
	struct tlock_acquire let_in = ask(FOREVER, "holder");
	struct call *holder = NULL, *victim;

	if (fn == reacquire) {
		take(self->fd, "victim");
		holder = call_with(self->other, acquire, &let_in);
		if (!await_waiters(self->fd, 1))
			die("nobody waits");
	} else {
		take(self->other, "holder");
	}
	victim = call_with(self->fd, fn, arg);
	if ((holder && result(holder)) || !await_waiters(self->fd, 1))
		die("the other does not hold the lock");
	return victim;
}

static int (*const fns[])(int fd, struct tlock_acquire *arg) = {
	acquire, reacquire
};

/* A page turns bad during the wait of a call that is then granted the lock */
TEST_F(pages, g6_granted_after_a_wait)
{
	struct tlock_acquire *arg;
	struct call *victim;
	int expected, ret;

	for (int fn = 0; fn < 2; fn++) {
		for (EACH_OF_THE_PLACES(there)) {
			arg = place(self, there, LONG, "victim");
			victim = begin_wait(self, fns[fn], arg);
			expected = WRITE_FAULTS(timeout_ns) ||
				   WRITE_FAULTS(result) ||
				   WRITE_FAULTS(token) ||
				   WRITE_FAULTS(ticket) ? -EFAULT : 0;
			SPOIL();
			ASSERT_EQ(0, release(self->other));
			ret = result(victim);
			MEND();
			EXPECT_RET(expected, ret);
			if (ret) {
				EXPECT_EQ(0, look(self->fd).holder.token);
				ASSERT_EQ(-EPERM, release(self->fd));
			} else {
				EXPECT_EQ(look(self->fd).holder.token,
					  arg->token);
				ASSERT_EQ(0, release(self->fd));
			}
		}
	}
}

/*
 * The same for a call that a signal interrupts: without its ticket, nobody
 * could go on
 */
TEST_F(pages, g9_interrupted)
{
	struct tlock_acquire *arg;
	struct call *victim;
	int expected, ret;

	handle_usr1(0);
	for (int fn = 0; fn < 2; fn++) {
		for (EACH_OF_THE_PLACES(there)) {
			arg = place(self, there, LONG, "victim");
			victim = begin_wait(self, fns[fn], arg);
			expected = WRITE_FAULTS(timeout_ns) ||
				   WRITE_FAULTS(ticket) ? -EFAULT : -EINTR;
			SPOIL();
			send_signal(victim, SIGUSR1);
			ret = result(victim);
			MEND();
			EXPECT_RET(expected, ret);
			EXPECT_EQ(0, look(self->fd).waiters);
			EXPECT_STREQ(ret == -EFAULT ? "idle" : "away",
				     state_of(self->fd, NULL));
			ASSERT_EQ(ret == -EFAULT ? -EPERM : 0,
				  release(self->fd));
			ASSERT_EQ(0, release(self->other));
		}
	}
}

/*
 * An asynchronous request: a call that fails at its start makes none, and
 * leaves one that exists as it was.
 */
TEST_F(pages, g11_asynchronous_request)
{
	struct tlock_acquire *arg;
	int expected, ret;
	__u64 ticket;

	take(self->other, "holder");
	for (EACH_OF_THE_PLACES(there)) {
		arg = place(self, there, LONG, "victim");
		arg->flags = TLOCK_ASYNC;
		expected = FAULTS_AT_THE_START() ? -EFAULT : -EINPROGRESS;
		SPOIL();
		ret = acquire(self->fd, arg);
		MEND();
		EXPECT_RET(expected, ret);
		EXPECT_STREQ(ret == -EFAULT ? "idle" : "waiting",
			     state_of(self->fd, &ticket));
		EXPECT_EQ(ticket, arg->ticket);
		EXPECT_EQ(ret != -EFAULT, look(self->fd).waiters);
		if (ret == -EFAULT)
			ASSERT_EQ(-EINPROGRESS, acquire(self->fd, arg));
		state_of(self->fd, &ticket);

		/* It is not decided yet */
		SPOIL();
		ret = acquire(self->fd, arg);
		MEND();
		EXPECT_RET(expected, ret);
		EXPECT_EQ(ticket, arg->ticket);
		EXPECT_STREQ("waiting", state_of(self->fd, NULL));
		ASSERT_EQ(0, release(self->fd));
	}
	EXPECT_EQ(0, release(self->other));
}

/*
 * Its outcome cannot be written. At the start of the call, that leaves it to be
 * fetched again; only the holder is written without a look beforehand.
 */
TEST_F(pages, g11_asynchronous_outcome)
{
	struct tlock_acquire *arg, next;
	bool failed;
	int expected, ret, dying;

	for (size_t i = 0; i < 2 * ARRAY_SIZE(places); i++) {
		size_t there = places[i / 2];

		failed = i % 2;
		arg = place(self, there, failed ? 1 : FOREVER, "victim");
		arg->flags = TLOCK_ASYNC;
		dying = contender();
		take(dying, "dying");
		ASSERT_EQ(-EINPROGRESS, acquire(self->fd, arg));
		if (!failed)
			close(dying);
		ASSERT_TRUE(await_state(self->fd, "decided"));
		expected = FAULTS_AT_THE_START() ||
			   (failed && WRITE_FAULTS(holder)) ? -EFAULT :
			   failed ? -ETIMEDOUT : 0;
		SPOIL();
		ret = acquire(self->fd, arg);
		MEND();
		EXPECT_RET(expected, ret);
		if (FAULTS_AT_THE_START()) {
			EXPECT_STREQ("decided", state_of(self->fd, NULL));
			ret = acquire(self->fd, arg);
			EXPECT_RET(failed ? -ETIMEDOUT : 0, ret);
		}
		if (!failed) {
			EXPECT_EQ(TLOCK_ABANDONED, arg->result);
		}
		EXPECT_STREQ(failed ? "idle" : "holding",
			     state_of(self->fd, NULL));
		ASSERT_EQ(failed ? -EPERM : 0, release(self->fd));
		if (failed) {
			ASSERT_EQ(0, release(dying));
			close(dying);
		}
		next = ask(0, "next");
		ASSERT_EQ(0, acquire(self->other, &next));
		EXPECT_EQ(0, next.result);
		ASSERT_EQ(0, release(self->other));
	}
}

TEST_F(pages, g12_revoke)
{
	struct tlock_revoke *arg;
	__u64 token;
	int ret;

	for (size_t there = 1; there < sizeof(*arg); there++) {
		token = take(self->other, "holder");
		arg = (void *)(self->pages + self->page - there);
		memset(arg, 0, sizeof(*arg));
		arg->token = token;
		SPOIL();
		ret = revoke_with(self->fd, arg);
		MEND();
		/* It only reads */
		EXPECT_RET(variant->prot == PROT_READ ? 0 : -EFAULT, ret);
		EXPECT_EQ(token, arg->token);
		EXPECT_EQ(ret ? token : 0, look(self->fd).holder.token);
		ASSERT_EQ(ret ? 0 : -ESTALE, release(self->other));
		EXPECT_NEXT_LEARNS(ret ? 0 : TLOCK_REVOKED, self->fd);
	}
}

TEST_F(pages, g10_status)
{
	struct tlock_status *st;
	int ret;

	for (size_t there = 1; there < sizeof(*st); there++) {
		st = (void *)(self->pages + self->page - there);
		SPOIL();
		ret = status(self->fd, st);
		MEND();
		EXPECT_RET(-EFAULT, ret);
	}
	EXPECT_EQ(self->before.acquired, look(self->fd).acquired);
}

TEST_F(pages, g10_waiter)
{
	struct tlock_waiter *waiter, first = {};
	struct tlock_acquire asked;
	int ret;

	take(self->fd, "holder");
	asked = start_acquire(self->other, FOREVER, "waiter");
	ASSERT_EQ(0, next_waiter(self->fd, &first));
	for (size_t there = 1; there < sizeof(*waiter); there++) {
		waiter = (void *)(self->pages + self->page - there);
		memset(waiter, 0, sizeof(*waiter));
		SPOIL();
		ret = next_waiter(self->fd, waiter);
		MEND();
		EXPECT_RET(-EFAULT, ret);
		/* After the last one, nothing is written */
		memset(waiter, 0, sizeof(*waiter));
		waiter->ticket = asked.ticket;
		SPOIL();
		ret = next_waiter(self->fd, waiter);
		MEND();
		EXPECT_RET(variant->prot == PROT_READ ? -ENOENT : -EFAULT, ret);
		EXPECT_EQ(asked.ticket, waiter->ticket);
		memset(waiter, 0, sizeof(*waiter));
		ret = next_waiter(self->fd, waiter);
		EXPECT_RET(0, ret);
		EXPECT_EQ(0, memcmp(&first, waiter, sizeof(first)));
	}
	EXPECT_EQ(0, release(self->other));
	EXPECT_EQ(0, release(self->fd));
}

/* The gate is set, or looked at, only if the caller can learn what it is like. */
TEST_F(pages, gate)
{
	static const __u32 ops[] = {
		TLOCK_GATE_LOOK, TLOCK_GATE_ATTACH, TLOCK_GATE_SET,
	};
	int daemon, reader;
	struct tlock_gate *arg;
	int ret;

	ASSERT_EQ(0, lock_create_gated("pages"));
	daemon = daemon_of("pages");
	reader = lock_open("pages", O_RDONLY);
	for (size_t i = 0; i < ARRAY_SIZE(ops); i++) {
		/* As if it were the first */
		if (ops[i] == TLOCK_GATE_ATTACH)
			close(daemon);
		for (size_t there = 1; there < sizeof(*arg); there++) {
			arg = (void *)(self->pages + self->page - there);
			*arg = (struct tlock_gate){
				.op = ops[i],
				.opening = 1,
				.until_ns = boottime() + LONG,
				.first_token = 1,
				.last_token = UINT64_MAX,
			};
			SPOIL();
			ret = gate(ops[i] == TLOCK_GATE_SET ? daemon : reader,
				   arg);
			MEND();
			EXPECT_RET(-EFAULT, ret);
		}
		if (ops[i] == TLOCK_GATE_ATTACH) {
			EXPECT_EQ(TLOCK_GATED | TLOCK_SHUT, look(reader).flags);
			daemon = daemon_of("pages");
		}
		arg->op = TLOCK_GATE_LOOK;
		ASSERT_EQ(0, gate(reader, arg));
		EXPECT_EQ(0, arg->opening);
	}
	close(daemon);
	close(reader);
	EXPECT_EQ(0, lock_delete("pages"));
}

/* Whole events are read, and those that could not be written are read later. */
TEST_F(pages, g10_events)
{
	int fd = open(DEVICE, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct tlock_event event[4], *events;
	ssize_t ret, want;
	__u64 seq;

	ASSERT_LE(0, fd);
	ASSERT_EQ(0, start_monitor(fd));
	for (size_t there = 1; there < 4 * sizeof(*events); there++) {
		take(self->fd, "first");
		ASSERT_EQ(0, release(self->fd));
		take(self->other, "second");
		ASSERT_EQ(0, release(self->other));
		events = (void *)(self->pages + self->page - there);
		SPOIL();
		ret = read_events(fd, events, 4 * sizeof(*events));
		MEND();
		want = variant->first ? 0 : there / sizeof(*events);
		EXPECT_RET(want ? want * (ssize_t)sizeof(*events) : -EFAULT,
			   ret);
		memcpy(event, events, want * sizeof(*events));
		ret = read_events(fd, &event[want],
				  (4 - want) * sizeof(*events));
		ASSERT_EQ((4 - want) * (ssize_t)sizeof(*events), ret);
		seq = event[0].seq;
		for (int i = 0; i < 4; i++) {
			EXPECT_EQ(seq + i, event[i].seq);
			EXPECT_EQ(0, event[i].lost);
			EXPECT_EQ(i % 2 ? TLOCK_EVENT_RELEASED :
					  TLOCK_EVENT_ACQUIRED, event[i].kind);
			EXPECT_STREQ(i < 2 ? "first" : "second", event[i].job);
		}
	}
	close(fd);
}

TEST_HARNESS_MAIN
