// SPDX-License-Identifier: GPL-2.0-only
/*
 * The character device: each open file description is a contender.
 *
 * User memory is read before and written after the lock does its work, never
 * under its mutex: a page fault that is served in user space stalls its caller
 * and nobody else.
 */
#include <linux/cdev.h>
#include <linux/compat.h>
#include <linux/fs.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/stddef.h>
#include <linux/time_namespace.h>
#include <linux/uaccess.h>

#include <asm/word-at-a-time.h>

#include "compat.h"
#include "device.h"

/* Everybody may look; who may take the lock is for the host to say. */
static char *tlock_devnode(TLOCK_DEVNODE_CONST struct device *dev,
			   umode_t *mode)
{
	if (mode)
		*mode = 0644;
	return NULL;
}

static struct class tlock_class = {
	.name = "tlock",
	.dev_groups = tlock_groups,
	.devnode = tlock_devnode,
};

/* A device is there to be opened a moment before its class finds it. */
static DEFINE_MUTEX(tlock_adding);

static int tlock_open(struct inode *inode, struct file *file)
{
	struct tlock_contender *c;
	struct device *dev;

	/* The file's reference to the lock */
	mutex_lock(&tlock_adding);
	dev = class_find_device_by_devt(&tlock_class, inode->i_rdev);
	mutex_unlock(&tlock_adding);
	if (!dev)
		return -ENXIO;
	c = kzalloc(sizeof(*c), GFP_KERNEL_ACCOUNT);
	if (!c) {
		put_device(dev);
		return -ENOMEM;
	}
	tlock_enter(c, &container_of(dev, struct tlock_device, dev)->lock);
	file->private_data = c;
	return nonseekable_open(inode, file);
}

/* The last close */
static int tlock_close(struct inode *inode, struct file *file)
{
	struct tlock_contender *c = file->private_data;
	struct tlock_device *tdev =
		container_of(c->lock, struct tlock_device, lock);

	tlock_leave(c);
	kfree(c);
	put_device(&tdev->dev);
	return 0;
}

/* With a control character, a job could forge a line in a log. */
static bool tlock_job_valid(const char *job)
{
	const char *last = job + TLOCK_JOB_SIZE - 1;

	for (; *job; job++)
		if (job == last || tlock_cntrl(job))
			return false;
	return true;
}

/*
 * Reads what the caller says of an argument, and not the rest of it. That the
 * answer can be written, too, must be found before the lock changes hands: each
 * field of it may lie on a page of its own.
 */
static int tlock_read_arg(struct tlock_acquire *arg,
			  struct tlock_acquire __user *uarg)
{
	const struct word_at_a_time consts = WORD_AT_A_TIME_CONSTANTS;
	unsigned long __user *from = (unsigned long __user *)uarg->job;
	unsigned long *to = (unsigned long *)arg->job;
	unsigned long *end = to + sizeof(arg->job) / sizeof(*to);
	unsigned long zeros;

	/* Once opened, user memory costs no more than our own */
	if (!user_access_begin(uarg, sizeof(*uarg)))
		return -EFAULT;
	unsafe_get_user(arg->timeout_ns, &uarg->timeout_ns, fault);
	unsafe_put_user(arg->timeout_ns, &uarg->timeout_ns, fault);
	unsafe_get_user(arg->flags, &uarg->flags, fault);
	unsafe_put_user(0, &uarg->result, fault);
	unsafe_get_user(arg->token, &uarg->token, fault);
	unsafe_put_user(arg->token, &uarg->token, fault);
	do
		unsafe_get_user(*to, from++, fault);
	while (!has_zero(*to, &zeros, &consts) && ++to < end);
	user_access_end();

	return arg->flags || !tlock_job_valid(arg->job) ? -EINVAL : 0;

fault:
	user_access_end();
	return -EFAULT;
}

/* Times are as the clock says in the caller's time namespace. */
static void tlock_to_callers_clock(struct tlock_holder *holder)
{
	struct timespec64 since;

	if (!holder->token)
		return;
	since = ns_to_timespec64(holder->since_ns);
	timens_add_monotonic(&since);
	holder->since_ns = timespec64_to_ns(&since);
}

/* Tells the caller how it went. Returns @err, or -EFAULT. */
static int tlock_write_arg(struct tlock_acquire __user *uarg,
			   struct tlock_acquire *arg, int err)
{
	switch (err) {
	case 0:
		if (!user_write_access_begin(uarg, sizeof(*uarg)))
			return -EFAULT;
		unsafe_put_user(arg->timeout_ns, &uarg->timeout_ns, fault);
		unsafe_put_user(arg->result, &uarg->result, fault);
		unsafe_put_user(arg->token, &uarg->token, fault);
		user_write_access_end();
		break;
	case -ETIMEDOUT:
		tlock_to_callers_clock(&arg->holder);
		if (copy_to_user(&uarg->holder, &arg->holder,
				 sizeof(arg->holder)))
			return -EFAULT;
		fallthrough;
	case -EINTR:
		if (put_user(arg->timeout_ns, &uarg->timeout_ns))
			return -EFAULT;
		break;
	}
	return err;

fault:
	user_write_access_end();
	return -EFAULT;
}

/* TLOCK_IOC_ACQUIRE, or TLOCK_IOC_REACQUIRE if @again */
static int tlock_ioctl_take(struct tlock_contender *c,
			    struct tlock_acquire __user *uarg, bool again)
{
	struct tlock_acquire arg = {};
	int err;

