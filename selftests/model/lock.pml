/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A model of lock.c in Promela, for spin. Threads acquire, wait, give up, are
 * interrupted, resume their requests, release, reacquire and close, in every
 * possible order, for ever or until they stop by choice. If there are more
 * threads than contenders, two of them share the first contender, and so each
 * may release, replace or close what the other one has.
 *
 * The first threads, ASYNC in number, make only asynchronous requests. They
 * poll, fetch and withdraw. If one of them stops before that, its process has
 * ended and its file stays open: others get the lock nevertheless. If there are
 * any, the other threads are not interrupted, and can read what a call returns.
 *
 * With LEASES, the first contender may have a lease, and an operator may revoke
 * its grants. Its threads may then stop while it holds the lock: others get the
 * lock nevertheless.
 *
 * The names are those of lock.c. What lock.c does under the spinlock is one
 * step here (atomic), except for what others can see without the spinlock.
 * Memory is sequentially consistent. Counters, jobs, flock(2) and suspend are
 * left out. So are times: a deadline may pass at any moment, or there is none. A
 * clock ticks now and then: leases and graces last until it has ticked.
 *
 * This is a single lock: locks are independent of each other. devices.pml has
 * what they share.
 *
 * Only the order of tickets matters, so when a request ends, the tickets after
 * it move down by one to stay small. There are no tokens: a flag says that a
 * thread's token is that of the newest grant, and the end of that grant clears
 * it.
 *
 * selftests/model/run lets spin check that no assertion fails, and that no
 * thread gets into a state that it can never leave ("invalid end state"), as
 * with a deadlock or a lost wake-up. It also checks that spin finds broken
 * versions.
 */
#ifndef CONTENDERS
#define CONTENDERS 3
#endif
#ifndef THREADS
#define THREADS (CONTENDERS + 1)
#endif
#ifndef ASYNC
#define ASYNC 0
#endif
#ifndef LEASES
#define LEASES 0
#endif
/* With more than two threads, asynchronous requests make a model too large */
#define SMALL (ASYNC && THREADS > 2)
/* So do leases, unless no wait ends early, no copy fails and no file is closed */
#define FEW (LEASES && THREADS > 2)
#define NOBODY CONTENDERS
#define NONE THREADS

/* struct tlock */
bool spinlock;
byte holder = NOBODY;
byte waiters;
bool unfetched;
bool pending_result;

/* What is NEW is OVER once the clock has ticked */
#define NO 0
#define NEW 1
#define OVER 2
byte revoking;			/* the grace */
byte expiry;			/* what the timer waits for, if it runs */

/* struct tlock_contender */
bool leased;			/* these only of the first contender */
byte renewed;			/* NO: the lease was ended */
bool revoked;
byte ticket[CONTENDERS];	/* 0: no request, or it is decided */
bool queued[CONTENDERS];
bool async[CONTENDERS];
byte wait[CONTENDERS] = NONE;	/* the thread that sleeps for the request */
mtype = { OFF, DEADLINE, AT_ONCE };
mtype timer[CONTENDERS] = OFF;
bool endless[CONTENDERS];	/* an asynchronous request has no deadline, */
bool ended[CONTENDERS];		/* its process has ended, */
bool blocker[CONTENDERS];	/* it failed, and the holder was noted */

/* The struct tlock_wait of each thread, and its other state */
bool task[THREADS];		/* is not NULL */
bool canceled[THREADS];		/* err is not 0 */
bool result[THREADS];
bool stands[THREADS];		/* token is of the contender's last grant */
bool patient[THREADS];		/* no timeout, and no signal will come */
bool running[THREADS] = true;	/* the task's state is TASK_RUNNING */

byte stopped;			/* threads of the first contender */

bool polls[THREADS];		/* it is on its contender's queue of pollers */

/*
 * The ticket that a thread got with EINTR or EINPROGRESS, or finds when its call
 * restarts
 */
mtype = { NO_TICKET, ITS_REQUEST, STALE };
mtype knows[THREADS] = NO_TICKET;

