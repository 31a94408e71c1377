/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef TLOCKD_GATE_H
#define TLOCKD_GATE_H

#include <linux/tlock.h>

/**
 * gate_list - find the gated locks of this host
 * @found: called for each, with the lock's name, as in "tlock create"
 * @data: passed to @found
 *
 * Returns 0, also if the module is not loaded, or -1 with errno.
 */
int gate_list(void (*found)(const char *name, void *data), void *data);

/**
 * gate_attach - become the daemon of a lock's gate
 * @name: the lock's name
 * @gate: describes the gate afterwards
 *
 * Returns a descriptor to poll(2) and to pass to the functions below; closing it
 * detaches. Otherwise a negative errno: -EBUSY if another daemon is attached,
 * -EOPNOTSUPP if the lock has no gate, -EPERM without CAP_SYS_ADMIN, -ENOENT or
 * -ENODEV if there is no such lock.
 */
int gate_attach(const char *name, struct tlock_gate *gate);

/**
 * gate_look - describe the gate, and take note of its news
 * @fd: from gate_attach()
 * @gate: describes the gate afterwards
 *
 * Returns 0 or a negative errno: -ENODEV if the lock was deleted.
 */
int gate_look(int fd, struct tlock_gate *gate);

/**
 * gate_set - state what holds from now on
 * @fd: from gate_attach()
 * @gate: the statement, but for @gate->op; describes the gate afterwards
 *
 * Returns 0 or a negative errno. After -EBUSY and -ESTALE nothing was done, but
 * @gate describes the gate all the same.
 */
int gate_set(int fd, struct tlock_gate *gate);

#endif
