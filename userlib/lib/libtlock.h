/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Declarations that the files of libtlock share. The library exports only the
 * functions that tlock.h declares.
 */
#ifndef LIBTLOCK_H
#define LIBTLOCK_H

#include <sys/types.h>

#pragma GCC visibility push(default)
#include "tlock.h"
#pragma GCC visibility pop

#define DEV	"/dev/"

/* The lock that NULL stands for: the value of TLOCK in the environment, if any */
const char *tlock_default(void);

/*
 * The name that the lock behind @path must have, if @path is that of a lock's
 * own device file in /dev. NULL for any other path: a device file that somebody
 * made elsewhere may have any name.
 */
const char *tlock_own_name(const char *path);

/* Whether the device of this number is a lock; false if there is no sysfs. */
bool tlock_is_lock(dev_t rdev);

#endif /* LIBTLOCK_H */