/* What a thread read that is going to renew the lease */
byte now[THREADS];		/* the clock */
bool same[THREADS];		/* nobody has written @renewed since */

/* What the owner of the spinlock read, who may end the lease, or has done so */
bool lapsed;			/* @renewed was OVER */
bool unchanged;			/* nobody has written it since */

/* State that exists only for the assertions */
bool before[CONTENDERS * CONTENDERS];	/* a's request was made before b's */
bool inside[CONTENDERS];	/* a call returned that it holds the lock */
bool owed;			/* a holder died, and no call reported it yet */
bool unlearned;			/* a grant was revoked, and no call said so yet */
bool overdue;			/* because its lease had ended */
byte promised;			/* the newest renewal by a call that returned 0 */
byte calls[CONTENDERS];		/* that run now: none is there at a close */

/* Temporary: used only within one step */
hidden byte i, first;
hidden byte ends;

#define LEASED (holder == 0 && leased)
#define EXPIRES (unfetched && (!endless[holder] || ended[holder]))
#define BEFORE(a, b) before[(a) * CONTENDERS + (b)]

inline tlock_lock()
{
	!spinlock;
	spinlock = true
}

/* The end of a section that wakes nobody */
inline tlock_unlock()
{
	/* It is never free while somebody waits */
	assert(waiters == 0 || holder != NOBODY);
	/* An abandonment is neither forgotten nor invented */
	assert(pending_result == owed);
	/* Nor is a revocation, to the contender that lost its grant */
	assert(revoked == unlearned);
	/* An operator revokes one grant, and no later one */
	assert(!revoking || holder == 0);
	assert(unfetched == (holder != NOBODY && async[holder % CONTENDERS]));
	/* Keeps the model small: these mean nothing any more */
	leased = leased && (holder == 0 || ticket[0]);
	renewed = (LEASED -> renewed : NO);
	promised = (LEASED -> promised : NO);
	lapsed = false;
	unchanged = false;
	spinlock = false
}

/* The end of a section that may wake somebody */
inline tlock_unlock_and_wake()
{
	atomic {
		if
		:: wake != NONE ->
			task[wake] = false	/* smp_store_release() */
		:: else
		fi
	};
	atomic {
		tlock_unlock()
	};
	atomic {
		if
		:: wake != NONE ->
			running[wake] = true;	/* wake_up_process() */
			wake = NONE
		:: else
		fi;
		if
		:: poke != NOBODY ->
			wake_up_poll(poke);
			poke = NOBODY
		:: else
		fi
	}
}

/* The same, in an interrupt: one step, to keep the model small */
inline tlock_unlock_at_once()
{
	tlock_unlock();
	if
	:: wake != NONE ->
		task[wake] = false;
		running[wake] = true;
		wake = NONE
	:: else
	fi;
	if
	:: poke != NOBODY ->
		wake_up_poll(poke);
		poke = NOBODY
	:: else
	fi
}

inline wake_up_poll(x)
{
	for (i : 0 .. THREADS - 1) {
		running[i] = running[i] || (polls[i] && i % CONTENDERS == x)
	}
}

/* Who polls is only known once the spinlock is held: wq_has_sleeper() */
inline tlock_notify(x)
{
	for (i : 0 .. ASYNC - 1) {
		if
		:: polls[i] && i % CONTENDERS == x ->
			assert(poke == NOBODY || poke == x);
			poke = x
		:: else
		fi
	}
}

inline tlock_enqueue()
{
	if
	:: me < ASYNC ->
		async[c] = true;
		blocker[c] = false;
		if
		:: endless[c] = true
		:: endless[c] = false;
			timer[c] = DEADLINE
		fi;
		knows[me] = ITS_REQUEST
	:: else ->
		task[me] = true;
		canceled[me] = false;
		result[me] = false;
		if
		:: patient[me] = true
		:: !FEW -> patient[me] = false
		fi;
		wait[c] = me
	fi;
	queued[c] = true;
	waiters++
}

