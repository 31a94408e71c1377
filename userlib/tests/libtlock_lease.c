// SPDX-License-Identifier: GPL-2.0-only
/*
 * Leases and revocation in libtlock: what a holder that hangs, those who wait
 * for it and an operator see; and the example of a server that refuses old
 * tokens. Runs as root with the module loaded, and needs /dev/tlock for itself.
 */
#define _GNU_SOURCE
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "libtlock_test.h"

#define LEASE	(50 * MSEC)

/* Has @t acquire the lock, and then takes it away. */
static void take_away(struct __test_metadata *_metadata, struct tlock *t)
{
	ASSERT_EQ(0, tlock_acquire(t, "hangs", TLOCK_TRY));
	EXPECT_FALSE(tlock_lost(t));
	ASSERT_EQ(0, tlock_revoke(t, tlock_token(t), 0));
	ASSERT_EQ(0, look(t).holder.token);
}

/* A call of @t has returned ESTALE. */
static void has_lost(struct __test_metadata *_metadata, struct tlock *t)
{
	EXPECT_TRUE(tlock_lost(t));
	EXPECT_EQ(0, tlock_token(t));
	EXPECT_EQ(0, tlock_ticket(t));
	EXPECT_FALSE(tlock_inherited(t));
	EXPECT_EQ(POLLOUT, events(t));
	/* Only once */
	EXPECT_FAILS(EPERM, tlock_release(t));
}

/* The lock is free, and passes on as revoked. */
static void passes_on(struct __test_metadata *_metadata, struct tlock *t)
{
	ASSERT_EQ(0, tlock_acquire(t, "next", TLOCK_TRY));
	EXPECT_TRUE(tlock_revoked(t));
	EXPECT_FALSE(tlock_abandoned(t));
	EXPECT_FALSE(tlock_lost(t));
	/* It is said once */
	EXPECT_EQ(0, tlock_reacquire(t, NULL, TLOCK_TRY));
	EXPECT_FALSE(tlock_revoked(t));
	EXPECT_EQ(0, tlock_release(t));
}

TEST_F(lock, g12_lease_ends)
{
	uint64_t revoked = look(self->a).revoked;
	int64_t begun = now();

	tlock_set_lease(self->a, LEASE);
	ASSERT_EQ(0, tlock_acquire(self->a, "hangs", TLOCK_TRY));
	EXPECT_EQ(TLOCK_LEASED, look(self->a).holder.flags);
	EXPECT_LE(begun + LEASE, look(self->a).holder.expires_ns);
	ASSERT_EQ(0, tlock_acquire(self->b, "next", PATIENCE));
	EXPECT_LE(begun + LEASE, now());
	EXPECT_TRUE(tlock_revoked(self->b));
	EXPECT_FALSE(tlock_abandoned(self->b));
	EXPECT_EQ(revoked + 1, look(self->a).revoked);
	/* This one has no lease */
	EXPECT_EQ(0, look(self->a).holder.flags);
	EXPECT_EQ(0, look(self->a).holder.expires_ns);

	EXPECT_EQ(POLLOUT | POLLERR | POLLPRI, events(self->a));
	EXPECT_FALSE(tlock_lost(self->a));
	EXPECT_FAILS(ESTALE, tlock_release(self->a));
	has_lost(_metadata, self->a);
	EXPECT_EQ(tlock_token(self->b), look(self->b).holder.token);
	EXPECT_EQ(0, tlock_release(self->b));
}

/* A lease that nobody minds ends nothing, and can still be renewed. */
TEST_F(lock, g12_lease_that_nobody_minds)
{
	struct tlock_holder holder;
	uint64_t token;

	tlock_set_lease(self->a, 1);
	ASSERT_EQ(0, tlock_acquire(self->a, "slow", TLOCK_TRY));
	token = tlock_token(self->a);
	holder = look(self->a).holder;
	EXPECT_EQ(token, holder.token);
	EXPECT_GT(now(), holder.expires_ns);
	tlock_set_lease(self->a, LONG);
	EXPECT_EQ(0, tlock_renew(self->a, NULL));
	EXPECT_EQ(token, tlock_token(self->a));
	EXPECT_LT(now(), look(self->a).holder.expires_ns);
	EXPECT_FAILS(ETIMEDOUT, tlock_acquire(self->b, "next", TLOCK_TRY));
	EXPECT_EQ(TLOCK_LEASED, tlock_blocker(self->b)->flags);
	EXPECT_EQ(look(self->a).holder.expires_ns,
		  tlock_blocker(self->b)->expires_ns);
	EXPECT_EQ(0, tlock_release(self->a));
}

