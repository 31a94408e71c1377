// SPDX-License-Identifier: GPL-2.0-only
/*
 * Records what happens to a lock, for those who watch it.
 *
 * A lock that is monitored has one ring of records, which contenders write under
 * the lock's spinlock, and each reader has its own place in it. So what a
 * contender pays does not depend on how many read, or how fast; a reader that is
 * too slow finds its next record overwritten, and continues with the oldest that
 * is left. A lock that nobody monitors has no ring.
 *
 * Contenders do not wake the readers, as that could take longer than everything
 * else that they do. A worker does so a little later, once for many events.
 */
#include <linux/pid_namespace.h>
#include <linux/poll.h>
#include <linux/string.h>
#include <linux/vmalloc.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

#include "compat.h"
#include "gate.h"
#include "monitor.h"

#define CREATE_TRACE_POINTS
#include "trace.h"

/*
 * How many jiffies after an event the readers are woken. The worker is not bound
 * to the contender's CPU, so even an urgent and busy contender cannot keep them
 * from reading.
 */
#define TLOCK_DELAY	1

/* In how many nested pid namespaces a record has the process's number */
#define TLOCK_RECORD_LEVELS	4

/**
 * struct tlock_record - an event
 * @time_ns: when it happened; see struct tlock_event for this and the fields
 *	below
 * @token: of the grant
 * @ticket: of the request
 * @kind: kind of the event
 * @flags: of the grant, or 0
 * @uid: effective user of the process
 * @comm: command name of the process
 * @job: the job
 * @ids: the process's number in each pid namespace, from the initial one, which
 *	comes first. A namespace may be gone by now; its address is only for
 *	comparison. A reference to the process's struct pid would have to be
 *	dropped somewhere that no contender waits for.
 */
struct tlock_record {
	u64 time_ns;
	u64 token;
	u64 ticket;
	u32 kind;
	u32 flags;
	kuid_t uid;
	char comm[TLOCK_COMM_SIZE];
	char job[TLOCK_JOB_SIZE] __aligned(sizeof(long));
	struct {
		const struct pid_namespace *ns;
		pid_t pid;
	} ids[TLOCK_RECORD_LEVELS];
};

static struct workqueue_struct *tlock_workqueue;

DEFINE_STATIC_KEY_FALSE(tlock_traced);

int tlock_trace_reg(void)
{
	static_branch_inc(&tlock_traced);
	return 0;
}

void tlock_trace_unreg(void)
{
	static_branch_dec(&tlock_traced);
}

static void tlock_trace(struct tlock_contender *c, enum tlock_event_kind kind,
			u64 token, u64 ticket)
{
	switch (kind) {
	case TLOCK_EVENT_WAITING:
		trace_tlock_waiting(c, token, ticket);
		break;
	case TLOCK_EVENT_ACQUIRED:
		trace_tlock_acquired(c, token, ticket);
		break;
	case TLOCK_EVENT_RELEASED:
		trace_tlock_released(c, token, ticket);
		break;
	case TLOCK_EVENT_YIELDED:
		trace_tlock_yielded(c, token, ticket);
		break;
	case TLOCK_EVENT_TIMED_OUT:
		trace_tlock_timed_out(c, token, ticket);
		break;
	case TLOCK_EVENT_INTERRUPTED:
		trace_tlock_interrupted(c, token, ticket);
		break;
	case TLOCK_EVENT_WITHDRAWN:
		trace_tlock_withdrawn(c, token, ticket);
		break;
	case TLOCK_EVENT_ABANDONED:
		trace_tlock_abandoned(c, token, ticket);
		break;
	case TLOCK_EVENT_REVOKED:
		trace_tlock_revoked(c, token, ticket);
		break;
	case TLOCK_EVENT_DELETED:
		break;
	}
}

/**
 * tlock_queue - have a worker run soon, once for many calls
 * @work: what it does
 *
 * Context: Any; the lock's spinlock may be held.
 */
void tlock_queue(struct delayed_work *work)
{
	queue_delayed_work(tlock_workqueue, work, TLOCK_DELAY);
}

static struct tlock_record *tlock_record_of(struct tlock *lock, u64 seq)
{
	return &lock->records[seq % TLOCK_RECORDS];
}

/* Begins a new record, and sees to it that the readers are woken. */
static struct tlock_record *tlock_new_record(struct tlock *lock)
{
	lockdep_assert_held(&lock->spinlock);
	WRITE_ONCE(lock->seq, lock->seq + 1);
	tlock_queue(&lock->wake_readers);
	return tlock_record_of(lock, lock->seq);
}

