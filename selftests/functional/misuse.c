// SPDX-License-Identifier: GPL-2.0-only
/*
 * Every way to misuse the ioctls: each has its errno, and leaves the lock as it
 * was, whoever holds it. (For calls at the wrong time see ownership.c.)
 */
#include <stdio.h>
#include <sys/ioctl.h>

#include "tlock_test.h"

FIXTURE(misuse)
{
	int fd;			/* makes the mistake */
	int other;
	struct call *waiter;
	char *pages;		/* four pages, writable at first */
	long page;
	struct tlock_status before;
};

FIXTURE_VARIANT(misuse)
{
	bool held_by_me;
	bool held_by_other;
	bool nobody_waits;
};

FIXTURE_VARIANT_ADD(misuse, of_a_free_lock)
{
};

FIXTURE_VARIANT_ADD(misuse, by_the_holder)
{
	.held_by_me = true,
};

/* Here a reacquire has little to do, and reads little of its argument. */
FIXTURE_VARIANT_ADD(misuse, by_the_holder_alone)
{
	.held_by_me = true,
	.nobody_waits = true,
};

FIXTURE_VARIANT_ADD(misuse, of_anothers_lock)
{
	.held_by_other = true,
};

FIXTURE_SETUP(misuse)
{
	self->fd = contender();
	self->other = contender();
	ASSERT_FREE(self->fd);
	if (variant->held_by_me)
		take(self->fd, "me");
	if (variant->held_by_other)
		take(self->other, "other");
	if ((variant->held_by_me || variant->held_by_other) &&
	    !variant->nobody_waits) {
		self->waiter = call(contender(), acquire, FOREVER, "waiter");
		ASSERT_TRUE(await_waiters(self->fd, 1));
	}

	self->page = sysconf(_SC_PAGESIZE);
	self->pages = mmap(NULL, 4 * self->page, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, self->pages);
	self->before = look(self->fd);
}

FIXTURE_TEARDOWN(misuse)
{
	if (variant->held_by_me) {
		EXPECT_EQ(0, release(self->fd));
	}
	if (variant->held_by_other) {
		EXPECT_EQ(0, release(self->other));
	}
	if (self->waiter) {
		EXPECT_EQ(0, result(self->waiter));
		EXPECT_EQ(0, release(self->waiter->fd));
		close(self->waiter->fd);
	}
	close(self->fd);
	close(self->other);
	EXPECT_LEFT_FREE();
}

/* Neither the holder, the waiters nor the counters changed */
#define EXPECT_UNCHANGED() do {						\
	struct tlock_status __now = look(self->fd);			\
									\
	EXPECT_EQ(0, memcmp(&self->before, &__now, sizeof(__now)));	\
} while (0)

/* Both calls refuse the argument in the same way, before anything else. */
#define EXPECT_REFUSED(err, arg) do {					\
	EXPECT_EQ(err, acquire(self->fd, arg));				\
	EXPECT_EQ(err, reacquire(self->fd, arg));			\
	EXPECT_UNCHANGED();						\
} while (0)

static struct tlock_acquire *at(void *address)
{
	return address;
}

TEST_F(misuse, bad_pointer)
{
	void *const bad[] = {
		NULL, (void *)1, (void *)-1L, (void *)-4096L,
		(void *)(1UL << (8 * sizeof(long) - 1)),
		(void *)(~0UL - sizeof(struct tlock_acquire)),
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		EXPECT_REFUSED(-EFAULT, at(bad[i]));
		EXPECT_EQ(-EFAULT, status(self->fd, bad[i]));
		EXPECT_EQ(-EFAULT, next_waiter(self->fd, bad[i]));
		EXPECT_EQ(-EFAULT, revoke_with(self->fd, bad[i]));
	}
	EXPECT_UNCHANGED();
}

/* The address of the kernel's own zero page; 0 if the kernel hides it */
static unsigned long zero_page(void)
{
	FILE *file = fopen("/proc/kallsyms", "re");
	unsigned long address, found = 0;
	char line[512], name[128];

	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "%lx %*c %127s", &address, name) == 2 &&
		    !strcmp(name, "empty_zero_page"))
			found = address;
	if (file)
		fclose(file);
	return found;
}

/* An argument that would be valid, but lies in kernel memory */
TEST_F(tlock, kernel_memory)
{
	void *zeros = (void *)zero_page();
	struct tlock_status after;

	if (!zeros)
		SKIP(return, "this kernel does not say where its zero page is");
	EXPECT_EQ(-EFAULT, acquire(self->fd, zeros));
	after = look(self->fd);
	EXPECT_EQ(0, memcmp(&self->before, &after, sizeof(after)));
	take(self->fd, "holder");
	EXPECT_EQ(-EFAULT, reacquire(self->fd, zeros));
	EXPECT_EQ(0, release(self->fd));
}

