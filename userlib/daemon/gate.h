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
 * gate_open - open a lock's device
 * @name: the lock's name
 *
 * Returns a descriptor to poll(2) and to pass to gate_call(), or a negative errno;
 * -ENOENT or -ENODEV if there is no such lock.
 */
int gate_open(const char *name);

/**
 * gate_call - TLOCK_IOC_GATE
 * @fd: from gate_open()
 * @op: TLOCK_GATE_LOOK, TLOCK_GATE_ATTACH or TLOCK_GATE_SET
 * @gate: as in the ABI, but for @gate->op
 *
 * Returns 0 or a negative errno, as in the ABI.
 */
int gate_call(int fd, __u32 op, struct tlock_gate *gate);

#endif