/**
 * tlock_record - note an event of a lock that somebody watches
 * @c: the contender that it is about
 * @kind: kind of the event
 * @token: of the grant, or 0
 * @ticket: of the request, or 0
 * @now: when it happens
 */
noinline void tlock_record(struct tlock_contender *c,
			   enum tlock_event_kind kind, u64 token, u64 ticket,
			   u64 now)
{
	struct tlock *lock = c->lock;
	struct tlock_record *record;
	unsigned int level;

	lockdep_assert_held(&lock->spinlock);
	tlock_trace(c, kind, token, ticket);
	if (!lock->records)
		return;
	record = tlock_new_record(lock);
	record->time_ns = now;
	record->token = token;
	record->ticket = ticket;
	record->kind = kind;
	record->flags = token ? tlock_holder_flags(lock) : 0;
	record->uid = c->id.uid;
	memcpy(record->comm, c->id.comm, sizeof(record->comm));
	memcpy(record->job, c->id.job, sizeof(record->job));
	for (level = 0; level < TLOCK_RECORD_LEVELS; level++) {
		if (level > c->id.pid->level) {
			record->ids[level].ns = NULL;
			break;
		}
		record->ids[level].ns = c->id.pid->numbers[level].ns;
		record->ids[level].pid = c->id.pid->numbers[level].nr;
	}
}

/**
 * tlock_record_acquired - note a new grant of a lock that somebody watches
 * @c: the contender that was granted the lock
 * @ticket: of the request, or 0
 */
noinline void tlock_record_acquired(struct tlock_contender *c, u64 ticket)
{
	tlock_record(c, TLOCK_EVENT_ACQUIRED, c->id.token, ticket,
		     c->id.since_ns);
}

/*
 * Wakes all who wait, also those with EPOLLEXCLUSIVE: they may wait for different
 * files, each of which has its own events to read.
 */
static void tlock_wake_all(struct tlock *lock, __poll_t events)
{
	__wake_up(&lock->readers, TASK_NORMAL, 0, poll_to_key(events));
}

/**
 * tlock_note_deleted - note that a lock was deleted
 * @lock: the lock, of which nothing can happen any more
 *
 * Wakes those who read or poll it.
 */
void tlock_note_deleted(struct tlock *lock)
{
	struct tlock_record *record;
	u64 now;

	raw_spin_lock_irq(&lock->spinlock);
	if (lock->records) {
		now = ktime_get_ns();
		record = tlock_new_record(lock);
		memset(record, 0, sizeof(*record));
		record->time_ns = now;
		record->kind = TLOCK_EVENT_DELETED;
	}
	/* Pairs with the load in tlock_poll() */
	smp_store_release(&lock->deleted, true);
	raw_spin_unlock_irq(&lock->spinlock);
	tlock_wake_all(lock, EPOLLIN | EPOLLRDNORM | EPOLLHUP);
}

static void tlock_wake_readers(struct work_struct *work)
{
	struct tlock *lock = container_of(to_delayed_work(work), struct tlock,
					  wake_readers);

	tlock_wake_all(lock, EPOLLIN | EPOLLRDNORM);
}

/**
 * tlock_monitor_start - have a file report what happens to its lock
 * @c: the file's contender
 *
 * Return: 0, -ENODEV if the lock was deleted, -EBUSY if the file does already
 * or is its gate's daemon, or -ENOMEM.
 */
int tlock_monitor_start(struct tlock_contender *c)
{
	struct tlock_record *records, *unused;
	struct tlock *lock = c->lock;
	int err = 0;

	/*
	 * Charged to the reader's memory cgroup. If that has no room, the call
	 * fails, and no process is killed for it.
	 */
	records = __vmalloc(TLOCK_RECORDS * sizeof(*records),
			    GFP_KERNEL_ACCOUNT | __GFP_ZERO |
			    __GFP_RETRY_MAYFAIL | __GFP_NOWARN);
	if (!records)
		return -ENOMEM;
	unused = records;
	raw_spin_lock_irq(&lock->spinlock);
	if (lock->deleted) {
		/* There was no event of it for this file, and never will be */
		err = -ENODEV;
	} else if (c->next_seq || tlock_is_daemon(c)) {
		err = -EBUSY;
	} else {
		if (!lock->records) {
			lock->records = records;
			unused = NULL;
		}
		lock->num_monitors++;
		WRITE_ONCE(c->next_seq, lock->seq + 1);
	}
	raw_spin_unlock_irq(&lock->spinlock);
	vfree(unused);
	return err;
}