/* An argument that would revoke the grant, if there is one */
static struct tlock_revoke right_now(const FIXTURE_DATA(misuse) *self)
{
	return (struct tlock_revoke){ .token = self->before.holder.token };
}

TEST_F(misuse, unmapped_page)
{
	struct tlock_revoke revocation = right_now(self);
	struct tlock_acquire arg = ask(0, "job");
	char *end = self->pages + self->page;

	ASSERT_EQ(0, munmap(end, self->page));
	EXPECT_REFUSED(-EFAULT, at(end));
	EXPECT_EQ(-EFAULT, status(self->fd, (void *)end));
	EXPECT_EQ(-EFAULT, next_waiter(self->fd, (void *)end));
	EXPECT_EQ(-EFAULT, revoke_with(self->fd, (void *)end));

	/*
	 * Only the start of the argument is mapped: less than what the kernel
	 * reads. (It does not read what follows the job's NUL.)
	 */
	for (size_t there = 1; there <= offsetof(struct tlock_acquire, job);
	     there++) {
		memcpy(end - there, &arg, there);
		EXPECT_REFUSED(-EFAULT, at(end - there));
	}
	for (size_t there = 1; there < sizeof(struct tlock_status); there += 8) {
		EXPECT_EQ(-EFAULT, status(self->fd, (void *)(end - there)));
	}
	for (size_t there = 1; there < sizeof(struct tlock_waiter); there++) {
		memset(end - there, 0, there);
		EXPECT_EQ(-EFAULT,
			  next_waiter(self->fd, (void *)(end - there)));
	}
	for (size_t there = 1; there < sizeof(revocation); there++) {
		memcpy(end - there, &revocation, there);
		EXPECT_EQ(-EFAULT,
			  revoke_with(self->fd, (void *)(end - there)));
	}
	EXPECT_UNCHANGED();
}

/* All of the argument is mapped but its start. */
TEST_F(misuse, unmapped_start)
{
	struct tlock_acquire arg = ask(0, "job");
	struct tlock_revoke revocation = right_now(self);
	size_t missing = offsetof(struct tlock_acquire, result);
	char *start = self->pages + self->page;

	memcpy(start - missing, &arg, sizeof(arg));
	ASSERT_EQ(0, munmap(self->pages, self->page));
	EXPECT_REFUSED(-EFAULT, at(start - missing));
	EXPECT_EQ(-EFAULT, status(self->fd, (void *)(start - missing)));
	memset(start, 0, sizeof(struct tlock_waiter));
	EXPECT_EQ(-EFAULT, next_waiter(self->fd, (void *)(start - missing)));
	memcpy(start, (char *)&revocation + missing,
	       sizeof(revocation) - missing);
	EXPECT_EQ(-EFAULT, revoke_with(self->fd, (void *)(start - missing)));
	EXPECT_UNCHANGED();
}

TEST_F(misuse, inaccessible_page)
{
	ASSERT_EQ(0, mprotect(self->pages, self->page, PROT_NONE));
	EXPECT_REFUSED(-EFAULT, at(self->pages));
	EXPECT_EQ(-EFAULT, status(self->fd, (void *)self->pages));
	EXPECT_EQ(-EFAULT, next_waiter(self->fd, (void *)self->pages));
	EXPECT_EQ(-EFAULT, revoke_with(self->fd, (void *)self->pages));
	EXPECT_UNCHANGED();
}

/* The argument can be read but not written: found before anything changes. */
TEST_F(misuse, read_only_page)
{
	static const __s64 timeouts[] = { 0, LONG, FOREVER };
	struct tlock_acquire arg = ask(0, "job");

	for (size_t i = 0; i < ARRAY_SIZE(timeouts); i++) {
		arg.timeout_ns = timeouts[i];
		*at(self->pages) = arg;
		ASSERT_EQ(0, mprotect(self->pages, self->page, PROT_READ));
		EXPECT_REFUSED(-EFAULT, at(self->pages));
		EXPECT_EQ(-EFAULT, status(self->fd, (void *)self->pages));
		EXPECT_EQ(0, memcmp(&arg, self->pages, sizeof(arg)));
		ASSERT_EQ(0, mprotect(self->pages, self->page,
				      PROT_READ | PROT_WRITE));
	}
	/* REVOKE only reads: here, a token that is nobody's */
	memset(self->pages, 0, sizeof(struct tlock_revoke));
	ASSERT_EQ(0, mprotect(self->pages, self->page, PROT_READ));
	EXPECT_EQ(-ESTALE, revoke_with(self->fd, (void *)self->pages));
	EXPECT_UNCHANGED();
}