/* A try is enough. */
TEST_F(lock, g12_try_ends_an_expired_grant)
{
	tlock_set_lease(self->a, 1);
	ASSERT_EQ(0, tlock_acquire(self->a, "slow", TLOCK_TRY));
	ASSERT_EQ(0, tlock_acquire(self->b, "next", TLOCK_TRY));
	EXPECT_TRUE(tlock_revoked(self->b));
	EXPECT_FAILS(ESTALE, tlock_renew(self->a, NULL));
	has_lost(_metadata, self->a);
	EXPECT_EQ(0, tlock_release(self->b));
}

/* When the lease ends, renewed by @renew in between */
static int64_t renewed(struct __test_metadata *_metadata, struct tlock *t,
		       int (*renew)(struct tlock *, const char *, int64_t))
{
	int64_t begun = now(), expires;

	ASSERT_EQ(0, renew(t, NULL, TLOCK_FOREVER)) return 0;
	expires = look(t).holder.expires_ns;
	EXPECT_EQ(TLOCK_LEASED, look(t).holder.flags);
	return expires - begun;
}

static int renew(struct tlock *t, const char *job, int64_t timeout_ns)
{
	(void)timeout_ns;
	return tlock_renew(t, job);
}

TEST_F(lock, g12_calls_that_renew)
{
	ASSERT_EQ(0, tlock_acquire(self->a, "acq", TLOCK_TRY));
	EXPECT_EQ(0, look(self->a).holder.flags);
	/* There is no lease to renew */
	EXPECT_EQ(0, tlock_renew(self->a, NULL));
	EXPECT_EQ(0, look(self->a).holder.flags);

	/* A later setting holds from the next call on */
	tlock_set_lease(self->a, LONG);
	EXPECT_LE(LONG, renewed(_metadata, self->a, renew));
	EXPECT_LE(LONG, renewed(_metadata, self->a, tlock_reacquire));
	tlock_set_lease(self->a, 2 * LONG);
	EXPECT_LE(2 * LONG, renewed(_metadata, self->a, tlock_reacquire));
	tlock_set_lease(self->a, LONG);
	EXPECT_GT(2 * LONG, renewed(_metadata, self->a, tlock_start_reacquire));
	/* No lease means the one that there is */
	tlock_set_lease(self->a, 0);
	EXPECT_LE(LONG, renewed(_metadata, self->a, renew));
	EXPECT_LE(LONG, renewed(_metadata, self->a, tlock_reacquire));
	EXPECT_EQ(0, tlock_release(self->a));
	ASSERT_EQ(0, tlock_acquire(self->a, "acq", TLOCK_TRY));
	EXPECT_EQ(0, look(self->a).holder.flags);
	EXPECT_EQ(0, tlock_release(self->a));

	/* 292 years, and none */
	tlock_set_lease(self->a, tlock_seconds(1e300));
	ASSERT_EQ(0, tlock_acquire(self->a, "acq", TLOCK_TRY));
	EXPECT_EQ(INT64_MAX, look(self->a).holder.expires_ns);
	EXPECT_EQ(0, tlock_release(self->a));
	tlock_set_lease(self->a, TLOCK_FOREVER);
	ASSERT_EQ(0, tlock_acquire(self->a, "acq", TLOCK_TRY));
	EXPECT_EQ(0, look(self->a).holder.flags);
	EXPECT_EQ(0, tlock_release(self->a));
}

