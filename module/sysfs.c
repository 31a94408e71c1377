// SPDX-License-Identifier: GPL-2.0-only
/*
 * /sys/class/tlock/<device>/: the holder and the counters.
 */
#include <linux/string.h>
#include <linux/sysfs.h>
#include <linux/timekeeping.h>

#include "device.h"
#include "gate.h"

static struct tlock *tlock_of_dev(struct device *dev)
{
	return &container_of(dev, struct tlock_device, dev)->lock;
}

static void tlock_dev_status(struct device *dev, struct tlock_status *status)
{
	tlock_get_status(tlock_of_dev(dev), status);
}

/* Defines an attribute that shows one value of the status */
#define TLOCK_ATTR(_name, _format, _value)				\
static ssize_t _name##_show(struct device *dev,				\
			    struct device_attribute *attr, char *buf)	\
{									\
	struct tlock_status status;					\
									\
	tlock_dev_status(dev, &status);					\
	return sysfs_emit(buf, _format "\n", _value);			\
}									\
static DEVICE_ATTR_RO(_name)

TLOCK_ATTR(job, "%s", status.holder.job);
TLOCK_ATTR(token, "%llu", status.holder.token);
TLOCK_ATTR(held_ns, "%llu", status.holder.token ?
	   ktime_get_ns() - status.holder.since_ns : 0);
TLOCK_ATTR(waiters, "%u", status.waiters);

/* Empty, not 0: kill(1) would take 0 for the reader's own process group */
static ssize_t pid_show(struct device *dev, struct device_attribute *attr,
			char *buf)
{
	struct tlock_status status;

	tlock_dev_status(dev, &status);
	if (!status.holder.pid)
		return sysfs_emit(buf, "\n");
	return sysfs_emit(buf, "%d\n", status.holder.pid);
}
static DEVICE_ATTR_RO(pid);

/* Empty if the lock is free, or held on another host: uid 0 is a user */
static ssize_t uid_show(struct device *dev, struct device_attribute *attr,
			char *buf)
{
	struct tlock_status status;

	tlock_dev_status(dev, &status);
	if (!status.holder.token || status.holder.flags & TLOCK_REMOTE)
		return sysfs_emit(buf, "\n");
	return sysfs_emit(buf, "%u\n", status.holder.uid);
}
static DEVICE_ATTR_RO(uid);

/* A process can give itself any name: control characters are replaced. */
static ssize_t comm_show(struct device *dev, struct device_attribute *attr,
			 char *buf)
{
	struct tlock_status status;
	char *c;

	tlock_dev_status(dev, &status);
	for (c = status.holder.comm; *c; c++)
		memset(c, '?', tlock_cntrl(c));
	return sysfs_emit(buf, "%s\n", status.holder.comm);
}
static DEVICE_ATTR_RO(comm);

static ssize_t gate_show(struct device *dev, struct device_attribute *attr,
			 char *buf)
{
	struct tlock_status status;

	tlock_dev_status(dev, &status);
	if (!(status.flags & TLOCK_GATED))
		return sysfs_emit(buf, "\n");
	if (!(status.flags & TLOCK_SERVED))
		return sysfs_emit(buf, "unserved\n");
	return sysfs_emit(buf, status.flags & TLOCK_SHUT ? "shut\n" : "open\n");
}
static DEVICE_ATTR_RO(gate);

static ssize_t host_show(struct device *dev, struct device_attribute *attr,
			 char *buf)
{
	struct tlock *lock = tlock_of_dev(dev);
	struct tlock_gate gate = {};

	if (lock->gate)
		tlock_gate_look(&lock->gate->self, &gate);
	return sysfs_emit(buf, "%s\n", gate.host);
}
static DEVICE_ATTR_RO(host);

static struct attribute *tlock_holder_attrs[] = {
	&dev_attr_job.attr,
	&dev_attr_pid.attr,
	&dev_attr_uid.attr,
	&dev_attr_comm.attr,
	&dev_attr_token.attr,
	&dev_attr_held_ns.attr,
	&dev_attr_gate.attr,
	&dev_attr_host.attr,
	&dev_attr_waiters.attr,
	NULL
};

static const struct attribute_group tlock_holder_group = {
	.attrs = tlock_holder_attrs,
};

TLOCK_ATTR(acquired, "%llu", status.acquired);
TLOCK_ATTR(contended, "%llu", status.contended);
TLOCK_ATTR(timed_out, "%llu", status.timed_out);
TLOCK_ATTR(interrupted, "%llu", status.interrupted);
TLOCK_ATTR(abandoned, "%llu", status.abandoned);
TLOCK_ATTR(revoked, "%llu", status.revoked);
TLOCK_ATTR(yielded, "%llu", status.yielded);
TLOCK_ATTR(wait_ns_total, "%llu", status.wait_ns_total);
TLOCK_ATTR(wait_ns_max, "%llu", status.wait_ns_max);
TLOCK_ATTR(hold_ns_total, "%llu", status.hold_ns_total);
TLOCK_ATTR(hold_ns_max, "%llu", status.hold_ns_max);

static ssize_t waits_show(struct device *dev, struct device_attribute *attr,
			  char *buf)
{
	u64 waits[TLOCK_WAITS];
	unsigned int i;
	int len = 0;

	tlock_get_waits(tlock_of_dev(dev), waits);
	for (i = 0; i < TLOCK_WAITS; i++)
		len += sysfs_emit_at(buf, len, "%llu%c", waits[i],
				     i < TLOCK_WAITS - 1 ? ' ' : '\n');
	return len;
}
static DEVICE_ATTR_RO(waits);

static struct attribute *tlock_stats_attrs[] = {
	&dev_attr_acquired.attr,
	&dev_attr_contended.attr,
	&dev_attr_timed_out.attr,
	&dev_attr_interrupted.attr,
	&dev_attr_abandoned.attr,
	&dev_attr_revoked.attr,
	&dev_attr_yielded.attr,
	&dev_attr_waits.attr,
	&dev_attr_wait_ns_total.attr,
	&dev_attr_wait_ns_max.attr,
	&dev_attr_hold_ns_total.attr,
	&dev_attr_hold_ns_max.attr,
	NULL
};

static const struct attribute_group tlock_stats_group = {
	.name = "stats",
	.attrs = tlock_stats_attrs,
};

const struct attribute_group *tlock_groups[] = {
	&tlock_holder_group,
	&tlock_stats_group,
	NULL
};
