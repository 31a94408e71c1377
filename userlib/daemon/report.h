/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef TLOCKD_REPORT_H
#define TLOCKD_REPORT_H

#include "session.h"

/**
 * report_open - answer those who ask how the locks are
 * @session: what to report
 * @event: the loop that serves them
 *
 * Whoever connects to the socket "status" in tlockd's runtime directory gets a
 * report; tlockd(8) describes it.
 */
void report_open(struct session *session, sd_event *event);

#endif
