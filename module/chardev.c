// SPDX-License-Identifier: GPL-2.0-only
/*
 * The file operations: each open file description is a contender.
 *
 * User memory is read before the lock does its work and written after it, never
 * under the spinlock. So a page fault that user space handles stalls only the
 * caller.
 */
#include <linux/capability.h>
#include <linux/cdev.h>
#include <linux/compat.h>
#include <linux/fs.h>
#include <linux/module.h>
#include <linux/poll.h>
#include <linux/sched/signal.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/stddef.h>
#include <linux/time_namespace.h>
#include <linux/uaccess.h>

#include <asm/word-at-a-time.h>

#include "compat.h"
#include "device.h"
#include "gate.h"
#include "monitor.h"

#ifndef CONFIG_64BIT
#error "tlock needs a 64-bit kernel: it reads 64-bit numbers without a lock"
#endif

/*
 * Contenders have their own slab cache: slabtop shows how many there are, and
 * destroying the cache reports any that were leaked.
 */
static struct kmem_cache *tlock_contenders;

int tlock_contenders_create(void)
{
	tlock_contenders = kmem_cache_create("tlock_contender",
					     sizeof(struct tlock_contender), 0,
					     SLAB_ACCOUNT |
					     SLAB_TYPESAFE_BY_RCU,
					     tlock_contender_ctor);
	return tlock_contenders ? 0 : -ENOMEM;
}

void tlock_contenders_destroy(void)
{
	kmem_cache_destroy(tlock_contenders);
}

static struct tlock_device *tlock_device_of(const struct file *file)
{
	const struct tlock_contender *c = file->private_data;

	return tlock_device_with(c->lock);
}

static int tlock_open(struct inode *inode, struct file *file)
{
	struct tlock_device *tdev =
		container_of(inode->i_cdev, struct tlock_device, cdev);
	struct tlock_contender *c;

	c = kmem_cache_alloc(tlock_contenders, GFP_KERNEL);
	if (!c)
		return -ENOMEM;
	/* The lock may have been deleted since the device was looked up */
	if (file->f_mode & FMODE_WRITE ? !tlock_device_get(tdev) :
					 tlock_device_deleted(tdev)) {
		kmem_cache_free(tlock_contenders, c);
		return -ENXIO;
	}
	tlock_contender_init(c, &tdev->lock);
	file->private_data = c;
	return nonseekable_open(inode, file);
}

/* The last close */
static int tlock_close(struct inode *inode, struct file *file)
{
	struct tlock_contender *c = file->private_data;
	struct tlock_lost lost;

	tlock_describe_lost(c, &lost);
	tlock_monitor_stop(c);
	if (c->lock->gate)
		tlock_gate_detach(c);
	if (tlock_contender_exit(c))
		tlock_device_report(tlock_device_of(file), "abandoned", &lost);
	if (file->f_mode & FMODE_WRITE)
		tlock_device_put(tlock_device_of(file));
	kmem_cache_free(tlock_contenders, c);
	return 0;
}

/* The error of a call that needs a file open for writing, on another one */
static int tlock_not_writable(struct file *file)
{
	return tlock_device_deleted(tlock_device_of(file)) ? -ENODEV : -EBADF;
}

/*
 * A job with control characters could forge lines in a log. Inline, as each
 * acquire comes here.
 */
static __always_inline bool tlock_job_valid(const char *job)
{
	for (;; job++) {
		/* Most are printable characters of ASCII */
		if (likely(*job >= ' ' && *job <= '~'))
			continue;
		if (!*job)
			return true;
		if (tlock_cntrl(job))
			return false;
	}
}

/*
 * Reads the fields that have no meaning yet and must be 0: @reserved is not 0
 * if one of them is not. Called between user_access_begin() and
 * user_access_end(). Returns false if the fields cannot be read.
 */
static __always_inline bool
tlock_read_reserved(u64 *reserved, const struct tlock_acquire __user *uarg)
{
	u64 word;

	BUILD_BUG_ON(ARRAY_SIZE(uarg->reserved) != 4);
	unsafe_get_user(*reserved, &uarg->reserved[0], fault);
	unsafe_get_user(word, &uarg->reserved[1], fault);
	*reserved |= word;
	unsafe_get_user(word, &uarg->reserved[2], fault);
	*reserved |= word;
	unsafe_get_user(word, &uarg->reserved[3], fault);
	*reserved |= word;
	return true;

fault:
	return false;
}