TEST_F(lock, g12_renew_lets_nobody_in)
{
	struct tlock_holder holder;
	int64_t left;
	uint64_t token;

	EXPECT_FAILS(EPERM, tlock_renew(self->a, NULL));
	tlock_set_lease(self->a, LONG);
	ASSERT_EQ(0, tlock_acquire(self->a, "one", LONG));
	token = tlock_token(self->a);
	left = tlock_time_left(self->a);
	EXPECT_FAILS(EINPROGRESS, tlock_start_acquire(self->b, "next", LONG));
	EXPECT_EQ(0, tlock_renew(self->a, "two"));
	EXPECT_EQ(0, tlock_renew(self->a, ""));
	holder = look(self->b).holder;
	EXPECT_EQ(token, holder.token);
	EXPECT_STREQ("two", holder.job);
	EXPECT_EQ(token, tlock_token(self->a));
	EXPECT_EQ(left, tlock_time_left(self->a));
	EXPECT_EQ(1, look(self->a).waiters);

	/* These change nothing */
	EXPECT_FAILS(EINVAL, tlock_renew(self->a, "two\nlines"));
	EXPECT_FAILS(EBUSY, tlock_renew(self->b, NULL));
	EXPECT_EQ(holder.expires_ns, look(self->b).holder.expires_ns);
	EXPECT_EQ(token, tlock_token(self->a));
	EXPECT_NE(0, tlock_ticket(self->b));

	/* And the next call lets others in again */
	EXPECT_FAILS(EINPROGRESS, tlock_start_reacquire(self->a, NULL, LONG));
	EXPECT_EQ(0, tlock_finish(self->b));
	EXPECT_EQ(0, tlock_release(self->b));
	EXPECT_EQ(0, tlock_finish(self->a));
	EXPECT_EQ(TLOCK_LEASED, look(self->a).holder.flags);
	EXPECT_EQ(0, tlock_release(self->a));
}

/* What the last grant said stays as it is. */
TEST_F(lock, g12_renew_is_no_grant)
{
	pid_t pid;

	take_away(_metadata, self->a);
	ASSERT_EQ(0, tlock_acquire(self->b, "next", TLOCK_TRY));
	EXPECT_TRUE(tlock_revoked(self->b));
	EXPECT_EQ(0, tlock_renew(self->b, "sample"));
	EXPECT_TRUE(tlock_revoked(self->b));

	/* A child that renews does not take its parent's place */
	pid = fork();
	if (!pid) {
		if (tlock_renew(self->b, NULL) || !tlock_inherited(self->b))
			_exit(1);
		_exit(0);
	}
	EXPECT_EQ(0, exit_status(pid));
	EXPECT_FAILS(ESTALE, tlock_release(self->a));
	EXPECT_EQ(0, tlock_release(self->b));
}

static int acquire(struct tlock *t)
{
	return tlock_acquire(t, "again", TLOCK_FOREVER);
}

static int reacquire(struct tlock *t)
{
	return tlock_reacquire(t, NULL, TLOCK_FOREVER);
}

static int start_acquire(struct tlock *t)
{
	return tlock_start_acquire(t, "again", TLOCK_FOREVER);
}

static int start_reacquire(struct tlock *t)
{
	return tlock_start_reacquire(t, NULL, TLOCK_FOREVER);
}

static int renew_job(struct tlock *t)
{
	return tlock_renew(t, "again");
}

TEST_F(lock, g12_every_call_learns_it)
{
	int (*const calls[])(struct tlock *) = {
		acquire, reacquire, start_acquire, start_reacquire, renew_job,
		tlock_release,
	};

	for (unsigned int i = 0; i < sizeof(calls) / sizeof(*calls); i++) {
		take_away(_metadata, self->a);
		/* These are no such calls */
		EXPECT_FAILS(EPERM, tlock_cancel(self->a));
		EXPECT_FAILS(EPERM, tlock_resume(self->a));
		EXPECT_FAILS(EPERM, tlock_finish(self->a));
		EXPECT_FAILS(EPERM, tlock_adopt(self->a));
		EXPECT_FALSE(tlock_lost(self->a));
		EXPECT_NE(0, tlock_token(self->a));

		EXPECT_FAILS(ESTALE, calls[i](self->a));
		has_lost(_metadata, self->a);
		EXPECT_EQ(0, look(self->a).holder.token);
		passes_on(_metadata, i % 2 ? self->a : self->b);
		EXPECT_EQ(i % 2 == 0, tlock_lost(self->a));
	}
	EXPECT_EQ(0, tlock_acquire(self->a, "again", TLOCK_TRY));
	EXPECT_FALSE(tlock_lost(self->a));
	EXPECT_FALSE(tlock_revoked(self->a));
	EXPECT_EQ(0, tlock_release(self->a));
}