inline tlock_dequeue(x)
{
	wait[x] = NONE;
	queued[x] = false;
	waiters--
}

/* For unfetched grants, it looks again and again */
inline tlock_arm_expiry()
{
	if
	:: waiters && (unfetched || LEASED || revoking) ->
		expiry = (expiry == OVER || revoking == OVER ||
			  (LEASED && renewed == OVER) -> OVER : NEW)
	:: else
	fi
}

/* Makes every cmpxchg() fail that expects the old value */
inline set_renewed(value)
{
	renewed = value;
	unchanged = false;
	for (i : 0 .. THREADS - 1) {
		same[i] = false
	}
}

/* The call returns 0 */
inline renews(time)
{
	set_renewed(time);
	promised = (promised == NEW -> NEW : time)
}

/* A call asks for the lock: it comes after all earlier requests */
inline arrives()
{
	for (i : 0 .. CONTENDERS - 1) {
		BEFORE(i, c) = i != c && ticket[i];
		BEFORE(c, i) = false
	}
}

inline tlock_grant(x)
{
	/* First come, first served, among those who wait; no barging */
	for (i : 0 .. CONTENDERS - 1) {
		assert(!(queued[i] && BEFORE(i, x)));
		BEFORE(i, x) = false
	};
	/* Exclusion */
	assert(holder == NOBODY);
	holder = x;
	if
	:: LEASED -> renews(NEW)
	:: holder == 0 && !leased -> set_renewed(NO)
	:: else
	fi
}

inline tlock_end_request(x)
{
	for (i : 0 .. CONTENDERS - 1) {
		ticket[i] = (ticket[i] > ticket[x] -> ticket[i] - 1 : ticket[i]);
		BEFORE(x, i) = false
	};
	ticket[x] = 0
}

/* Ends a request for which no thread sleeps; a thread may know its ticket */
inline tlock_end_away()
{
	tlock_end_request(c);
	tlock_forget(c)
}

inline tlock_forget(x)
{
	for (i : 0 .. THREADS - 1) {
		if
		:: i % CONTENDERS == x && knows[i] == ITS_REQUEST ->
			knows[i] = STALE
		:: else
		fi
	}
}

inline tlock_end_async(x)
{
	async[x] = false;
	if
	:: holder == x ->
		unfetched = false
	:: else
	fi;
	ended[x] = false;
	endless[x] = false;
	blocker[x] = false;
	timer[x] = (timer[x] == DEADLINE -> OFF : timer[x])
}

/* tlock_decide(): an error */
inline tlock_cancel(x)
{
	wake = wait[x];
	tlock_dequeue(x);
	tlock_end_request(x);
	canceled[wake] = true
}

/* tlock_decide(): a grant */
inline tlock_hand_over(x)
{
	if
	:: async[x] ->
		tlock_dequeue(x);
		tlock_end_request(x);
		unfetched = true;
		tlock_grant(x);
		/* Left out: it still fires, and finds nothing to do */
		timer[x] = OFF
	:: else ->
		wake = wait[x];
		tlock_dequeue(x);
		tlock_end_request(x);
		unfetched = false;
		tlock_grant(x);
		stands[wake] = true;
		result[wake] = pending_result
	fi;
	tlock_arm_expiry();
	tlock_notify(x)
}

inline tlock_end_grant()
{
	/* The token of a revoked grant stays until the contender learns it */
	for (i : 0 .. THREADS - 1) {
		stands[i] = stands[i] && revoked && i % CONTENDERS == 0
	};
	inside[holder] = false;
	holder = NOBODY;
	revoking = NO;
	/* rb_first_cached() */
	first = NOBODY;
	for (i : 0 .. CONTENDERS - 1) {
		if
		:: queued[i] &&
		   (first == NOBODY || ticket[i] < ticket[first]) ->
			first = i
		:: else
		fi
	};
	if
	:: first != NOBODY ->
		tlock_hand_over(first)
	:: else
	fi
}