/* A mask of the bytes before the first NUL in @word, which has_zero() found. */
static unsigned long tlock_mask(unsigned long word, unsigned long zeros,
				const struct word_at_a_time *consts)
{
	zeros = prep_zero_mask(word, zeros, consts);
	return zero_bytemask(create_zero_mask(zeros));
}

/*
 * Reads the caller's input from an argument. @arg must be zeroed, so the job is
 * padded with NULs. Also writes each output field once, except @holder: whether
 * it can be written must be known before the lock changes hands, and each field
 * may be on a page of its own.
 */
static int tlock_read_arg(struct tlock_acquire *arg,
			  struct tlock_acquire __user *uarg, bool again)
{
	const struct word_at_a_time consts = WORD_AT_A_TIME_CONSTANTS;
	unsigned long __user *from = (unsigned long __user *)uarg->job;
	unsigned long *to = (unsigned long *)arg->job;
	unsigned long *end = to + sizeof(arg->job) / sizeof(*to);
	unsigned long zeros;
	u64 reserved;

	/* After this, user memory costs no more to access than our own */
	if (!user_access_begin(uarg, sizeof(*uarg)))
		return -EFAULT;
	unsafe_get_user(arg->timeout_ns, &uarg->timeout_ns, fault);
	unsafe_put_user(arg->timeout_ns, &uarg->timeout_ns, fault);
	unsafe_get_user(arg->flags, &uarg->flags, fault);
	unsafe_put_user(0, &uarg->result, fault);
	unsafe_get_user(arg->token, &uarg->token, fault);
	unsafe_put_user(arg->token, &uarg->token, fault);
	unsafe_get_user(arg->ticket, &uarg->ticket, fault);
	unsafe_put_user(arg->ticket, &uarg->ticket, fault);
	unsafe_get_user(arg->lease_ns, &uarg->lease_ns, fault);
	if (!tlock_read_reserved(&reserved, uarg))
		goto fault;
	do
		unsafe_get_user(*to, from++, fault);
	while (!has_zero(*to, &zeros, &consts) && ++to < end);
	user_access_end();

	/* No NUL */
	if (to == end)
		return -EINVAL;
	*to &= tlock_mask(*to, zeros, &consts);
	if ((arg->flags & ~TLOCK_ASYNC) | reserved) {
		if (!again || arg->flags != TLOCK_RENEW ||
		    (arg->ticket | reserved))
			return -EINVAL;
	}
	return tlock_job_valid(arg->job) ? 0 : -EINVAL;

fault:
	user_access_end();
	return -EFAULT;
}

/* Converts a time to that of the caller's time namespace. */
static s64 tlock_callers_time(s64 time_ns)
{
	struct timespec64 time = ns_to_timespec64(time_ns);

	timens_add_monotonic(&time);
	/* timespec64_to_ns() of Linux 5.10 takes a negative time for a huge one */
	return time.tv_sec * NSEC_PER_SEC + time.tv_nsec;
}

static void tlock_to_callers_clock(struct tlock_holder *holder)
{
	s64 since = holder->since_ns;

	if (!holder->token)
		return;
	holder->since_ns = tlock_callers_time(since);
	if (likely(!holder->expires_ns))
		return;
	/* No offset of a time namespace reaches half of the range */
	if (holder->expires_ns > KTIME_MAX / 2)
		holder->expires_ns = KTIME_MAX;
	else
		holder->expires_ns += holder->since_ns - since;
}

/* Writes the outcome to the caller. Returns @err, or -EFAULT. */
static int tlock_write_arg(struct tlock_acquire __user *uarg,
			   struct tlock_acquire *arg, int err)
{
	const void *holder = &arg->holder;
	void __user *uholder = &uarg->holder;

