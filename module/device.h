/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef TLOCK_DEVICE_H
#define TLOCK_DEVICE_H

#include <linux/cdev.h>
#include <linux/device.h>

#include "lock.h"

/**
 * struct tlock_device - a lock with its device and sysfs directory
 * @dev: the device; its release frees this structure
 * @cdev: the character device. It has a reference to @dev, and each open file
 *	has one to it. Because it is embedded, open() needs no mutex and no
 *	search.
 * @lock: the lock
 */
struct tlock_device {
	struct device dev;
	struct cdev cdev;
	struct tlock lock;
};

/*
 * Length of the control character at the start of @text, or 0 if there is none.
 * Control characters are those of ASCII, and U+0080 to U+009F in UTF-8, which
 * terminals obey as well.
 */
static inline size_t tlock_cntrl(const char *text)
{
	const u8 *c = text;

	if (c[0] == 0xc2 && c[1] >= 0x80 && c[1] <= 0x9f)
		return 2;
	return c[0] < 0x20 || c[0] == 0x7f;
}

/* chardev.c */
extern const struct file_operations tlock_fops;
int tlock_contenders_create(void);
void tlock_contenders_destroy(void);

/* sysfs.c */
extern const struct attribute_group *tlock_groups[];

#endif /* TLOCK_DEVICE_H */