/**
 * tlock_monitor_stop - have a file that is closed report no more
 * @c: the file's contender
 */
void tlock_monitor_stop(struct tlock_contender *c)
{
	struct tlock_record *unused = NULL;
	struct tlock *lock = c->lock;

	if (!c->next_seq)
		return;
	raw_spin_lock_irq(&lock->spinlock);
	if (!--lock->num_monitors) {
		unused = lock->records;
		lock->records = NULL;
	}
	raw_spin_unlock_irq(&lock->spinlock);
	vfree(unused);
}

/**
 * tlock_next_event - take the next event of a file that monitors its lock
 * @c: the file's contender
 * @event: filled in if there is an event; time_ns is on the kernel's own
 *	CLOCK_MONOTONIC
 *
 * Return: 1 if there was one, 0 if the lock was deleted and no event is left,
 * or -EAGAIN.
 */
int tlock_next_event(struct tlock_contender *c, struct tlock_event *event)
{
	const struct pid_namespace *ns = task_active_pid_ns(current);
	const struct tlock_record *record;
	struct tlock *lock = c->lock;
	unsigned int level;
	int ret = 1;
	u64 seq;

	memset(event, 0, sizeof(*event));
	raw_spin_lock_irq(&lock->spinlock);
	if (c->next_seq > lock->seq) {
		ret = lock->deleted ? 0 : -EAGAIN;
		goto unlock;
	}
	seq = c->next_seq;
	if (lock->seq - seq >= TLOCK_RECORDS)
		seq = lock->seq - TLOCK_RECORDS + 1;
	record = tlock_record_of(lock, seq);
	event->size = sizeof(*event);
	event->kind = record->kind;
	event->seq = seq;
	event->lost = min_t(u64, seq - c->next_seq, U32_MAX);
	event->time_ns = record->time_ns;
	event->token = record->token;
	event->ticket = record->ticket;
	event->flags = record->flags;
	event->uid = from_kuid_munged(current_user_ns(), record->uid);
	for (level = 0; level < TLOCK_RECORD_LEVELS; level++) {
		if (!record->ids[level].ns)
			break;
		if (record->ids[level].ns == ns)
			event->pid = record->ids[level].pid;
	}
	memcpy(event->comm, record->comm, sizeof(event->comm));
	memcpy(event->job, record->job, sizeof(event->job));
	WRITE_ONCE(c->next_seq, seq + 1);
unlock:
	raw_spin_unlock_irq(&lock->spinlock);
	return ret;
}

/**
 * tlock_unread_event - put back an event that could not be given to the reader
 * @c: the file's contender
 * @event: the event
 *
 * Unless another thread has read on meanwhile.
 */
void tlock_unread_event(struct tlock_contender *c,
			const struct tlock_event *event)
{
	raw_spin_lock_irq(&c->lock->spinlock);
	if (c->next_seq == event->seq + 1)
		WRITE_ONCE(c->next_seq, event->seq - event->lost);
	raw_spin_unlock_irq(&c->lock->spinlock);
}

/**
 * tlock_has_event - check if a file that monitors its lock can be read
 * @c: the file's contender
 *
 * Return: whether tlock_next_event() would return 1.
 */
bool tlock_has_event(const struct tlock_contender *c)
{
	u64 next_seq = READ_ONCE(c->next_seq);

	return next_seq && next_seq <= READ_ONCE(c->lock->seq);
}

/**
 * tlock_monitor_init - initialize what a lock has for those who monitor it
 * @lock: zeroed memory
 */
void tlock_monitor_init(struct tlock *lock)
{
	init_waitqueue_head(&lock->readers);
	INIT_DELAYED_WORK(&lock->wake_readers, tlock_wake_readers);
}

/**
 * tlock_monitor_exit - undo tlock_monitor_init(), once nobody monitors the lock
 * @lock: the lock
 */
void tlock_monitor_exit(struct tlock *lock)
{
	cancel_delayed_work_sync(&lock->wake_readers);
}

/**
 * tlock_monitors_init - prepare for monitors of all locks
 *
 * Return: 0, or -ENOMEM.
 */
int tlock_monitors_init(void)
{
	tlock_workqueue = alloc_workqueue("tlock", WQ_UNBOUND, 0);
	return tlock_workqueue ? 0 : -ENOMEM;
}

/**
 * tlock_monitors_exit - undo tlock_monitors_init(), once no lock is left
 */
void tlock_monitors_exit(void)
{
	destroy_workqueue(tlock_workqueue);
}
