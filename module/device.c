// SPDX-License-Identifier: GPL-2.0-only
/*
 * The set of locks: creating and deleting them, when the module is loaded and
 * later.
 */
#include <linux/cdev.h>
#include <linux/completion.h>
#include <linux/ctype.h>
#include <linux/device.h>
#include <linux/fs.h>
#include <linux/idr.h>
#include <linux/kdev_t.h>
#include <linux/minmax.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/mutex.h>
#include <linux/notifier.h>
#include <linux/refcount.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/suspend.h>
#include <linux/timekeeping.h>
#include <linux/workqueue.h>

#include "compat.h"
#include "device.h"
#include "gate.h"
#include "monitor.h"

/*
 * Enough for any host. Opening a device file for the first time takes a search
 * among all locks: see kobj_lookup().
 */
#define TLOCK_LOCKS_MAX	4096

/* All of one major number, so that it takes long to use a number again */
#define TLOCK_MINORS	(MINORMASK + 1)

/* Everyone may read the status; the host decides who may acquire the lock. */
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

/*
 * Counts the devices that have not been released yet, plus one for the module.
 * With DEBUG_KOBJECT_RELEASE a device is released long after its last reference
 * is dropped, and the module must wait for that.
 */
static refcount_t tlock_unreleased = REFCOUNT_INIT(1);
static DECLARE_COMPLETION(tlock_all_released);

static void tlock_count_released(void)
{
	if (refcount_dec_and_test(&tlock_unreleased))
		complete(&tlock_all_released);
}

static void tlock_device_release(struct device *dev)
{
	struct tlock_device *tdev = container_of(dev, struct tlock_device, dev);

	cancel_delayed_work_sync(&tdev->lock.report);
	tlock_exit(&tdev->lock);
	kfree(tdev);
	tlock_count_released();
}

/* Guards the set of locks below; held while a lock is created or deleted */
static DEFINE_MUTEX(tlock_mutex);
/* The locks, by minor number */
static DEFINE_IDR(tlock_devices);
static unsigned int tlock_count;
/* The newest token of all locks that were deleted */
static u64 tlock_deleted_token;
static dev_t tlock_devt;

static struct tlock_device *tlock_device_find(const char *name)
{
	struct tlock_device *tdev;
	int minor;

	lockdep_assert_held(&tlock_mutex);
	idr_for_each_entry(&tlock_devices, tdev, minor)
		if (!strcmp(dev_name(&tdev->dev), name))
			return tdev;
	return NULL;
}

/**
 * tlock_device_report - send the uevent of a grant that its holder lost
 * @tdev: the lock's device
 * @event: "abandoned" or "revoked"
 * @lost: the grant
 *
 * With it, udev or systemd can act. The rate is limited, as any user of the lock
 * can cause any number of them, and udev has other work.
 */
void tlock_device_report(struct tlock_device *tdev, const char *event,
			 const struct tlock_lost *lost)
{
	char kind[40], token[40], process[40], job[20 + TLOCK_JOB_SIZE];
	char *env[] = { kind, token, process, job, NULL };

	if (!__ratelimit(&tdev->uevents))
		return;
	snprintf(kind, sizeof(kind), "TLOCK_EVENT=%s", event);
	snprintf(token, sizeof(token), "TLOCK_TOKEN=%llu", lost->token);
	snprintf(process, sizeof(process), "TLOCK_PID=%d", lost->pid);
	snprintf(job, sizeof(job), "TLOCK_JOB=%s", lost->job);
	/* Nothing depends on it */
	kobject_uevent_env(&tdev->dev.kobj, KOBJ_CHANGE, env);
}

/* Revocation happens in a timer, or under a spinlock: a worker reports it. */
static void tlock_report_revoked(struct work_struct *work)
{
	struct tlock *lock = container_of(to_delayed_work(work), struct tlock,
					  report);
	struct tlock_lost lost;

	raw_spin_lock_irq(&lock->spinlock);
	lost = lock->lost;
	raw_spin_unlock_irq(&lock->spinlock);
	tlock_device_report(tlock_device_with(lock), "revoked", &lost);
}