/* A lock that was closed is not lost silently, nor abandoned. */
TEST_F(lock, g12_close_after_revocation)
{
	struct tlock *t = tlock_open(NULL, O_RDWR);

	ASSERT_NE(NULL, t);
	take_away(_metadata, t);
	tlock_close(t);
	passes_on(_metadata, self->a);
}

TEST_F(lock, g12_grant_that_is_revoked_before_it_is_fetched)
{
	/* By somebody; and because its lease ends, which a fetch would renew */
	for (int i = 0; i < 2; i++) {
		tlock_set_lease(self->b, i ? 1 : 0);
		ASSERT_EQ(0, tlock_acquire(self->a, "first", TLOCK_TRY));
		EXPECT_FAILS(EINPROGRESS,
			     tlock_start_acquire(self->b, "hangs", LONG));
		EXPECT_EQ(0, tlock_release(self->a));
		EXPECT_EQ(TLOCK_UNFETCHED | (i ? TLOCK_LEASED : 0),
			  look(self->a).holder.flags);
		if (!i)
			EXPECT_EQ(0, tlock_revoke(self->a,
						  look(self->a).holder.token,
						  0));
		EXPECT_EQ(0, tlock_acquire(self->a, "next", TLOCK_TRY));
		EXPECT_TRUE(tlock_revoked(self->a));
		EXPECT_EQ(POLLOUT | POLLERR | POLLPRI, events(self->b));
		EXPECT_NE(0, tlock_ticket(self->b));
		EXPECT_FAILS(ESTALE, tlock_finish(self->b));
		has_lost(_metadata, self->b);
		EXPECT_EQ(0, tlock_release(self->a));
	}
}

TEST_F(lock, g12_finish_renews)
{
	int64_t expires;

	tlock_set_lease(self->b, LONG);
	ASSERT_EQ(0, tlock_acquire(self->a, "first", TLOCK_TRY));
	EXPECT_FAILS(EINPROGRESS, tlock_start_acquire(self->b, "next", LONG));
	EXPECT_EQ(0, tlock_release(self->a));
	/* It began with the grant */
	expires = look(self->a).holder.expires_ns;
	EXPECT_LT(now(), expires);
	EXPECT_EQ(0, tlock_finish(self->b));
	EXPECT_LT(expires, look(self->a).holder.expires_ns);
	EXPECT_EQ(0, tlock_release(self->b));
}

TEST_F(lock, g12_reacquire_that_waits_keeps_the_lease)
{
	struct call c = {
		.fn = tlock_reacquire, .t = self->a, .timeout_ns = LONG,
	};

	tlock_set_lease(self->a, LONG);
	ASSERT_EQ(0, tlock_acquire(self->a, "acq", TLOCK_TRY));
	EXPECT_FAILS(EINPROGRESS, tlock_start_acquire(self->b, "task", LONG));
	begin(&c);
	ASSERT_TRUE(AWAIT(self->a, st.waiters == 1 &&
			  st.holder.flags & TLOCK_UNFETCHED));
	EXPECT_EQ(0, tlock_finish(self->b));
	EXPECT_EQ(0, tlock_release(self->b));
	EXPECT_EQ(0, end(&c));
	EXPECT_EQ(TLOCK_LEASED, look(self->a).holder.flags);
	EXPECT_EQ(0, tlock_release(self->a));
}