	if (err == -ETIMEDOUT)
		tlock_to_callers_clock(&arg->holder);
	if (!user_write_access_begin(uarg, sizeof(*uarg)))
		return -EFAULT;
	if (err == -ETIMEDOUT) {
		unsafe_copy_to_user(uholder, holder, sizeof(arg->holder), fault);
	} else if (!err) {
		unsafe_put_user(arg->result, &uarg->result, fault);
		unsafe_put_user(arg->token, &uarg->token, fault);
	}
	unsafe_put_user(arg->timeout_ns, &uarg->timeout_ns, fault);
	unsafe_put_user(arg->ticket, &uarg->ticket, fault);
	user_write_access_end();
	return err;

fault:
	user_write_access_end();
	return -EFAULT;
}

/* TLOCK_IOC_ACQUIRE, or TLOCK_IOC_REACQUIRE if @again */
static int tlock_ioctl_take(struct file *file,
			    struct tlock_acquire __user *uarg, bool again)
{
	struct tlock_contender *c = file->private_data;
	struct tlock_acquire arg = {};
	bool resumed;
	int err;

	if (!(file->f_mode & FMODE_WRITE))
		return tlock_not_writable(file);
	err = tlock_read_arg(&arg, uarg, again);
	if (err)
		return err;
	resumed = arg.ticket;
	err = again ? tlock_reacquire(c, &arg) : tlock_acquire(c, &arg);
	switch (err) {
	case 0:
	case -ERESTARTSYS:
		err = tlock_write_arg(uarg, &arg, err);
		/* The caller would never release a lock it does not know it holds */
		if (err == -EFAULT)
			tlock_undo(c, &arg);
		return err;
	case -EINPROGRESS:
		err = tlock_write_arg(uarg, &arg, err);
		/* Nor does it know of a request whose ticket it never got */
		if (err == -EFAULT && !resumed)
			tlock_undo(c, &arg);
		return err;
	case -ETIMEDOUT:
	case -ECANCELED:
		return tlock_write_arg(uarg, &arg, err);
	case -ESTALE:
		/* No later call would report it, so it comes before EFAULT */
		tlock_write_arg(uarg, &arg, err);
		return err;
	default:
		return err;
	}
}

/*
 * TLOCK_IOC_REACQUIRE if nobody waits. It must cost almost nothing, so it reads
 * and writes no more of the argument than necessary. Returns false if the slow
 * path has to be taken.
 *
 * @leased: whether @c had a lease when the call began. One that it got later
 *	began later, too, and need not be renewed.
 */
static __always_inline bool
tlock_ioctl_reacquire_fast(struct tlock_contender *c,
			   struct tlock_acquire __user *uarg, bool leased)
{
	const struct word_at_a_time consts = WORD_AT_A_TIME_CONSTANTS;
	unsigned long __user *from = (unsigned long __user *)uarg->job;
	const unsigned long *job = (const unsigned long *)c->id.job;
	const unsigned long *end = job + sizeof(c->id.job) / sizeof(*job);
	u64 token = tlock_reacquire_fast(c), reserved, ticket, lease_ns;
	unsigned long word, zeros;
	u32 flags;

	if (!token || !user_access_begin(uarg, sizeof(*uarg)))
		return false;
	unsafe_get_user(flags, &uarg->flags, no);
	unsafe_get_user(ticket, &uarg->ticket, no);
	unsafe_get_user(lease_ns, &uarg->lease_ns, no);
	if (!tlock_read_reserved(&reserved, uarg) ||
	    ((flags & ~TLOCK_ASYNC) | ticket | reserved))
		goto no;
	/* 0 keeps the lease, and so does the same one */
	if (lease_ns && (!leased || lease_ns != READ_ONCE(c->lease_ns)))
		goto no;
	unsafe_get_user(word, from, no);
	/* An empty job keeps the job, and so does the same one */
	if (word & 0xff) {
		while (!has_zero(word, &zeros, &consts)) {
			if (word != READ_ONCE(*job) || ++job == end)
				goto no;
			unsafe_get_user(word, ++from, no);
		}
		word &= tlock_mask(word, zeros, &consts);
		if (word != READ_ONCE(*job))
			goto no;
	}
	unsafe_put_user(0, &uarg->result, no);
	unsafe_put_user(token, &uarg->token, no);
	user_access_end();
	return !leased || tlock_renew_fast(c, token);

no:
	user_access_end();
	return false;
}