inline tlock_end()
{
	if
	:: async[c] ->
		if
		:: queued[c] ->
			tlock_dequeue(c);
			tlock_end_request(c);
			tlock_notify(c)
		:: else
		fi;
		tlock_forget(c);
		tlock_end_async(c);
		if
		:: holder == c ->
			tlock_end_grant()
		:: else
		fi
	:: !async[c] && holder == c ->
		tlock_end_grant()
	:: !async[c] && holder != c && ticket[c] && wait[c] == NONE ->
		tlock_end_away()
	:: else
	fi
}

/* Contender 0 loses the lock, which it holds. The caller ends its grant. */
inline tlock_take_away()
{
	revoked = true;
	unlearned = true;
	pending_result = true;
	owed = true;
	if
	:: async[0] ->
		tlock_forget(0);
		tlock_end_async(0)
	:: else
	fi;
	for (i : 0 .. ASYNC - 1) {
		if
		:: polls[i] && i % CONTENDERS == 0 -> timer[0] = AT_ONCE
		:: else
		fi
	}
}

/* The caller learns that the grant was revoked: ESTALE */
inline tlock_learn()
{
	assert(unlearned);
	revoked = false;
	unlearned = false;
	overdue = false;
	for (i : 0 .. THREADS - 1) {
		stands[i] = stands[i] && i % CONTENDERS != 0
	}
}

/* tlock_end_lease(), in two steps, by whoever wants the lock */
inline look()
{
	lapsed = renewed == OVER;
	unchanged = true
}

inline end_lease()
{
	if
	:: lapsed && unchanged ->	/* cmpxchg() */
		set_renewed(NO)
	:: else ->
		lapsed = false
	fi
}

/*
 * Ends the grant if it has expired. If nobody had fetched it, the next holder is
 * the blocker; if there is none, it is noted later.
 */
inline tlock_expire()
{
	ends = true;
	if
	:: EXPIRES ->
		expired = holder;
		unfetched = false
	:: !unfetched || !ended[holder] ->
		if
		:: holder == 0 && revoking == OVER ->
			tlock_take_away()
		:: LEASED && lapsed ->
			/* Never early */
			assert(promised != NEW);
			overdue = true;
			tlock_take_away()
		:: else ->
			ends = false
		fi
	fi;
	if
	:: ends -> tlock_end_grant()
	:: else
	fi;
	if
	:: expired != NOBODY && holder != NOBODY ->
		blocker[expired] = true;
		expired = NOBODY
	:: else
	fi
}

/* The contender has learned of every revocation */
inline has_learned()
{
	assert(c != 0 || !unlearned)
}

/* The call returns 0 */
inline holds()
{
	/* Its grant stands, and nobody else believes that it holds the lock */
	assert(holder == c && stands[me]);
	has_learned();
	for (i : 0 .. CONTENDERS - 1) {
		assert(i == c || !inside[i])
	};
	inside[c] = true
}

/* The call fails: no grant is lost */
inline does_not_hold()
{
	assert(!(holder == c));
	has_learned()
}

/* An asynchronous request fails at its deadline, while another one holds */
inline fails(x)
{
	assert(!endless[x] && holder != NOBODY && holder != x)
}

inline tlock_take_result()
{
	reported = pending_result;
	pending_result = false;
	/* An abandonment is reported once */
	assert(reported == owed);
	owed = false
}

inline new_ticket()
{
	ticket[c] = 1;
	for (i : 0 .. CONTENDERS - 1) {
		ticket[c] = (i != c && ticket[i] >= ticket[c] ->
			     ticket[i] + 1 : ticket[c])
	}
}

/* A newcomer in the queue */
inline first_waiter()
{
	if
	:: waiters == 1 ->
		tlock_notify(holder);
		tlock_arm_expiry()
	:: else
	fi
}