TEST_F(lock, g12_revoke)
{
	struct tlock *looker = tlock_open(NULL, O_RDONLY);
	struct tlock_holder holder;
	uint64_t token;
	pid_t pid;

	ASSERT_NE(NULL, looker);
	EXPECT_FAILS(ESTALE, tlock_revoke(self->b, 0, 0));
	ASSERT_EQ(0, tlock_acquire(self->a, "hangs", TLOCK_TRY));
	token = tlock_token(self->a);
	EXPECT_FAILS(ESTALE, tlock_revoke(self->b, 0, 0));
	EXPECT_FAILS(ESTALE, tlock_revoke(self->b, token - 1, 0));
	EXPECT_FAILS(ESTALE, tlock_revoke(self->b, token + 1, 0));
	EXPECT_FAILS(EBADF, tlock_revoke(looker, token, 0));
	EXPECT_FAILS(EINVAL, tlock_revoke(self->b, token, -1));
	pid = fork();
	if (!pid) {
		if (setresuid(1000, 1000, 1000) ||
		    !tlock_revoke(self->b, token, 0))
			_exit(1);
		_exit(errno == EPERM ? 0 : 2);
	}
	EXPECT_EQ(0, exit_status(pid));
	EXPECT_EQ(token, look(self->a).holder.token);
	EXPECT_EQ(0, look(self->a).holder.flags);

	/* Known to the holder, who may go on for as long as nobody minds */
	EXPECT_EQ(0, tlock_revoke(self->b, token, LONG));
	holder = look(self->b).holder;
	EXPECT_EQ(TLOCK_REVOKING, holder.flags);
	EXPECT_LT(now(), holder.expires_ns);
	EXPECT_EQ(0, tlock_reacquire(self->a, NULL, TLOCK_TRY));
	EXPECT_EQ(0, tlock_renew(self->a, NULL));
	EXPECT_EQ(holder.expires_ns, look(self->b).holder.expires_ns);
	EXPECT_FAILS(ETIMEDOUT, tlock_acquire(self->b, "next", TLOCK_TRY));
	EXPECT_EQ(TLOCK_REVOKING, tlock_blocker(self->b)->flags);

	/* The refused caller knows what to revoke */
	EXPECT_EQ(0, tlock_revoke(self->b, tlock_blocker(self->b)->token,
				  LEASE));
	EXPECT_EQ(0, tlock_acquire(self->b, "next", PATIENCE));
	EXPECT_TRUE(tlock_revoked(self->b));
	/* And nothing newer */
	EXPECT_FAILS(ESTALE, tlock_revoke(self->b, token, 0));
	EXPECT_EQ(tlock_token(self->b), look(self->a).holder.token);
	EXPECT_FAILS(ESTALE, tlock_reacquire(self->a, NULL, TLOCK_TRY));
	EXPECT_EQ(0, tlock_release(self->b));
	tlock_close(looker);
}

TEST_F(lock, g12_scope)
{
	/* The end of the block finds it out */
	errno = ENOTUNIQ;
	tlock_scoped(self->a, "hangs", TLOCK_TRY)
		EXPECT_EQ(0, tlock_revoke(self->b, tlock_token(self->a), 0));
	EXPECT_EQ(ESTALE, errno);
	has_lost(_metadata, self->a);

	/* Or a call in it */
	tlock_scoped(self->a, "hangs", TLOCK_TRY) {
		EXPECT_TRUE(tlock_revoked(self->a));
		EXPECT_EQ(0, tlock_revoke(self->b, tlock_token(self->a), 0));
		EXPECT_FAILS(ESTALE, tlock_reacquire(self->a, NULL, LONG));
		errno = ENOTUNIQ;
	}
	EXPECT_EQ(ENOTUNIQ, errno);
	has_lost(_metadata, self->a);

	/* It is not held, and the next block may be */
	take_away(_metadata, self->a);
	tlock_scoped(self->a, "again", TLOCK_TRY) {
		EXPECT_TRUE(false);
	} else {
		EXPECT_EQ(ESTALE, errno);
	}
	errno = ENOTUNIQ;
	tlock_scoped(self->a, "again", TLOCK_TRY) {
		EXPECT_TRUE(tlock_revoked(self->a));
	} else {
		EXPECT_TRUE(false);
	}
	EXPECT_EQ(ENOTUNIQ, errno);
	EXPECT_FALSE(tlock_lost(self->a));
}