static int tlock_device_create(const char *name, bool gated)
{
	struct tlock_device *tdev;
	u64 token = 0;
	int err, minor;

	lockdep_assert_held(&tlock_mutex);
	if (tlock_device_find(name))
		return -EEXIST;
	if (tlock_count == TLOCK_LOCKS_MAX)
		return -ENOSPC;
	tdev = kzalloc(sizeof(*tdev), GFP_KERNEL);
	if (!tdev)
		return -ENOMEM;
	/*
	 * From the clock, so that tokens still grow after a reload or reboot;
	 * and above those of an earlier lock of this name, whatever the clock
	 * says. Those of a gated lock come from its daemon.
	 */
	if (!gated)
		token = max_t(u64, ktime_to_us(ktime_get_real()),
			      tlock_deleted_token);
	tlock_init(&tdev->lock, token);
	if (gated) {
		err = tlock_gate_create(&tdev->lock);
		if (err) {
			kfree(tdev);
			return err;
		}
	}
	INIT_DELAYED_WORK(&tdev->lock.report, tlock_report_revoked);
	ratelimit_state_init(&tdev->uevents, 5 * HZ, 10);
	/* The kernel's log must not mention those that are left out */
	ratelimit_set_flags(&tdev->uevents, RATELIMIT_MSG_ON_RELEASE);
	cdev_init(&tdev->cdev, &tlock_fops);
	tdev->cdev.owner = THIS_MODULE;
	refcount_inc(&tlock_unreleased);
	device_initialize(&tdev->dev);
	tdev->dev.class = &tlock_class;
	tdev->dev.release = tlock_device_release;
	/* Not hardware: no power/ directory among the attributes */
	device_set_pm_not_required(&tdev->dev);

	/*
	 * Cyclic, because a device file can outlive its lock, for example in a
	 * container: it must not soon lead to another lock.
	 */
	minor = idr_alloc_cyclic(&tlock_devices, tdev, 0, TLOCK_MINORS,
				 GFP_KERNEL);
	if (minor < 0) {
		err = minor;
		goto put;
	}
	tdev->dev.devt = tlock_devt + minor;
	err = dev_set_name(&tdev->dev, "%s", name);
	if (!err)
		err = cdev_device_add(&tdev->cdev, &tdev->dev);
	if (err)
		goto remove;
	tlock_count++;
	return 0;

remove:
	idr_remove(&tlock_devices, minor);
put:
	put_device(&tdev->dev);
	return err;
}

static void tlock_device_remove(struct tlock_device *tdev)
{
	/* Nobody can hold the lock any more, so no report can follow */
	flush_delayed_work(&tdev->lock.report);
	cdev_device_del(&tdev->cdev, &tdev->dev);
	idr_remove(&tlock_devices, MINOR(tdev->dev.devt));
	tlock_count--;
	tlock_note_deleted(&tdev->lock);
	put_device(&tdev->dev);
}

/*
 * Makes the name of a device from that of its lock, the @len characters at
 * @lock: those that udev keeps in the name of a device file. Returns -EINVAL if
 * they are no name.
 */
static int tlock_device_name(char name[TLOCK_NAME_SIZE], const char *lock,
			     size_t len)
{
	static const char prefix[] = "tlock-";
	const size_t prefix_len = sizeof(prefix) - 1;
	char *own = name + prefix_len;

	if (len >= TLOCK_NAME_SIZE - prefix_len)
		return -EINVAL;
	memcpy(name, prefix, prefix_len);
	memcpy(own, lock, len);
	own[len] = '\0';
	/* User space takes "tlock" and "tlock-NAME" for names of devices */
	if (strspn(own, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
			"0123456789#+-.:=@_") != len ||
	    !isalnum(*own) || !strcmp(own, "tlock") ||
	    !strncmp(own, prefix, prefix_len))
		return -EINVAL;
	return 0;
}

static int tlock_create(const char *lock, size_t len, bool gated)
{
	char name[TLOCK_NAME_SIZE];
	int err;

	err = tlock_device_name(name, lock, len);
	if (err)
		return err;
	mutex_lock(&tlock_mutex);
	err = tlock_device_create(name, gated);
	mutex_unlock(&tlock_mutex);
	return err;
}

static int tlock_delete(const char *lock, size_t len)
{
	char name[TLOCK_NAME_SIZE];
	struct tlock_device *tdev;
	int err;

	err = tlock_device_name(name, lock, len);
	if (err)
		return err;
	mutex_lock(&tlock_mutex);
	tdev = tlock_device_find(name);
	if (!tdev) {
		err = -ENOENT;
	} else if (!tlock_device_kill(tdev)) {
		err = -EBUSY;
	} else {
		tlock_deleted_token = max(tlock_deleted_token,
					  tlock_newest_token(&tdev->lock));
		tlock_device_remove(tdev);
	}
	mutex_unlock(&tlock_mutex);
	return err;
}