TEST_F(misuse, unknown_flag)
{
	struct tlock_acquire arg;

	/* With a job and without, and beside a flag that is known */
	for (int i = 0; i < 4 * 32; i++) {
		__u32 flags = 1U << i / 4 | (i & 2 ? TLOCK_ASYNC : 0);

		if (flags == TLOCK_ASYNC)
			continue;
		arg = ask(0, i % 2 ? "job" : "");
		arg.flags = flags;
		if (flags == TLOCK_RENEW) {
			/* Only a reacquire knows it */
			EXPECT_EQ(-EINVAL, acquire(self->fd, &arg));
			EXPECT_UNCHANGED();
			continue;
		}
		EXPECT_REFUSED(-EINVAL, &arg);
		EXPECT_EQ(flags, arg.flags);
		EXPECT_EQ(0, arg.timeout_ns);
	}
}

/* A renewal resumes nothing. */
TEST_F(misuse, renewal_with_a_ticket)
{
	struct tlock_acquire arg;

	for (int i = 0; i < 4; i++) {
		arg = ask(0, i % 2 ? "me" : "");
		arg.flags = TLOCK_RENEW;
		arg.ticket = i & 2 ? ~0ULL : 1;
		EXPECT_REFUSED(-EINVAL, &arg);
		EXPECT_EQ(i & 2 ? ~0ULL : 1, arg.ticket);
	}
}

/* Fields that no version uses yet must be 0, in each of their bytes. */
TEST_F(misuse, unknown_field)
{
	struct tlock_acquire arg, before;
	const size_t from = offsetof(struct tlock_acquire, reserved);
	const size_t to = offsetof(struct tlock_acquire, job);

	ASSERT_EQ(from + 4 * 8, to);
	for (size_t byte = from; byte < to; byte++) {
		for (int job = 0; job < 2; job++) {
			/* With the holder's own job, too */
			arg = ask(0, job ? "me" : "");
			((char *)&arg)[byte] = byte % 2 ? 1 : 0x80;
			before = arg;
			EXPECT_REFUSED(-EINVAL, &arg);
			/* Only this field may have been written by then */
			arg.result = before.result;
			EXPECT_EQ(0, memcmp(&before, &arg, sizeof(arg)));
		}
	}
}

TEST_F(misuse, unknown_field_of_waiter)
{
	const size_t from = offsetof(struct tlock_waiter, reserved);
	const size_t to = offsetof(struct tlock_waiter, comm);
	struct tlock_waiter waiter, before;

	for (size_t byte = from; byte < to; byte++) {
		memset(&waiter, 0, sizeof(waiter));
		((char *)&waiter)[byte] = byte % 2 ? 1 : 0x80;
		before = waiter;
		EXPECT_EQ(-EINVAL, next_waiter(self->fd, &waiter));
		EXPECT_EQ(0, memcmp(&before, &waiter, sizeof(waiter)));
	}
	EXPECT_UNCHANGED();
}

TEST_F(misuse, unknown_field_of_revoke)
{
	const size_t from = offsetof(struct tlock_revoke, flags);
	struct tlock_revoke arg;

	for (size_t byte = from; byte < sizeof(arg); byte++) {
		for (int bit = 0; bit < 8; bit++) {
			arg = right_now(self);
			((char *)&arg)[byte] = 1 << bit;
			EXPECT_EQ(-EINVAL, revoke_with(self->fd, &arg));
			/* Before it looks at the token */
			arg.token++;
			EXPECT_EQ(-EINVAL, revoke_with(self->fd, &arg));
		}
	}
	EXPECT_UNCHANGED();
}

/* Whatever the grace: of another grant, of none, and of no grant yet */
TEST_F(misuse, wrong_token_of_revoke)
{
	static const __u64 graces[] = { 0, 1, MSEC, ~0ULL };
	const __u64 token = self->before.holder.token;
	const __u64 tokens[] = { 0, token - 1, token + 1, ~token, ~0ULL };

	for (size_t i = 0; i < ARRAY_SIZE(tokens); i++) {
		for (size_t g = 0; g < ARRAY_SIZE(graces); g++) {
			EXPECT_EQ(-ESTALE,
				  revoke_grant(self->fd, tokens[i], graces[g]));
		}
	}
	EXPECT_UNCHANGED();
}