/* A call with the ticket of an asynchronous request that is decided */
inline tlock_fetch()
{
	knows[me] = NO_TICKET;
	if
	:: holder == c ->
		tlock_end_async(c);
		if
		:: LEASED -> renews(NEW)
		:: else
		fi;
		tlock_take_result();
		stands[me] = true;
		holds();
		goes_on = HOLDS
	:: else ->
		/* It names the contender that had the lock, or got it */
		assert(blocker[c]);
		tlock_end_async(c);
		does_not_hold();
		goes_on = RETURN
	fi
}

#define DECIDED_OR_WANTED ((async[c] && !queued[c]) || (!async[c] && holder != c) || \
			   (holder == c && waiters))

/* Tries once; this ends the request, if there is one */
inline try()
{
	if
	:: holder == NOBODY ->
		tlock_grant(c);
		if
		:: expired != NOBODY ->
			blocker[expired] = true;
			expired = NOBODY
		:: else
		fi;
		tlock_take_result();
		stands[me] = true;
		holds();
		goes_on = HOLDS
	:: else ->
		does_not_hold();
		/* A grace that is over does not outlast a try */
		assert(revoking != OVER);
		goes_on = RETURN
	fi
}

mtype = { SLEEP, HOLDS, RETURN };

#define MUST_LEARN (c == 0 && revoked)