/* Not inline: without a lease, there must be nothing to remember meanwhile */
static noinline bool
tlock_ioctl_reacquire_leased(struct tlock_contender *c,
			     struct tlock_acquire __user *uarg)
{
	return tlock_ioctl_reacquire_fast(c, uarg, true);
}

static int tlock_ioctl_waiter(struct file *file,
			      struct tlock_waiter __user *uwaiter)
{
	struct tlock_device *tdev = tlock_device_of(file);
	struct tlock_waiter waiter;
	int err;

	if (tlock_device_deleted(tdev))
		return -ENODEV;
	if (copy_from_user(&waiter, uwaiter, sizeof(waiter)))
		return -EFAULT;
	if (memchr_inv(waiter.reserved, 0, sizeof(waiter.reserved)))
		return -EINVAL;
	err = tlock_get_waiter(&tdev->lock, &waiter);
	if (err)
		return err;
	waiter.since_ns = tlock_callers_time(waiter.since_ns);
	return copy_to_user(uwaiter, &waiter, sizeof(waiter)) ? -EFAULT : 0;
}

static noinline int tlock_ioctl_revoke(struct file *file,
				       struct tlock_revoke __user *urevoke)
{
	struct tlock *lock = &tlock_device_of(file)->lock;
	struct tlock_revoke revoke;
	int err;

	if (!(file->f_mode & FMODE_WRITE))
		return tlock_not_writable(file);
	if (copy_from_user(&revoke, urevoke, sizeof(revoke)))
		return -EFAULT;
	if (revoke.flags ||
	    memchr_inv(revoke.reserved, 0, sizeof(revoke.reserved)))
		return -EINVAL;
	err = tlock_revoke(lock, &revoke, false);
	/* Checked only if needed: the use of a capability is audited */
	if (err == -EPERM && capable(CAP_KILL))
		err = tlock_revoke(lock, &revoke, true);
	return err;
}

static int tlock_ioctl_monitor(struct file *file)
{
	if (file->f_mode & FMODE_WRITE)
		return -EBADF;
	return tlock_monitor_start(file->private_data);
}

/*
 * Whether a string from user space ends with a NUL. Pads it with NULs, so that
 * nothing else is shown to others.
 */
static bool tlock_pad(char *text, size_t size)
{
	size_t len = strnlen(text, size);

	memset(text + len, 0, size - len);
	return len < size;
}

/* The same for a string that the gate's daemon wants others to see */
static bool tlock_shown_valid(char *text, size_t size)
{
	return tlock_pad(text, size) && tlock_job_valid(text);
}

static bool tlock_gate_valid(struct tlock_gate *arg)
{
	struct tlock_holder *holder = &arg->holder;

	return !(arg->flags & ~TLOCK_GATE_RECALL) &&
	       !(arg->result & ~(TLOCK_ABANDONED | TLOCK_REVOKED)) &&
	       !(holder->pid | holder->uid | holder->flags | holder->reserved |
		 holder->expires_ns) &&
	       tlock_pad(holder->comm, sizeof(holder->comm)) &&
	       tlock_shown_valid(holder->job, sizeof(holder->job)) &&
	       tlock_shown_valid(arg->host, sizeof(arg->host));
}

/* How far the caller's CLOCK_BOOTTIME is ahead of the kernel's own */
static s64 tlock_boottime_offset(void)
{
	struct timespec64 time = {};

	timens_add_boottime(&time);
	return time.tv_sec * NSEC_PER_SEC + time.tv_nsec;
}

static int tlock_set_gate(struct tlock_contender *c, struct tlock_gate *arg)
{
	const s64 limit = KTIME_MAX / 2;

	if (!tlock_gate_valid(arg))
		return -EINVAL;
	if (!arg->holder.token)
		memset(&arg->holder, 0, sizeof(arg->holder));
	arg->holder.since_ns -= tlock_callers_time(0);
	/* No offset of a time namespace reaches half of the range */
	arg->until_ns = clamp(arg->until_ns, -limit, limit) -
			tlock_boottime_offset();
	return tlock_gate_set(c, arg);
}