/* A call that is canceled while its handle does not know of its loss ends. */
TEST_F(lock, g12_cancel_meets_a_revocation)
{
	int64_t until = now() + WHILE;
	int canceled = 0, i;

	for (i = 0; i < ROUNDS && now() < until; i++) {
		struct call c = {
			.fn = i & 1 ? tlock_reacquire : tlock_acquire,
			.t = self->a, .job = "again",
			.timeout_ns = TLOCK_FOREVER,
		};
		int ret;

		take_away(_metadata, self->a);
		begin(&c);
		do {
			ret = tlock_cancel(self->a);
			if (ret)
				ASSERT_EQ(EPERM, errno);
		} while (ret && !c.ended);
		ASSERT_EQ(ret ? ESTALE : ECANCELED, end(&c));
		ASSERT_EQ(0, tlock_token(self->a));
		ASSERT_EQ(0, look(self->a).holder.token);
		/* The kernel has nothing left for this contender, either way */
		ASSERT_EQ(-1, tlock_release(self->a));
		ASSERT_EQ(EPERM, errno);
		canceled += !ret;
	}
	TH_LOG("%d of %d were canceled", canceled, i);
	/* A canceled call may have got the lock, and so the news, in the end */
	take_away(_metadata, self->a);
	passes_on(_metadata, self->b);
}

/* An instrument server, with a client for each contender */
FIXTURE(server)
{
	struct tlock *old, *new;
	int old_fd, new_fd;
	char dir[32];
	pid_t pid;
	FILE *output;
};

/* Starts userlib/examples/server.c. */
static void serve(struct __test_metadata *_metadata, FIXTURE_DATA(server) *self)
{
	char path[EXAMPLE_PATH_SIZE], socket[64];
	int fds[2];

	snprintf(socket, sizeof(socket), "%s/socket", self->dir);
	ASSERT_EQ(0, pipe(fds));
	self->pid = fork();
	if (!self->pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		dup2(fds[1], STDOUT_FILENO);
		close(fds[0]);
		close(fds[1]);
		execl(example_path(path, "server"), "server", socket, NULL);
		_exit(127);
	}
	close(fds[1]);
	self->output = fdopen(fds[0], "r");
	ASSERT_NE(NULL, self->output);
}

static int connect_to(struct __test_metadata *_metadata,
		      FIXTURE_DATA(server) *self)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%s/socket",
		 self->dir);
	EXPECT_EQ(0, connect(fd, (struct sockaddr *)&address, sizeof(address)));
	return fd;
}

static void next_line(FILE *output, char buf[256])
{
	if (!fgets(buf, 256, output))
		*buf = '\0';
	buf[strcspn(buf, "\n")] = '\0';
}

/* Sends a command, and reads the answer: the next line */
static void send_text(int fd, const char *text, char answer[256])
{
	size_t len = 0;

	if (write(fd, text, strlen(text)) == (ssize_t)strlen(text))
		while (len < 255 && read(fd, answer + len, 1) == 1 &&
		       answer[len] != '\n')
			len++;
	answer[len] = '\0';
}

#define EXPECT_ANSWER(expected, fd, ...) do {				\
	char text_[512], answer_[256];					\
									\
	snprintf(text_, sizeof(text_), __VA_ARGS__);			\
	send_text(fd, text_, answer_);					\
	EXPECT_STREQ(expected, answer_);				\
} while (0)

#define EXPECT_LINE(expected, output) do {				\
	char line_[256];						\
									\
	next_line(output, line_);					\
	EXPECT_STREQ(expected, line_);					\
} while (0)

FIXTURE_SETUP(server)
{
	self->old = tlock_open(NULL, O_RDWR);
	ASSERT_NE(NULL, self->old);
	self->new = tlock_open(NULL, O_RDWR);
	ASSERT_NE(NULL, self->new);
	strcpy(self->dir, "/tmp/tlock.XXXXXX");
	ASSERT_NE(NULL, mkdtemp(self->dir));
	serve(_metadata, self);
	EXPECT_LINE("ready", self->output);
	self->old_fd = connect_to(_metadata, self);
	self->new_fd = connect_to(_metadata, self);
}