/* The length of a name that was written with or without a newline */
static size_t tlock_written(const char *buf, size_t count)
{
	return count && buf[count - 1] == '\n' ? count - 1 : count;
}

static ssize_t new_lock_store(TLOCK_CLASS_CONST struct class *class,
			      TLOCK_CLASS_CONST struct class_attribute *attr,
			      const char *buf, size_t count)
{
	int err = tlock_create(buf, tlock_written(buf, count), false);

	return err ? err : count;
}
static CLASS_ATTR_WO(new_lock);

static ssize_t new_gated_lock_store(TLOCK_CLASS_CONST struct class *class,
				    TLOCK_CLASS_CONST struct class_attribute *attr,
				    const char *buf, size_t count)
{
	int err = tlock_create(buf, tlock_written(buf, count), true);

	return err ? err : count;
}
static CLASS_ATTR_WO(new_gated_lock);

static ssize_t delete_lock_store(TLOCK_CLASS_CONST struct class *class,
				 TLOCK_CLASS_CONST struct class_attribute *attr,
				 const char *buf, size_t count)
{
	int err = tlock_delete(buf, tlock_written(buf, count));

	return err ? err : count;
}
static CLASS_ATTR_WO(delete_lock);

/* The names of the locks to create at load, separated by commas, or NULL */
static char *tlock_names;
static char *tlock_gated_names;

/* Calls @fn for each of the names in a list, until it returns an error. */
static int tlock_for_each_name(const char *names,
			       int (*fn)(const char *lock, size_t len))
{
	size_t len;
	int err;

	for (;; names += len + 1) {
		len = strcspn(names, ",");
		err = fn(names, len);
		if (err || !names[len])
			return err;
	}
}

static int tlock_check_name(const char *lock, size_t len)
{
	char name[TLOCK_NAME_SIZE];
	int err = tlock_device_name(name, lock, len);

	if (err)
		pr_err("tlock: '%.*s' cannot be a lock's name: use 1 to 121 of A-Z a-z 0-9 # + - . : = @ _, first a letter or digit, and not tlock or tlock-...\n",
		       (int)len, lock);
	return err;
}

/*
 * A string parameter of the usual kind is limited to 1,024 bytes, and the last
 * one wins; this one collects the names from all files in modprobe.d.
 *
 * Checks the names while nothing can be opened yet. If loading failed later, it
 * would have to wait until everybody has closed the locks that exist by then.
 */
static int tlock_names_set(const char *value, const struct kernel_param *kp)
{
	char **names = kp->arg, *all;
	int err;

	if (!*value)
		return 0;
	err = tlock_for_each_name(value, tlock_check_name);
	if (err)
		return err;
	all = kasprintf(GFP_KERNEL, "%s%s%s", *names ? : "", *names ? "," : "",
			value);
	if (!all)
		return -ENOMEM;
	kfree(*names);
	*names = all;
	return 0;
}

/* Also called if loading fails before the module's init function */
static void tlock_names_free(void *arg)
{
	char **names = arg;

	kfree(*names);
	*names = NULL;
}

static const struct kernel_param_ops tlock_names_ops = {
	.set = tlock_names_set,
	.free = tlock_names_free,
};
module_param_cb(names, &tlock_names_ops, &tlock_names, 0);
MODULE_PARM_DESC(names, "Locks to create besides the first: NAME,...");
module_param_cb(gated, &tlock_names_ops, &tlock_gated_names, 0);
MODULE_PARM_DESC(gated, "Gated locks to create, which hosts share: NAME,...");

static int __init tlock_create_one(const char *lock, size_t len, bool gated)
{
	char name[TLOCK_NAME_SIZE];
	struct tlock_device *tdev;
	int err = 0;

	tlock_device_name(name, lock, len);
	/* Others may create and delete locks already */
	mutex_lock(&tlock_mutex);
	tdev = tlock_device_find(name);
	/* Naming a lock twice does no harm, but it has a gate or not */
	if (!tdev)
		err = tlock_device_create(name, gated);
	else if (!tdev->lock.gate == gated)
		err = -EINVAL;
	mutex_unlock(&tlock_mutex);
	if (err)
		pr_err("tlock: cannot create '%.*s': %s\n", (int)len, lock,
		       err == -EINVAL ? "it can be in names= or in gated=, not in both" :
		       err == -ENOSPC ? "too many locks" : "out of memory");
	return err;
}

