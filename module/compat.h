/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What differs between the kernels that tlock builds for, and nothing else.
 */
#ifndef TLOCK_COMPAT_H
#define TLOCK_COMPAT_H

#include <linux/version.h>

/* struct class's callbacks take a const device */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 2, 0)
#define TLOCK_DEVNODE_CONST
#else
#define TLOCK_DEVNODE_CONST const
#endif

#endif /* TLOCK_COMPAT_H */