proctype thread(byte me)
{
	byte c = me % CONTENDERS;
	byte wake = NONE;
	byte poke = NOBODY;
	byte expired = NOBODY;
	bool reported;
	mtype goes_on = RETURN;

idle:
	if
	:: atomic {
		/*
		 * A thread does not stop while its contender holds, if it may be
		 * the only one that can end the grant.
		 */
		!inside[c] || LEASED || revoking ->
		ended[c] = ended[c] || (knows[me] == ITS_REQUEST && async[c]);
		knows[me] = NO_TICKET;
		stopped = stopped + (c == 0);
		goto done
	   }
	:: atomic {			/* tlock_acquire() */
		tlock_lock();
		calls[c]++;
		if
		:: LEASED && c != 0 && wait[c] == NONE && !async[c] -> look()
		:: else -> goto acquire
		fi
	   };
	   atomic {
		end_lease();
		if
		:: lapsed
		:: else -> goto acquire
		fi
	   };
acquire:
	   atomic {
		if
		:: MUST_LEARN ->			/* ESTALE */
			goto stale
		:: wait[c] != NONE || async[c] ->	/* EBUSY */
			goes_on = RETURN
		:: wait[c] == NONE && !async[c] && holder == c ->	/* EDEADLK */
			goes_on = RETURN
		:: else ->
			tlock_expire();
			if
			:: ticket[c] ->		/* replaced */
				tlock_end_away()
			:: else
			fi;
			knows[me] = NO_TICKET;
			arrives();
			if
			:: c == 0 -> leased = false
			:: c == 0 && LEASES -> leased = true
			:: c != 0
			fi;
			if
			:: holder != NOBODY ->
				new_ticket();
				tlock_enqueue();
				first_waiter();
				goes_on = (me < ASYNC -> RETURN : SLEEP)
			:: skip ->
				try()
			fi
		fi
	   }
	:: atomic {			/* either call, with its ticket */
		knows[me] != NO_TICKET && !queued[c];
		tlock_lock();
		calls[c]++;
		if
		:: LEASED && c != 0 && knows[me] == ITS_REQUEST -> look()
		:: else -> goto resume
		fi
	   };
	   atomic {
		end_lease();
		if
		:: lapsed
		:: else -> goto resume
		fi
	   };
resume:
	   atomic {
		if
		:: MUST_LEARN ->			/* ESTALE */
			goto stale
		:: !MUST_LEARN && knows[me] == STALE ->	/* ECANCELED */
			knows[me] = NO_TICKET;
			goes_on = RETURN
		:: !MUST_LEARN && knows[me] == ITS_REQUEST && me < ASYNC ->
			tlock_fetch()
		:: else ->
			knows[me] = NO_TICKET;
			tlock_expire();
			if
			:: holder != NOBODY ->
				tlock_enqueue();
				first_waiter();
				goes_on = SLEEP
			:: tlock_end_request(c);
				try()
			fi
		fi
	   }
	:: atomic {			/* tlock_reacquire() */
		tlock_lock();
		calls[c]++;
		if
		:: MUST_LEARN ->			/* ESTALE */
			goto stale
		:: !MUST_LEARN && (holder != c || async[c]) ->	/* EBUSY or EPERM */
			goes_on = RETURN
		:: holder == c && !async[c] && !waiters ->
			goes_on = RETURN;
			if
			:: c == 0 && leased ->
				now[me] = NEW;
				goto renew
			:: else
			fi
		:: holder == c && !async[c] && c == 0 && LEASES ->
			leased = true;		/* TLOCK_RENEW */
			goes_on = RETURN;
			now[me] = NEW;
			goto renew
		:: holder == c && !async[c] && waiters ->
			arrives();
			if
			:: new_ticket();
				tlock_enqueue();
				tlock_end_grant();
				goes_on = (me < ASYNC -> RETURN : SLEEP)
			:: tlock_end_grant();
				does_not_hold();
				goes_on = RETURN
			fi
		fi;
		has_learned()
	   }
	:: atomic {			/* tlock_reacquire_fast() */
		holder == c && !waiters && !revoking && inside[c] ->
		/* There is no waiter to let in */
		for (i : 0 .. CONTENDERS - 1) {
			assert(!queued[i])
		};
		if
		:: c == 0 && leased ->	/* read first, in fact */
			calls[c]++;
			stands[me] = true
		:: else -> goto idle
		fi
	   };
	   atomic {			/* tlock_renew_fast() */
		same[me] = true;
		if
		:: renewed == NO -> goto not_renewed
		:: else
		fi
	   };
	   atomic {
		if
		:: holder == c && stands[me] -> now[me] = NEW
		:: else -> goto not_renewed
		fi
	   };
	   atomic {
		if
		:: same[me] ->		/* cmpxchg() */
			/* A lease that ended is not renewed */
			assert(!overdue);
			/* It does not renew a later grant */
			assert(!(holder == c && !stands[me]));
			if
			:: LEASED -> renews(now[me])
			:: else
			fi
		:: else
		fi;
not_renewed:
		stands[me] = false;
		same[me] = false;
		now[me] = NO;
		calls[c]--;
		goto idle
	   }
	:: atomic {			/* tlock_release() */
		/*
		 * A thread that shares no file releases only what it knows of.
		 */
		(c == 0 && THREADS > CONTENDERS) || inside[c] || MUST_LEARN ||
			knows[me] != NO_TICKET;
		tlock_lock();
		calls[c]++;
		knows[me] = NO_TICKET;
		if
		:: MUST_LEARN ->		/* ESTALE */
			goto stale
		:: wait[c] != NONE ->	/* of tlock_end(), as well */
			tlock_cancel(c)
		:: else ->
			tlock_end()
		fi;
		/* It neither holds nor has a request */
		assert(holder != c && ticket[c] == 0 && !queued[c] && !async[c]);
		has_learned();
		goes_on = RETURN
	   }
	:: atomic {			/* tlock_contender_exit() */
		calls[c] == 0 && !SMALL && !FEW;
		tlock_lock();
		calls[c]++;
		knows[me] = NO_TICKET;
		if
		:: holder == c && !async[c] ->
			inside[c] = false;
			pending_result = true;
			owed = true
		:: MUST_LEARN ->
			tlock_learn()
		:: else
		fi;
		tlock_end();
		goes_on = RETURN
	   }
	:: atomic {			/* poll(2), for POLLOUT or POLLPRI */
		me < ASYNC && (async[c] || inside[c]) && !SMALL;
		calls[c]++;
		goto poll
	   }
	fi;
	goto unlock;

stale:
	atomic {
		tlock_learn();
		knows[me] = NO_TICKET;
		goes_on = RETURN
	};
unlock:
	tlock_unlock_and_wake();
returns:
	atomic {
		if
		:: goes_on == RETURN ->
			calls[c]--;
			goto idle
		:: goes_on == HOLDS ->
			goto copy_out
		:: goes_on == SLEEP ->
			goes_on = RETURN;
			goto sleep
		fi
	};

renew:					/* tlock_renew() */
	atomic {
		if
		:: renewed == NEW	/* a call on the same file renewed it */
		:: renewed != NEW || now[me] == NEW -> renews(now[me])
		fi;
		now[me] = NO;
		tlock_arm_expiry();
		tlock_unlock();
		goto returns
	};

poll:
	atomic {
		running[me] = false;
		polls[me] = true	/* poll_wait() */
	};
	if				/* tlock_poll_events() */
	:: DECIDED_OR_WANTED
	:: else ->
		if
		:: running[me]		/* woken */
		:: holder == c && !waiters	/* gives up: nobody comes */
		fi
	fi;
	atomic {
		polls[me] = false;
		running[me] = true;
		calls[c]--;
		goto idle
	};

sleep:					/* tlock_sleep() */
	running[me] = false;		/* set_current_state() */
	if
	:: !task[me] -> goto decided	/* smp_load_acquire() */
	:: task[me] && !patient[me] -> goto give_up	/* signal_pending() */
	:: task[me]
	fi;
	if				/* schedule_hrtimeout_range() */
	:: running[me] -> goto sleep	/* woken */
	:: !patient[me]			/* the timer */
	fi;

give_up:				/* tlock_wait() */
	running[me] = true;
	atomic {
		tlock_lock();
		if
		:: !task[me] ->		/* decided in the meantime */
			tlock_unlock();
			goto decided
		:: else ->
			tlock_dequeue(c);
			patient[me] = false;
			task[me] = false;
			does_not_hold();
			if
			:: tlock_end_request(c);	/* ETIMEDOUT */
				tlock_unlock()
			:: !ASYNC && !FEW ->		/* ERESTARTSYS */
				knows[me] = ITS_REQUEST;
				tlock_unlock();
				goto away
			fi
		fi;
		/* It has no request any more */
		assert(ticket[c] == 0);
		calls[c]--;
		goto idle
	};

away:
	atomic {
		if
		:: skip
		:: tlock_lock();	/* tlock_undo(): the ticket faults */
			if
			:: knows[me] == ITS_REQUEST && wait[c] == NONE ->
				tlock_end_request(c)
			:: else
			fi;
			knows[me] = NO_TICKET;
			tlock_unlock()
		fi;
		calls[c]--;
		goto idle
	};

decided:
	atomic {
		running[me] = true;
		patient[me] = false;
		if
		:: canceled[me] ->
			canceled[me] = false;
			calls[c]--;
			goto idle
		:: else
		fi
	};
	if				/* tlock_take_grant() */
	:: atomic {
		result[me] ->
		tlock_lock();
		result[me] = false;
		if
		:: holder == c && stands[me] ->
			tlock_take_result();
			holds();
			tlock_unlock();
			goto copy_out
		:: else ->
			tlock_unlock();
			goto lost
		fi
	   }
	:: atomic {
		!result[me] ->
		if
		:: holder != c -> goto lost
		:: else
		fi
	   }
	fi;
	atomic {
		if
		:: stands[me] && !MUST_LEARN ->
			reported = false;
			holds();
			goto copy_out
		:: else
		fi
	};

lost:
	atomic {
		if
		:: LEASES ->
			tlock_lock();
			if
			:: MUST_LEARN && stands[me] ->	/* ESTALE */
				/* It was this grant, and not a later one */
				assert(unlearned && stands[me]);
				tlock_learn()
			:: else
			fi;
			tlock_unlock()
		:: else
		fi;
		/* ECANCELED */
		assert(!stands[me]);
		calls[c]--;
		goto idle
	};

copy_out:
	if
	:: atomic {
		reported = false;
		stands[me] = false;
		goes_on = RETURN;
		calls[c]--;
		goto idle
	   }
	:: atomic {			/* tlock_undo() */
		!FEW && (!ASYNC || (me < ASYNC && !SMALL));
		tlock_lock();
		if
		:: reported ->
			pending_result = true;
			owed = true;
			reported = false
		:: else
		fi;
		if
		:: holder == c && stands[me] ->
			inside[c] = false;
			tlock_end_grant()
		:: MUST_LEARN && stands[me] ->
			tlock_learn()
		:: else
		fi;
		goes_on = RETURN
	   }
	fi;
	tlock_unlock_and_wake();
	goto returns;
done:
	skip
}