	err = tlock_read_arg(&arg, uarg);
	if (err)
		return err;
	err = again ? tlock_reacquire(c, &arg) : tlock_acquire(c, &arg);
	if (err)
		return tlock_write_arg(uarg, &arg, err);

	/* A holder that does not know it would never release */
	err = tlock_write_arg(uarg, &arg, 0);
	if (err)
		tlock_decline(c, &arg);
	return err;
}

/*
 * TLOCK_IOC_REACQUIRE where nobody waits: that is to cost next to nothing, and so
 * reads and writes no more of the argument than it must. Returns whether that
 * was all.
 */
static bool tlock_ioctl_keep(struct tlock_contender *c,
			     struct tlock_acquire __user *uarg)
{
	u64 token = tlock_keep(c);
	u32 flags;
	char job;

	if (!token || !user_access_begin(uarg, sizeof(*uarg)))
		return false;
	unsafe_get_user(flags, &uarg->flags, no);
	unsafe_get_user(job, &uarg->job[0], no);
	if (flags || job)
		goto no;
	unsafe_put_user(0, &uarg->result, no);
	unsafe_put_user(token, &uarg->token, no);
	user_access_end();
	return true;

no:
	user_access_end();
	return false;
}

static int tlock_ioctl_status(struct tlock_contender *c,
			      struct tlock_status __user *ustatus)
{
	struct tlock_status status;

	tlock_look(c->lock, &status);
	tlock_to_callers_clock(&status.holder);
	return copy_to_user(ustatus, &status, sizeof(status)) ? -EFAULT : 0;
}

static long tlock_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	struct tlock_contender *c = file->private_data;
	void __user *uarg = (void __user *)arg;
	int err;

	switch (cmd) {
	case TLOCK_IOC_ACQUIRE:
		if (!(file->f_mode & FMODE_WRITE))
			return -EBADF;
		err = tlock_ioctl_take(c, uarg, false);
		/* It can be made again as it is, with the time that is left */
		return err == -EINTR ? -ERESTARTSYS : err;
	case TLOCK_IOC_RELEASE:
		return tlock_release(c);
	case TLOCK_IOC_REACQUIRE:
		if (tlock_ioctl_keep(c, uarg))
			return 0;
		/* Not made again: who does not hold any more must know it */
		return tlock_ioctl_take(c, uarg, true);
	case TLOCK_IOC_STATUS:
		return tlock_ioctl_status(c, uarg);
	default:
		return -ENOTTY;
	}
}

static const struct file_operations tlock_fops = {
	.owner = THIS_MODULE,
	.open = tlock_open,
	.release = tlock_close,
	.unlocked_ioctl = tlock_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
};

static dev_t tlock_devt;
/* All locks' */
static struct cdev tlock_cdev;
static struct tlock_device *tlock_first;

static void tlock_device_release(struct device *dev)
{
	kfree(container_of(dev, struct tlock_device, dev));
}

static struct tlock_device *tlock_device_create(dev_t devt, const char *name)
{
	struct tlock_device *tdev;
	int err;

	tdev = kzalloc(sizeof(*tdev), GFP_KERNEL);
	if (!tdev)
		return ERR_PTR(-ENOMEM);
	tlock_init(&tdev->lock);
	device_initialize(&tdev->dev);
	tdev->dev.class = &tlock_class;
	tdev->dev.devt = devt;
	tdev->dev.release = tlock_device_release;
	/* No hardware: no power/ folder among the lock's values */
	device_set_pm_not_required(&tdev->dev);

	err = dev_set_name(&tdev->dev, "%s", name);
	if (!err) {
		mutex_lock(&tlock_adding);
		err = device_add(&tdev->dev);
		mutex_unlock(&tlock_adding);
	}
	if (err) {
		put_device(&tdev->dev);
		return ERR_PTR(err);
	}
	return tdev;
}

static void tlock_device_destroy(struct tlock_device *tdev)
{
	device_unregister(&tdev->dev);
}

static int __init tlock_module_init(void)
{
	int err;

	err = class_register(&tlock_class);
	if (err)
		return err;
	err = alloc_chrdev_region(&tlock_devt, 0, 1, "tlock");
	if (err)
		goto unregister_class;
	cdev_init(&tlock_cdev, &tlock_fops);
	tlock_cdev.owner = THIS_MODULE;
	err = cdev_add(&tlock_cdev, tlock_devt, 1);
	if (err)
		goto unregister_region;
	tlock_first = tlock_device_create(tlock_devt, "tlock");
	if (IS_ERR(tlock_first)) {
		err = PTR_ERR(tlock_first);
		goto del_cdev;
	}
	return 0;

del_cdev:
	cdev_del(&tlock_cdev);
unregister_region:
	unregister_chrdev_region(tlock_devt, 1);
unregister_class:
	class_unregister(&tlock_class);
	return err;
}

static void __exit tlock_module_exit(void)
{
	tlock_device_destroy(tlock_first);
	cdev_del(&tlock_cdev);
	unregister_chrdev_region(tlock_devt, 1);
	class_unregister(&tlock_class);
}

module_init(tlock_module_init);
module_exit(tlock_module_exit);
MODULE_DESCRIPTION("A timed, fair lock named after the job that holds it");
MODULE_LICENSE("GPL");
