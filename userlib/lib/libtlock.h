/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the files of libtlock share. Only what tlock.h declares is visible to
 * others.
 */
#ifndef LIBTLOCK_H
#define LIBTLOCK_H

#include <sys/types.h>

#pragma GCC visibility push(default)
#include "tlock.h"
#pragma GCC visibility pop

#define DEV	"/dev/"

/*
 * The name that a device at @path has to go by: that of its lock. Or NULL: the
 * path is one at which somebody else put it, under a name of their choice.
 */
const char *tlock_own_name(const char *path);

/* Whether a device of this number is a lock; not if there is no sysfs. */
bool tlock_is_lock(dev_t rdev);

#endif /* LIBTLOCK_H */
