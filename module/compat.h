/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The differences between the kernel versions that tlock supports.
 */
#ifndef TLOCK_COMPAT_H
#define TLOCK_COMPAT_H

#include <linux/hrtimer.h>
#include <linux/version.h>
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 3, 0)
#include <linux/fs.h>
#else
#include <linux/filelock.h>
#endif

/* struct class's callbacks take a const device */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 2, 0)
#define TLOCK_DEVNODE_CONST
#else
#define TLOCK_DEVNODE_CONST const
#endif

/* The functions of struct class_attribute take const arguments */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 4, 0)
#define TLOCK_CLASS_CONST
#else
#define TLOCK_CLASS_CONST const
#endif

/* In TP_fast_assign() of a tracepoint */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 10, 0)
#define tlock_assign_str(dst, src) __assign_str(dst, src)
#else
#define tlock_assign_str(dst, src) __assign_str(dst)
#endif

/* Prepares a timer, for absolute times */
static inline void tlock_timer_setup(struct hrtimer *timer,
				     enum hrtimer_restart (*fn)(struct hrtimer *),
				     clockid_t clock, enum hrtimer_mode mode)
{
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 13, 0)
	hrtimer_init(timer, clock, mode);
	timer->function = fn;
#else
	hrtimer_setup(timer, fn, clock, mode);
#endif
}

/* The type of lock that flock(2) asks for: F_RDLCK, F_WRLCK or F_UNLCK */
static inline int tlock_flock_type(const struct file_lock *request)
{
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 9, 0)
	return request->fl_type;
#else
	return request->c.flc_type;
#endif
}

#endif /* TLOCK_COMPAT_H */