TEST_F(misuse, unterminated_job)
{
	struct tlock_acquire arg = ask(0, "");

	memset(arg.job, 'x', sizeof(arg.job));
	EXPECT_REFUSED(-EINVAL, &arg);
	/* Whatever follows the job */
	memset(&arg.holder, 0, sizeof(arg.holder));
	EXPECT_REFUSED(-EINVAL, &arg);
}

TEST_F(misuse, control_character_in_job)
{
	struct tlock_acquire arg;
	char job[64];

	for (int c = 1; c <= 0x7f; c++) {
		if (c == 0x20)
			c = 0x7f;
		/* At the start, in the middle, at the end */
		for (int where = 0; where < 3; where++) {
			snprintf(job, sizeof(job), "%s%c%s",
				 where ? "a job" : "", c,
				 where < 2 ? "goes on" : "");
			arg = ask(0, job);
			EXPECT_REFUSED(-EINVAL, &arg);
		}
	}
	/* As the last byte before the NUL */
	memset(job, 'x', sizeof(job) - 1);
	job[sizeof(job) - 1] = 0;
	job[sizeof(job) - 2] = '\n';
	arg = ask(0, job);
	EXPECT_REFUSED(-EINVAL, &arg);
}

TEST_F(misuse, c1_control_character_in_job)
{
	struct tlock_acquire arg;
	char job[64];

	for (int c = 0x80; c <= 0x9f; c++) {
		snprintf(job, sizeof(job), "a job\xc2%cgoes on", c);
		arg = ask(0, job);
		EXPECT_REFUSED(-EINVAL, &arg);
	}
	/* As the last character, and after a byte that is not UTF-8 */
	memset(job, 0xff, sizeof(job) - 1);
	job[sizeof(job) - 1] = 0;
	job[sizeof(job) - 2] = 0x9b;
	job[sizeof(job) - 3] = 0xc2;
	arg = ask(0, job);
	EXPECT_REFUSED(-EINVAL, &arg);
}

TEST_F(misuse, unknown_command)
{
	char arg[4096] = "";

	for (unsigned int nr = 0; nr < 256; nr++) {
		const unsigned int commands[] = {
			_IO(TLOCK_IOC_MAGIC, nr),
			_IOR(TLOCK_IOC_MAGIC, nr, struct tlock_status),
			_IOW(TLOCK_IOC_MAGIC, nr, struct tlock_acquire),
			_IOWR(TLOCK_IOC_MAGIC, nr, struct tlock_acquire),
			/* With the size of another version or architecture */
			_IOWR(TLOCK_IOC_MAGIC, nr, char[192]),
			_IOR(TLOCK_IOC_MAGIC, nr, char[192]),
			_IOWR(TLOCK_IOC_MAGIC, nr, char[252]),
			_IOWR(TLOCK_IOC_MAGIC, nr, char[264]),
			_IOR(TLOCK_IOC_MAGIC, nr, char[376]),
			_IOWR(TLOCK_IOC_MAGIC, nr, char[128]),
			_IOWR(TLOCK_IOC_MAGIC, nr, char[144]),
			_IOR(TLOCK_IOC_MAGIC, nr, struct tlock_waiter),
			_IOWR(TLOCK_IOC_MAGIC, nr, struct tlock_waiter),
			_IOW(TLOCK_IOC_MAGIC, nr, struct tlock_revoke),
			_IOWR(TLOCK_IOC_MAGIC, nr, struct tlock_revoke),
			_IOW(TLOCK_IOC_MAGIC, nr, char[24]),
			_IOW(TLOCK_IOC_MAGIC, nr, struct tlock_gate),
			_IOWR(TLOCK_IOC_MAGIC, nr, struct tlock_gate),
			_IOWR(TLOCK_IOC_MAGIC, nr, char[320]),
			/* Of another driver */
			_IOWR(TLOCK_IOC_MAGIC - 1, nr, struct tlock_acquire),
			_IO(TLOCK_IOC_MAGIC + 1, nr),
		};

		for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
			if (commands[i] == TLOCK_IOC_ACQUIRE ||
			    commands[i] == TLOCK_IOC_RELEASE ||
			    commands[i] == TLOCK_IOC_REACQUIRE ||
			    commands[i] == TLOCK_IOC_STATUS ||
			    commands[i] == TLOCK_IOC_WAITER ||
			    commands[i] == TLOCK_IOC_REVOKE ||
			    commands[i] == TLOCK_IOC_MONITOR ||
			    commands[i] == TLOCK_IOC_GATE)
				continue;
			EXPECT_EQ(-1, ioctl(self->fd, commands[i], arg));
			EXPECT_EQ(ENOTTY, errno) {
				TH_LOG("command %#x", commands[i]);
			}
		}
	}
	EXPECT_UNCHANGED();
}

