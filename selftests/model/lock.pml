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
 * The names are those of lock.c. What lock.c does under the spinlock is one
 * step here (atomic), except for what a sleeper can see without the spinlock.
 * Memory is sequentially consistent. Counters, jobs and flock(2) are left out.
 * So are times: a deadline may pass at any moment, or there is none.
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
/* With more than two threads, asynchronous requests make a model too large */
#define SMALL (ASYNC && THREADS > 2)
#define NOBODY CONTENDERS
#define NONE THREADS

/* struct tlock */
bool spinlock;
byte holder = NOBODY;
byte waiters;
bool unfetched;
bool pending_result;
bool expiry;			/* the timer runs */

/* struct tlock_contender */
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

bool polls[THREADS];		/* it is on its contender's queue of pollers */

/*
 * The ticket that a thread got with EINTR or EINPROGRESS, or finds when its call
 * restarts
 */
mtype = { NO_TICKET, ITS_REQUEST, STALE };
mtype knows[THREADS] = NO_TICKET;

/* State that exists only for the assertions */
bool before[CONTENDERS * CONTENDERS];	/* a's request was made before b's */
bool inside[CONTENDERS];	/* a call returned that it holds the lock */
bool owed;			/* a holder died, and no call reported it yet */
byte calls[CONTENDERS];		/* that run now: none is there at a close */

/* Temporary: used only within one step */
hidden byte i, first;

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
	assert(unfetched == (holder != NOBODY && async[holder % CONTENDERS]));
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
		:: patient[me] = false
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

/* It looks again and again while the grant can expire */
inline tlock_arm_expiry()
{
	if
	:: waiters && unfetched ->
		expiry = true
	:: else
	fi
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
	holder = x
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
	tlock_forget()
}

inline tlock_forget()
{
	for (i : 0 .. THREADS - 1) {
		if
		:: i % CONTENDERS == c && knows[i] == ITS_REQUEST ->
			knows[i] = STALE
		:: else
		fi
	}
}

inline tlock_end_async()
{
	async[c] = false;
	if
	:: holder == c ->
		unfetched = false
	:: else
	fi;
	ended[c] = false;
	endless[c] = false;
	blocker[c] = false;
	timer[c] = (timer[c] == DEADLINE -> OFF : timer[c])
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
		timer[x] = OFF;
		tlock_arm_expiry()
	:: else ->
		wake = wait[x];
		tlock_dequeue(x);
		tlock_end_request(x);
		unfetched = false;
		tlock_grant(x);
		stands[wake] = true;
		result[wake] = pending_result
	fi;
	tlock_notify(x)
}

inline tlock_end_grant()
{
	for (i : 0 .. THREADS - 1) {
		stands[i] = false
	};
	inside[holder] = false;
	holder = NOBODY;
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
		tlock_forget();
		tlock_end_async();
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

#define EXPIRES (unfetched && (!endless[holder] || ended[holder]))

/* The next holder is the blocker, if there is one; otherwise it is noted later */
inline tlock_expire()
{
	expired = holder;
	unfetched = false;
	tlock_end_grant();
	if
	:: holder != NOBODY ->
		blocker[expired] = true;
		expired = NOBODY
	:: else
	fi
}

/* A call of somebody else wants the lock */
inline wants()
{
	if
	:: EXPIRES ->
		tlock_expire()
	:: !unfetched || !ended[holder] ->
		skip
	fi
}

/* The call returns 0 */
inline holds()
{
	/* Its grant stands, and nobody else believes that it holds the lock */
	assert(holder == c && stands[me]);
	for (i : 0 .. CONTENDERS - 1) {
		assert(i == c || !inside[i])
	};
	inside[c] = true
}

/* The call fails: no grant is lost */
inline does_not_hold()
{
	assert(!(holder == c))
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
		tlock_end_async();
		tlock_take_result();
		stands[me] = true;
		holds();
		goes_on = HOLDS
	:: else ->
		/* It names the contender that had the lock, or got it */
		assert(blocker[c]);
		tlock_end_async();
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
		goes_on = RETURN
	fi
}

mtype = { SLEEP, HOLDS, RETURN };

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
		 * A thread does not stop while its contender holds: it may be
		 * the only one that can end the grant.
		 */
		!inside[c] ->
		ended[c] = ended[c] || (knows[me] == ITS_REQUEST && async[c]);
		knows[me] = NO_TICKET;
		goto done
	   }
	:: atomic {			/* tlock_acquire() */
		tlock_lock();
		calls[c]++;
		if
		:: wait[c] != NONE || async[c] ->	/* EBUSY */
			goes_on = RETURN
		:: wait[c] == NONE && !async[c] && holder == c ->	/* EDEADLK */
			goes_on = RETURN
		:: else ->
			wants();
			if
			:: ticket[c] ->		/* replaced */
				tlock_end_away()
			:: else
			fi;
			knows[me] = NO_TICKET;
			arrives();
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
		:: knows[me] == STALE ->	/* ECANCELED */
			knows[me] = NO_TICKET;
			goes_on = RETURN
		:: knows[me] == ITS_REQUEST && me < ASYNC ->
			tlock_fetch()
		:: else ->
			knows[me] = NO_TICKET;
			wants();
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
		:: holder != c || async[c] ->	/* EBUSY or EPERM */
			goes_on = RETURN
		:: holder == c && !async[c] && !waiters ->
			goes_on = RETURN
		:: else ->
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
		fi
	   }
	:: atomic {			/* tlock_reacquire_fast() */
		holder == c && !waiters && inside[c] ->
		/* There is no waiter to let in */
		for (i : 0 .. CONTENDERS - 1) {
			assert(!queued[i])
		};
		goto idle
	   }
	:: atomic {			/* tlock_release() */
		/*
		 * A thread that shares no file releases only what it knows of.
		 */
		(c == 0 && THREADS > CONTENDERS) || inside[c] || knows[me] != NO_TICKET;
		tlock_lock();
		calls[c]++;
		knows[me] = NO_TICKET;
		if
		:: wait[c] != NONE ->	/* of tlock_end(), as well */
			tlock_cancel(c)
		:: else ->
			tlock_end()
		fi;
		/* It neither holds nor has a request */
		assert(holder != c && ticket[c] == 0 && !queued[c] && !async[c]);
		goes_on = RETURN
	   }
	:: atomic {			/* tlock_contender_exit() */
		calls[c] == 0 && !SMALL;
		tlock_lock();
		calls[c]++;
		knows[me] = NO_TICKET;
		if
		:: holder == c && !async[c] ->
			inside[c] = false;
			pending_result = true;
			owed = true
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
		:: !async[c] && !waiters	/* gives up: nobody comes */
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
			:: !ASYNC ->			/* ERESTARTSYS */
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
		:: stands[me] ->
			reported = false;
			holds();
			goto copy_out
		:: else
		fi
	};

lost:					/* ECANCELED */
	atomic {
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
		!ASYNC || (me < ASYNC && !SMALL);
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
		expiry && (!waiters || !unfetched || EXPIRES);
		tlock_lock();
		expiry = false;
		if
		:: waiters && EXPIRES ->
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
		:: ASYNC ->
			run tlock_expiry_timer()
		:: else
		fi;
		for (i : 0 .. THREADS - 1) {
			run thread(i)
		}
	}
}
