/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef TLOCK_DEVICE_H
#define TLOCK_DEVICE_H

#include <linux/atomic.h>
#include <linux/cdev.h>
#include <linux/device.h>
#include <linux/limits.h>
#include <linux/ratelimit.h>

#include "lock.h"

/**
 * struct tlock_device - a lock with its device and sysfs directory
 * @dev: the device; its release frees this structure
 * @cdev: the character device. It has a reference to @dev, and each open file
 *	has one to it. Because it is embedded, open() needs no mutex and no
 *	search.
 * @writers: number of files that are open for writing; negative once the lock
 *	is deleted
 * @lock: the lock
 * @uevents: limits how many uevents it sends
 *
 * A deleted lock exists until the last file that is open for reading is closed.
 */
struct tlock_device {
	struct device dev;
	struct cdev cdev;
	atomic_t writers;
	struct tlock lock;
	struct ratelimit_state uevents;
};

static inline struct tlock_device *tlock_device_with(struct tlock *lock)
{
	return container_of(lock, struct tlock_device, lock);
}

static inline bool tlock_device_deleted(const struct tlock_device *tdev)
{
	return atomic_read(&tdev->writers) < 0;
}

/* Counts a file that is open for writing. Returns false if it comes too late. */
static inline bool tlock_device_get(struct tlock_device *tdev)
{
	return atomic_inc_unless_negative(&tdev->writers);
}

static inline void tlock_device_put(struct tlock_device *tdev)
{
	atomic_dec(&tdev->writers);
}

/* Makes a lock deleted, unless a file is open for writing. */
static inline bool tlock_device_kill(struct tlock_device *tdev)
{
	return atomic_cmpxchg(&tdev->writers, 0, INT_MIN) == 0;
}

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

/* device.c */
void tlock_device_report(struct tlock_device *tdev, const char *event,
			 const struct tlock_lost *lost);

/* sysfs.c */
extern const struct attribute_group *tlock_groups[];

#endif /* TLOCK_DEVICE_H */