/* The timer of each contender */
proctype tlock_deadline_timer(byte c)
{
	byte wake = NONE;
	byte poke = NOBODY;

end:
	do
	:: atomic {
		timer[c] != OFF;
		timer[c] = OFF
	   };
	   /* It may be late: see hrtimer_try_to_cancel() */
	   atomic {
		tlock_lock();
		if
		:: !queued[c] ->
			tlock_notify(c)
		:: queued[c] && async[c] && !endless[c] ->
			fails(c);
			tlock_dequeue(c);
			tlock_end_request(c);
			blocker[c] = (holder != NOBODY);
			tlock_notify(c)
		:: queued[c] && (!async[c] || endless[c] || timer[c] != OFF)
		fi;
		tlock_unlock_at_once()
	   }
	od
}

proctype tlock_expiry_timer()
{
	byte wake = NONE;
	byte poke = NOBODY;
	byte expired = NOBODY;

end:
	do
	:: atomic {
		expiry == OVER || (expiry && (!waiters || EXPIRES ||
			(!unfetched && !LEASED && !revoking)));
		tlock_lock();
		expiry = NO;
		if
		:: LEASED && waiters -> look()
		:: else -> goto expire
		fi
	   };
	   atomic {
		end_lease();
		if
		:: lapsed
		:: else -> goto expire
		fi
	   };
expire:
	   atomic {
		if
		:: waiters ->
			tlock_expire()
		:: else
		fi;
		tlock_arm_expiry();
		/* The pollers are left to the timer of their contender */
		if
		:: poke != NOBODY ->
			timer[poke] = AT_ONCE;
			poke = NOBODY
		:: else
		fi;
		tlock_unlock_at_once()
	   }
	od
}