static int __init tlock_create_named(const char *lock, size_t len)
{
	return tlock_create_one(lock, len, false);
}

static int __init tlock_create_gated(const char *lock, size_t len)
{
	return tlock_create_one(lock, len, true);
}

/* Deletes all locks, and waits until nothing of them is left. */
static void tlock_devices_destroy(void)
{
	struct tlock_device *tdev;
	int minor;

	/* These wait for writers, who could still create a lock */
	class_remove_file(&tlock_class, &class_attr_new_lock);
	class_remove_file(&tlock_class, &class_attr_new_gated_lock);
	class_remove_file(&tlock_class, &class_attr_delete_lock);
	mutex_lock(&tlock_mutex);
	idr_for_each_entry(&tlock_devices, tdev, minor)
		tlock_device_remove(tdev);
	mutex_unlock(&tlock_mutex);
	idr_destroy(&tlock_devices);
	tlock_count_released();
	wait_for_completion(&tlock_all_released);
}

static int __init tlock_devices_create(void)
{
	int err;

	/* First of all: the first lock's uevent may cause others to be created */
	err = class_create_file(&tlock_class, &class_attr_new_lock);
	if (!err)
		err = class_create_file(&tlock_class,
					&class_attr_new_gated_lock);
	if (!err)
		err = class_create_file(&tlock_class, &class_attr_delete_lock);
	if (!err) {
		mutex_lock(&tlock_mutex);
		err = tlock_device_create("tlock", false);
		mutex_unlock(&tlock_mutex);
	}
	/* First, as udev may create a lock of that name without a gate */
	if (!err && tlock_gated_names)
		err = tlock_for_each_name(tlock_gated_names,
					  tlock_create_gated);
	if (!err && tlock_names)
		err = tlock_for_each_name(tlock_names, tlock_create_named);
	if (err)
		tlock_devices_destroy();
	return err;
}

static int tlock_pm_event(struct notifier_block *nb, unsigned long event,
			  void *data)
{
	switch (event) {
	case PM_SUSPEND_PREPARE:
	case PM_HIBERNATION_PREPARE:
		tlock_suspend(true);
		break;
	case PM_POST_SUSPEND:
	case PM_POST_HIBERNATION:
		tlock_suspend(false);
		break;
	}
	return NOTIFY_DONE;
}

static struct notifier_block tlock_pm_notifier = {
	.notifier_call = tlock_pm_event,
};

static int __init tlock_module_init(void)
{
	int err;

	err = tlock_contenders_create();
	if (err)
		return err;
	err = tlock_monitors_init();
	if (err)
		goto destroy_contenders;
	err = register_pm_notifier(&tlock_pm_notifier);
	if (err)
		goto exit_monitors;
	err = class_register(&tlock_class);
	if (err)
		goto unregister_pm_notifier;
	err = alloc_chrdev_region(&tlock_devt, 0, TLOCK_MINORS, "tlock");
	if (err)
		goto unregister_class;
	err = tlock_devices_create();
	if (err)
		goto unregister_region;
	return 0;

unregister_region:
	unregister_chrdev_region(tlock_devt, TLOCK_MINORS);
unregister_class:
	class_unregister(&tlock_class);
unregister_pm_notifier:
	unregister_pm_notifier(&tlock_pm_notifier);
exit_monitors:
	tlock_monitors_exit();
destroy_contenders:
	tlock_contenders_destroy();
	return err;
}

static void __exit tlock_module_exit(void)
{
	tlock_devices_destroy();
	unregister_chrdev_region(tlock_devt, TLOCK_MINORS);
	class_unregister(&tlock_class);
	unregister_pm_notifier(&tlock_pm_notifier);
	tlock_monitors_exit();
	tlock_contenders_destroy();
}

module_init(tlock_module_init);
module_exit(tlock_module_exit);
MODULE_AUTHOR("the tlock maintainers");
MODULE_DESCRIPTION("A timed, fair lock named after the job that holds it");
MODULE_VERSION(TLOCK_VERSION);
MODULE_LICENSE("GPL");
