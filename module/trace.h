/* SPDX-License-Identifier: GPL-2.0-only */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM tlock

#if !defined(TLOCK_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define TLOCK_TRACE_H

#include <linux/tracepoint.h>

#include "compat.h"
#include "device.h"

int tlock_trace_reg(void);
void tlock_trace_unreg(void);

/* The token of a grant and the ticket of a request, or 0 */
DECLARE_EVENT_CLASS(tlock_event,
	TP_PROTO(const struct tlock_contender *c, u64 token, u64 ticket),
	TP_ARGS(c, token, ticket),
	TP_STRUCT__entry(
		__string(lock, dev_name(&tlock_device_with(c->lock)->dev))
		__field(u64, token)
		__field(u64, ticket)
		__field(pid_t, pid)
		__field(uid_t, uid)
		__array(char, comm, TLOCK_COMM_SIZE)
		__array(char, job, TLOCK_JOB_SIZE)
	),
	TP_fast_assign(
		tlock_assign_str(lock, dev_name(&tlock_device_with(c->lock)->dev));
		__entry->token = token;
		__entry->ticket = ticket;
		__entry->pid = pid_nr(c->id.pid);
		__entry->uid = from_kuid(&init_user_ns, c->id.uid);
		memcpy(__entry->comm, c->id.comm, sizeof(__entry->comm));
		memcpy(__entry->job, c->id.job, sizeof(__entry->job));
	),
	TP_printk("%s job='%s' token=%llu ticket=%llu pid=%d uid=%u comm=%s",
		  __get_str(lock), __entry->job, __entry->token,
		  __entry->ticket, __entry->pid, __entry->uid, __entry->comm)
);

#define TLOCK_TRACE(name)						\
DEFINE_EVENT_FN(tlock_event, name,					\
	TP_PROTO(const struct tlock_contender *c, u64 token, u64 ticket), \
	TP_ARGS(c, token, ticket),					\
	tlock_trace_reg, tlock_trace_unreg)

TLOCK_TRACE(tlock_waiting);
TLOCK_TRACE(tlock_acquired);
TLOCK_TRACE(tlock_released);
TLOCK_TRACE(tlock_yielded);
TLOCK_TRACE(tlock_timed_out);
TLOCK_TRACE(tlock_interrupted);
TLOCK_TRACE(tlock_withdrawn);
TLOCK_TRACE(tlock_abandoned);
TLOCK_TRACE(tlock_revoked);

#endif /* TLOCK_TRACE_H */

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>