/* Calls that other devices support and this one does not */
TEST_F(misuse, other_calls)
{
	char byte = 0;

	EXPECT_EQ(-1, write(self->fd, &byte, 1));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(-1, pread(self->fd, &byte, 1, 0));
	EXPECT_EQ(ESPIPE, errno);
	EXPECT_EQ(-1, lseek(self->fd, 0, SEEK_SET));
	EXPECT_EQ(ESPIPE, errno);
	EXPECT_EQ(MAP_FAILED, mmap(NULL, self->page, PROT_READ, MAP_SHARED,
				   self->fd, 0));
	EXPECT_EQ(ENODEV, errno);
	EXPECT_UNCHANGED();
}

/* The other side: jobs that look odd and are valid */

FIXTURE(job)
{
	int fd;
};

FIXTURE_VARIANT(job)
{
	const char *text;
};

FIXTURE_VARIANT_ADD(job, empty)
{
	.text = "",
};

FIXTURE_VARIANT_ADD(job, of_63_bytes)
{
	.text = "123456789012345678901234567890123456789012345678901234567890123",
};

FIXTURE_VARIANT_ADD(job, with_spaces)
{
	.text = "  a job ",
};

FIXTURE_VARIANT_ADD(job, in_utf8)
{
	.text = "T\xc3\xbcr \xc2\xa0\xc2\xb5K \xe2\x82\xac \xf0\x9f\x94\xad",
};

/* Lone continuation bytes, a start byte at the end, bytes that never occur */
FIXTURE_VARIANT_ADD(job, that_is_no_utf8)
{
	.text = "\x80\x9f\xc3\x28\xff\xfe \xc3\x85 \xe2\x82 \xc2",
};

FIXTURE_SETUP(job)
{
	self->fd = contender();
	ASSERT_FREE(self->fd);
}

FIXTURE_TEARDOWN(job)
{
	EXPECT_EQ(0, release(self->fd));
	close(self->fd);
	EXPECT_LEFT_FREE();
}

TEST_F(job, is_taken_as_it_is)
{
	struct tlock_acquire arg = ask(0, variant->text);
	char padded[TLOCK_JOB_SIZE] = "";
	struct tlock_holder holder;

	memcpy(padded, variant->text, strlen(variant->text));
	/* Fill what follows the NUL with control characters */
	for (size_t i = strlen(variant->text) + 1; i < sizeof(arg.job); i++)
		arg.job[i] = '\n';
	ASSERT_EQ(0, acquire(self->fd, &arg));
	holder = look(self->fd).holder;
	EXPECT_EQ(0, memcmp(padded, holder.job, sizeof(padded)));
	EXPECT_STREQ(variant->text, sysfs_text("job"));

	/* An empty job keeps the old one, so the rest is not even read */
	arg = ask(0, "");
	for (size_t i = 1; i < sizeof(arg.job); i++)
		arg.job[i] = '\n';
	ASSERT_EQ(0, reacquire(self->fd, &arg));
	holder = look(self->fd).holder;
	EXPECT_EQ(0, memcmp(padded, holder.job, sizeof(padded)));
}

/* A shorter job leaves no trace of a longer one before it. */
TEST_F(tlock, shorter_job)
{
	struct tlock_acquire arg = ask(0, "b");
	struct tlock_holder holder;
	int fd = contender();

	take(self->fd, "a long job that stays behind");
	ASSERT_EQ(0, reacquire(self->fd, &arg));
	arg = ask(0, "try");
	ASSERT_EQ(-ETIMEDOUT, acquire(fd, &arg));
	holder = look(fd).holder;
	EXPECT_EQ(0, memcmp(&holder, &arg.holder, sizeof(holder)));
	for (size_t i = 1; i < sizeof(holder.job); i++) {
		EXPECT_EQ(0, holder.job[i]);
	}
	EXPECT_EQ(0, release(self->fd));

	take(self->fd, "c");
	holder = look(fd).holder;
	for (size_t i = 1; i < sizeof(holder.job); i++) {
		EXPECT_EQ(0, holder.job[i]);
	}
	EXPECT_EQ(0, release(self->fd));
	close(fd);
}

TEST_HARNESS_MAIN