static noinline int tlock_ioctl_gate(struct file *file,
				     struct tlock_gate __user *ugate)
{
	struct tlock_contender *c = file->private_data;
	struct tlock_gate gate;
	int err = 0;

	if (tlock_device_deleted(tlock_device_of(file)))
		return -ENODEV;
	/* Whether it can be written must be known before the gate changes */
	if (copy_from_user(&gate, ugate, sizeof(gate)) ||
	    copy_to_user(ugate, &gate, sizeof(gate)))
		return -EFAULT;
	if (gate.op > TLOCK_GATE_SET || gate.reserved0 ||
	    memchr_inv(gate.reserved, 0, sizeof(gate.reserved)))
		return -EINVAL;
	if (!c->lock->gate)
		return -EOPNOTSUPP;

	switch (gate.op) {
	case TLOCK_GATE_ATTACH:
		if (file->f_mode & FMODE_WRITE)
			return -EBADF;
		if (!capable(CAP_SYS_ADMIN))
			return -EPERM;
		err = tlock_gate_attach(c);
		if (err)
			return err;
		fallthrough;
	case TLOCK_GATE_LOOK:
		tlock_gate_look(c, &gate);
		break;
	case TLOCK_GATE_SET:
		err = tlock_set_gate(c, &gate);
		if (err == -EPERM || err == -EINVAL)
			return err;
		break;
	}
	if (gate.until_ns)
		gate.until_ns += tlock_boottime_offset();
	tlock_to_callers_clock(&gate.holder);
	return copy_to_user(ugate, &gate, sizeof(gate)) ? -EFAULT : err;
}

/* Returns the events of a file that monitors the lock. */
static ssize_t tlock_read(struct file *file, char __user *buf, size_t size,
			  loff_t *pos)
{
	struct tlock_contender *c = file->private_data;
	struct tlock *lock = c->lock;
	struct tlock_event event;
	size_t done = 0;
	int ret;

	if (!READ_ONCE(c->next_seq) || size < sizeof(event))
		return -EINVAL;
	/* Must end, even if events come as fast as they are read */
	size = min(size, TLOCK_RECORDS * sizeof(event));
	while (size - done >= sizeof(event)) {
		ret = tlock_next_event(c, &event);
		if (!ret || (ret < 0 && done))
			break;
		if (ret < 0 && file->f_flags & O_NONBLOCK)
			return ret;
		if (ret < 0) {
			ret = wait_event_interruptible(lock->readers,
						       tlock_has_event(c) ||
						       READ_ONCE(lock->deleted));
			if (ret)
				return ret;
			continue;
		}
		event.time_ns = tlock_callers_time(event.time_ns);
		if (copy_to_user(buf + done, &event, sizeof(event))) {
			tlock_unread_event(c, &event);
			return done ? done : -EFAULT;
		}
		done += sizeof(event);
	}
	return done;
}

static int tlock_ioctl_status(struct file *file,
			      struct tlock_status __user *ustatus)
{
	struct tlock_device *tdev = tlock_device_of(file);
	struct tlock_status status;

	if (tlock_device_deleted(tdev))
		return -ENODEV;
	tlock_get_status(&tdev->lock, &status);
	tlock_to_callers_clock(&status.holder);
	strscpy(status.name, dev_name(&tdev->dev), sizeof(status.name));
	return copy_to_user(ustatus, &status, sizeof(status)) ? -EFAULT : 0;
}

/* Not inline, as it would slow down the calls that are made more often */
static noinline long tlock_ioctl_other(struct file *file, unsigned int cmd,
				       void __user *uarg)
{
	switch (cmd) {
	case TLOCK_IOC_STATUS:
		return tlock_ioctl_status(file, uarg);
	case TLOCK_IOC_WAITER:
		return tlock_ioctl_waiter(file, uarg);
	case TLOCK_IOC_REVOKE:
		return tlock_ioctl_revoke(file, uarg);
	case TLOCK_IOC_MONITOR:
		return tlock_ioctl_monitor(file);
	case TLOCK_IOC_GATE:
		return tlock_ioctl_gate(file, uarg);
	default:
		return -ENOTTY;
	}
}