/* TLOCK_IOC_REVOKE */
proctype operator()
{
	byte wake = NONE;
	byte poke = NOBODY;

end:
	do
	:: atomic {
		/*
		 * If all who could release it have stopped, nobody may depend on
		 * an operator: that would hide a lost wake-up.
		 */
		holder == 0 && stopped < 1 + THREADS - CONTENDERS && !spinlock;
		tlock_lock();
		if
		:: tlock_take_away();
			tlock_end_grant()
		:: !revoking ->
			if
			:: revoking = NEW
			:: revoking = OVER
			fi;
			tlock_arm_expiry()
		fi;
		tlock_unlock_at_once()
	   }
	od
}

#define AGED(time) (time == NEW -> OVER : time)

/* Time passes */
proctype clock()
{
end:
	do
	:: atomic {
		renewed == NEW || revoking == NEW || promised == NEW;
		renewed = AGED(renewed);
		revoking = AGED(revoking);
		promised = AGED(promised);
		expiry = AGED(expiry);
		for (i : 0 .. THREADS - 1) {
			now[i] = AGED(now[i])
		}
	   }
	od
}

init {
	atomic {
		for (i : 0 .. CONTENDERS - 1) {
			if
			:: ASYNC ->
				run tlock_deadline_timer(i)
			:: else
			fi
		};
		if
		:: ASYNC || LEASES ->
			run tlock_expiry_timer()
		:: else
		fi;
		if
		:: LEASES ->
			run operator();
			run clock()
		:: else
		fi;
		for (i : 0 .. THREADS - 1) {
			run thread(i)
		}
	}
}
