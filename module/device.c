// SPDX-License-Identifier: GPL-2.0-only
/*
 * The lock's device, from the loading of the module to its unloading.
 */
#include <linux/cdev.h>
#include <linux/completion.h>
#include <linux/device.h>
#include <linux/fs.h>
#include <linux/module.h>
#include <linux/refcount.h>
#include <linux/slab.h>
#include <linux/timekeeping.h>

#include "compat.h"
#include "device.h"

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
	kfree(container_of(dev, struct tlock_device, dev));
	tlock_count_released();
}

static struct tlock_device *tlock_device_create(dev_t devt, const char *name)
{
	struct tlock_device *tdev;
	int err;

	tdev = kzalloc(sizeof(*tdev), GFP_KERNEL);
	if (!tdev)
		return ERR_PTR(-ENOMEM);
	/* From the clock, so that tokens still grow after a reload or reboot */
	tlock_init(&tdev->lock, ktime_to_us(ktime_get_real()));
	cdev_init(&tdev->cdev, &tlock_fops);
	tdev->cdev.owner = THIS_MODULE;
	refcount_inc(&tlock_unreleased);
	device_initialize(&tdev->dev);
	tdev->dev.class = &tlock_class;
	tdev->dev.devt = devt;
	tdev->dev.release = tlock_device_release;
	/* Not hardware: no power/ directory among the attributes */
	device_set_pm_not_required(&tdev->dev);

	err = dev_set_name(&tdev->dev, "%s", name);
	if (!err)
		err = cdev_device_add(&tdev->cdev, &tdev->dev);
	if (err) {
		put_device(&tdev->dev);
		return ERR_PTR(err);
	}
	return tdev;
}

static void tlock_device_destroy(struct tlock_device *tdev)
{
	cdev_device_del(&tdev->cdev, &tdev->dev);
	put_device(&tdev->dev);
}

static void tlock_devices_wait(void)
{
	tlock_count_released();
	wait_for_completion(&tlock_all_released);
}

static dev_t tlock_devt;
static struct tlock_device *tlock_first;

static int __init tlock_module_init(void)
{
	int err;

	err = tlock_contenders_create();
	if (err)
		return err;
	err = class_register(&tlock_class);
	if (err)
		goto destroy_contenders;
	err = alloc_chrdev_region(&tlock_devt, 0, 1, "tlock");
	if (err)
		goto unregister_class;
	tlock_first = tlock_device_create(tlock_devt, "tlock");
	if (IS_ERR(tlock_first)) {
		err = PTR_ERR(tlock_first);
		goto unregister_region;
	}
	return 0;

unregister_region:
	tlock_devices_wait();
	unregister_chrdev_region(tlock_devt, 1);
unregister_class:
	class_unregister(&tlock_class);
destroy_contenders:
	tlock_contenders_destroy();
	return err;
}

static void __exit tlock_module_exit(void)
{
	tlock_device_destroy(tlock_first);
	tlock_devices_wait();
	unregister_chrdev_region(tlock_devt, 1);
	class_unregister(&tlock_class);
	tlock_contenders_destroy();
}

module_init(tlock_module_init);
module_exit(tlock_module_exit);
MODULE_AUTHOR("the tlock maintainers");
MODULE_DESCRIPTION("A timed, fair lock named after the job that holds it");
MODULE_VERSION(TLOCK_VERSION);
MODULE_LICENSE("GPL");