FIXTURE_TEARDOWN(server)
{
	char socket[64];

	EXPECT_EQ(0, kill(self->pid, SIGTERM));
	EXPECT_EQ(self->pid, waitpid(self->pid, NULL, 0));
	/* The instrument has got nothing else */
	EXPECT_LINE("", self->output);
	fclose(self->output);
	close(self->old_fd);
	close(self->new_fd);
	snprintf(socket, sizeof(socket), "%s/socket", self->dir);
	EXPECT_EQ(0, unlink(socket));
	EXPECT_EQ(0, rmdir(self->dir));
	tlock_close(self->old);
	tlock_close(self->new);
}

/* A holder's late command does no harm. */
TEST_F(server, g12_old_token_is_refused)
{
	unsigned long long old, new;
	char refused[128];

	ASSERT_EQ(0, tlock_acquire(self->old, "move", TLOCK_TRY));
	old = tlock_token(self->old);
	EXPECT_ANSWER("ok", self->old_fd, "%llu move 1\n", old);
	EXPECT_LINE("move 1", self->output);
	EXPECT_ANSWER("ok", self->old_fd, "%llu move 2\n", old);
	EXPECT_LINE("move 2", self->output);

	/* It hangs with the next command on its way */
	ASSERT_EQ(5, write(self->old_fd, "00000", 5));
	ASSERT_EQ(0, tlock_revoke(self->new, old, 0));
	ASSERT_EQ(0, tlock_acquire(self->new, "calibrate", TLOCK_TRY));
	EXPECT_TRUE(tlock_revoked(self->new));
	new = tlock_token(self->new);
	EXPECT_ANSWER("ok", self->new_fd, "%llu where?\n", new);
	EXPECT_LINE("where?", self->output);
	snprintf(refused, sizeof(refused),
		 "refused: the newest token is %llu", new);
	EXPECT_ANSWER(refused, self->old_fd, "%llu move 3\n", old);

	/* It has learnt of it, and gets its turn */
	EXPECT_FAILS(ESTALE, tlock_release(self->old));
	EXPECT_ANSWER("ok", self->new_fd, "%llu calibrate\n", new);
	EXPECT_LINE("calibrate", self->output);
	EXPECT_EQ(0, tlock_release(self->new));
	ASSERT_EQ(0, tlock_acquire(self->old, "move", TLOCK_TRY));
	old = tlock_token(self->old);
	EXPECT_ANSWER("ok", self->old_fd, "%llu move 3\n", old);
	EXPECT_LINE("move 3", self->output);
	EXPECT_EQ(0, tlock_release(self->old));
}

TEST_F(server, lines_that_are_no_commands)
{
	static const char *const lines[] = {
		"\n", "move\n", "0 move\n", "-1 move\n", " 1 move\n", "1\n",
		"1move\n", "99999999999999999999 move\n",
	};
	char long_line[400], answer[256];

	for (unsigned int i = 0; i < sizeof(lines) / sizeof(*lines); i++)
		EXPECT_ANSWER("refused: no token and command", self->old_fd,
			      "%s", lines[i]);
	/* Several lines at once, and one in parts */
	EXPECT_ANSWER("ok", self->new_fd, "3 one\n3 two\n3 th");
	EXPECT_ANSWER("ok", self->new_fd, "ree\n");
	EXPECT_LINE("one", self->output);
	EXPECT_LINE("two", self->output);
	EXPECT_LINE("three", self->output);
	send_text(self->new_fd, "", answer);
	EXPECT_STREQ("ok", answer);

	/* One that is too long ends the connection, and no other */
	memset(long_line, '5', sizeof(long_line) - 1);
	long_line[sizeof(long_line) - 1] = '\0';
	send_text(self->old_fd, long_line, answer);
	EXPECT_STREQ("", answer);
	EXPECT_ANSWER("ok", self->new_fd, "4 four\n");
	EXPECT_LINE("four", self->output);
}

TEST_HARNESS_MAIN