static long tlock_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	struct tlock_contender *c = file->private_data;
	void __user *uarg = (void __user *)arg;

	switch (cmd) {
	case TLOCK_IOC_ACQUIRE:
		return tlock_ioctl_take(file, uarg, false);
	case TLOCK_IOC_RELEASE:
		return tlock_release(c);
	case TLOCK_IOC_REACQUIRE:
		/* Read before the grant is */
		if (unlikely(smp_load_acquire(&c->lease_ns)) ?
		    tlock_ioctl_reacquire_leased(c, uarg) :
		    tlock_ioctl_reacquire_fast(c, uarg, false))
			return 0;
		return tlock_ioctl_take(file, uarg, true);
	default:
		return tlock_ioctl_other(file, cmd, uarg);
	}
}

static __poll_t tlock_poll(struct file *file, struct poll_table_struct *table)
{
	struct tlock_contender *c = file->private_data;
	__poll_t events;

	if (!(file->f_mode & FMODE_WRITE)) {
		poll_wait(file, &c->lock->readers, table);
		/*
		 * Pairs with the store in tlock_note_deleted(): a reader that
		 * sees the lock deleted also sees the event of the deletion.
		 */
		events = smp_load_acquire(&c->lock->deleted) ? EPOLLHUP : 0;
		if (tlock_has_event(c))
			events |= EPOLLIN | EPOLLRDNORM;
		if (tlock_is_daemon(c)) {
			poll_wait(file, &c->lock->gate->self.pollers, table);
			events |= tlock_poll_events(&c->lock->gate->self);
		}
		return events;
	}
	poll_wait(file, &c->pollers, table);
	return tlock_poll_events(c);
}

/* flock(2): acquires the same lock, with flock's usual semantics and no job */
static int tlock_flock(struct file *file, int cmd, struct file_lock *request)
{
	struct tlock_contender *c = file->private_data;
	struct tlock_acquire arg = {
		.timeout_ns = IS_SETLKW(cmd) ? -1 : 0,
		.flags = TLOCK_FLOCK,
	};
	int err;

	switch (tlock_flock_type(request)) {
	case F_UNLCK:
		err = tlock_release(c);
		/* Unlocking an idle file is no error */
		return err == -EPERM ? 0 : err;
	case F_WRLCK:
		break;
	default:
		/* There are no shared locks */
		return -EOPNOTSUPP;
	}
	/* After EBADF, flock(1) reopens the file for writing */
	if (!(file->f_mode & FMODE_WRITE))
		return tlock_not_writable(file);
	err = tlock_acquire(c, &arg);
	switch (err) {
	case -EDEADLK:
		return 0;
	case -ETIMEDOUT:
		return -EWOULDBLOCK;
	default:
		return err;
	}
}

/* fcntl(2) locks, OFD locks included, are for byte ranges: not supported. */
static int tlock_fcntl_lock(struct file *file, int cmd, struct file_lock *request)
{
	return -EOPNOTSUPP;
}

/* /proc/PID/fdinfo/FD: shows which open file holds, if processes share it */
static void tlock_show_fdinfo(struct seq_file *m, struct file *file)
{
	static const char *const names[] = {
		[TLOCK_IDLE] = "idle",
		[TLOCK_WAITING] = "waiting",
		[TLOCK_AWAY] = "away",
		[TLOCK_DECIDED] = "decided",
		[TLOCK_HOLDING] = "holding",
		[TLOCK_STALE] = "revoked",
	};
	u64 ticket, token;
	enum tlock_state state = tlock_contender_state(file->private_data,
						       &ticket, &token);

	seq_printf(m, "tlock-state:\t%s\n", names[state]);
	if (ticket)
		seq_printf(m, "tlock-ticket:\t%llu\n", ticket);
	if (token)
		seq_printf(m, "tlock-token:\t%llu\n", token);
}

const struct file_operations tlock_fops = {
	.owner = THIS_MODULE,
	.open = tlock_open,
	.release = tlock_close,
	.read = tlock_read,
	.poll = tlock_poll,
	.unlocked_ioctl = tlock_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.flock = tlock_flock,
	.lock = tlock_fcntl_lock,
	.show_fdinfo = tlock_show_fdinfo,
};
