/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A model of lock.c's hand-over protocol, in Promela, for spin: N contenders
 * acquire, wait, give up, release, reacquire, decline and close as they like,
 * for ever or until they have had enough, in every possible order.
 *
 * What stands under the mutex is one step (atomic), but for what a sleeper
 * sees of the hand-over, as it does not take the mutex to look. Memory is
 * sequentially consistent; counters, jobs and times are left out.
 *
 * selftests/model has spin check that no assertion fails, and that nobody is
 * left where it can never go on ("invalid end state"): a deadlock, or a lost
 * wake-up. It checks as well that this is noticed in broken versions.
 */
#ifndef N
#define N 4
#endif
#define NOBODY N

/* struct tlock */
bool mutex;
chan queue = [N] of { byte };
byte holder = NOBODY;
bool abandoned;

/* Each contender's struct tlock_wait, and what goes with it */
bool task[N];		/* not NULL */
bool result[N];		/* TLOCK_ABANDONED */
bool patient[N];	/* no timeout, and no signal will come */
bool running[N] = true;	/* the task's state is TASK_RUNNING */

byte next = NOBODY;	/* whom tlock_hand_over() wakes */

/* What the assertions compare this with */
chan arrived = [N] of { byte };	/* who waits, in the order of their rights */
byte inside;			/* how many believe that they hold the lock */
bool to_tell;			/* a holder died, and nobody was told yet */

inline mutex_lock()
{
	!mutex;
	mutex = true
}

inline mutex_unlock()
{
	/* It is never free while somebody waits */
	assert(len(queue) == 0 || holder != NOBODY);
	mutex = false
}

inline tlock_grant(who)
{
	/* First come, first served; no barging */
	assert(len(arrived) == 0 || arrived?[eval(who)]);
	result[who] = abandoned;
	abandoned = false;
	holder = who
}

inline tlock_pass_on()
{
	holder = NOBODY;
	if
	:: len(queue) ->		/* __wake_up() */
		queue?next;		/* tlock_hand_over() */
		tlock_grant(next);
		arrived?_
	:: else
	fi
}

/* The rest of tlock_hand_over(): the sleeper may look in the midst of it */
inline tlock_wake()
{
	atomic {
		if
		:: next != NOBODY ->
			task[next] = false	/* smp_store_release() */
		:: else
		fi
	};
	atomic {
		if
		:: next != NOBODY ->
			running[next] = true;	/* wake_up_process() */
			next = NOBODY
		:: else
		fi
	}
}

inline tlock_queue(who)
{
	task[who] = true;
	if
	:: patient[who] = true
	:: patient[who] = false
	fi;
	queue!who
}

proctype contender(byte me)
{
idle:
	if
	:: goto done
	:: atomic {			/* tlock_acquire() */
		mutex_lock();
		if
		:: holder == NOBODY ->
			tlock_grant(me);
			mutex_unlock();
			goto granted
		:: else ->
			arrived!me;
			tlock_queue(me);
			mutex_unlock()
		fi
	   }
	fi;

sleep:
	running[me] = false;		/* set_current_state() */
	if
	:: !task[me] -> goto granted	/* smp_load_acquire() */
	:: task[me] && !patient[me] -> goto give_up	/* signal_pending() */
	:: task[me]
	fi;
	if				/* schedule_hrtimeout_range() */
	:: running[me] -> goto sleep	/* woken */
	:: !patient[me]			/* the timer */
	fi;

give_up:
	running[me] = true;
	atomic {			/* tlock_wait() */
		mutex_lock();
		if
		:: !task[me] ->		/* granted in the meantime */
			mutex_unlock();
			goto granted
		:: else ->
			queue??eval(me);
			arrived??eval(me);
			mutex_unlock()
		fi;
		/* No grant is lost: who fails does not hold it */
		assert(holder != me);
		patient[me] = false;
		goto idle
	}

granted:
	atomic {
		running[me] = true;
		patient[me] = false;
		/* Exclusion */
		inside++;
		assert(inside == 1 && holder == me);
		if
		:: goto decline
		:: skip
		fi;
		/* A death is told once */
		assert(result[me] == to_tell);
		to_tell = false;
		result[me] = false
	}

	/* It holds the lock: until it has had enough of that */
	if
	:: atomic {			/* tlock_release() */
		mutex_lock();
		inside--;
		tlock_pass_on()
	   }
	:: atomic {			/* tlock_leave() */
		mutex_lock();
		inside--;
		abandoned = true;
		to_tell = true;
		tlock_pass_on()
	   }
	:: atomic {			/* tlock_reacquire() */
		mutex_lock();
		inside--;
		if
		:: len(queue) ->
			arrived!me;
			tlock_queue(me);
			tlock_pass_on()
		:: else ->
			mutex_unlock();
			goto granted
		fi
	   };
	   tlock_wake();
	   atomic {
		mutex_unlock();
		goto sleep
	   }
	:: atomic {			/* tlock_keep(), without the mutex */
		holder == me && len(queue) == 0 ->
		inside--;
		/* Nobody who waits is kept waiting */
		assert(len(arrived) == 0);
		goto granted
	   }
	fi;
	goto wake;

decline:
	atomic {			/* tlock_decline() */
		mutex_lock();
		inside--;
		abandoned = result[me];
		result[me] = false;
		tlock_pass_on()
	}

wake:
	tlock_wake();
	atomic {
		mutex_unlock();
		goto idle
	}
done:
	skip
}

init {
	byte i;

	atomic {
		for (i : 0 .. N - 1) {
			run contender(i)
		}
	}
}
