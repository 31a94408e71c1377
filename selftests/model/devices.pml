/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A model of device.c in Promela, for spin: locks are created, opened, used and
 * deleted, in every possible order. It has one name, which several processes
 * create, delete and open, each as often as it likes.
 *
 * lock.pml models a single lock. That suffices, as locks are independent: each
 * has a spinlock, a queue, a timer for each waiter and counters of its own, and
 * no call uses two. They share only what is modelled here: the table of locks,
 * and the newest token of those that were deleted.
 *
 * What device.c does under the mutex is several steps here, as those who open a
 * lock do not take it. A lock is numbered by its minor number; a number is used
 * again only when nobody refers to the lock that had it. (The real numbers are
 * cyclic; here one can be used again at once, which is worse.)
 *
 * selftests/model/run lets spin check that no assertion fails and that nobody
 * gets stuck. It also checks that spin finds broken versions.
 */
#define LOCKS 3		/* minor numbers */
#define ADMINS 2	/* processes that create and delete */
#define OPENERS 2	/* processes that open, read and write */
#define NONE LOCKS
#define DEAD 200	/* INT_MIN, of an unsigned number */

bool mutex;

/* struct tlock_device */
bool in_table[LOCKS];		/* tlock_devices */
byte refs[LOCKS];		/* to the device; freed at 0 */
byte writers[LOCKS];

/* The device file, and what chrdev_open() finds by its number */
byte node = NONE;
bool mapped[LOCKS];

/* State that exists only for the assertions */
byte files[LOCKS];		/* open for writing */
bool deleted[LOCKS];		/* a write to delete_lock has returned 0 */

hidden byte i, live;

inline lock_mutex()
{
	atomic {
		!mutex -> mutex = true
	}
}

inline unlock_mutex()
{
	atomic {
		/* Never two locks of one name */
		live = 0;
		for (i : 0 .. LOCKS - 1) {
			if
			:: refs[i] && mapped[i] && writers[i] < DEAD -> live++
			:: else
			fi
		};
		assert(live <= 1);
		mutex = false
	}
}

inline put_device(x)
{
	d_step {
		assert(refs[x] > 0);
		refs[x]--;
		if
		:: refs[x] == 0 ->	/* tlock_device_release() */
			writers[x] = 0;
			deleted[x] = false
		:: else
		fi
	}
}

/* tlock_device_find() */
inline find()
{
	d_step {
		found = NONE;
		for (i : 0 .. LOCKS - 1) {
			if
			:: in_table[i] -> found = i
			:: else
			fi
		}
	}
}

proctype admin()
{
	byte found = NONE;
	byte x = NONE;

idle:
	if
	:: goto done
	:: lock_mutex();			/* tlock_create() */
		find();
		if
		:: found != NONE -> skip	/* EEXIST */
		:: else ->
			d_step {		/* idr_alloc_cyclic() */
				x = 0;
				do
				:: x < LOCKS && refs[x] -> x++
				:: else -> break
				od;
				if
				:: x < LOCKS ->
					refs[x] = 1;
					in_table[x] = true
				:: else
				fi
			};
			if
			:: x < LOCKS ->
				mapped[x] = true;	/* cdev_add() */
				if
				:: node = x		/* device_add() */
				:: mapped[x] = false;	/* it fails */
					in_table[x] = false;
					put_device(x)
				fi
			:: else				/* ENOSPC */
			fi
		fi;
		x = NONE;
		unlock_mutex()
	:: lock_mutex();			/* tlock_delete() */
		find();
		if
		:: found == NONE -> skip	/* ENOENT */
		:: else ->
			atomic {		/* tlock_device_kill() */
				if
				:: writers[found] == 0 ->
					writers[found] = DEAD;
					x = found
				:: else ->	/* EBUSY */
					assert(files[found] > 0)
				fi
			};
			if
			:: x != NONE ->		/* tlock_device_remove() */
				node = NONE;
				mapped[x] = false;
				in_table[x] = false;
				deleted[x] = true;
				put_device(x)
			:: else
			fi
		fi;
		x = NONE;
		found = NONE;
		unlock_mutex()
	fi;
	goto idle;
done:
	skip
}

proctype opener()
{
	byte x = NONE;
	bool writes;

idle:
	if
	:: goto done
	:: x = node				/* the path */
	fi;
	if
	:: x == NONE -> goto idle		/* ENOENT */
	:: else
	fi;
	atomic {				/* chrdev_open(), cdev_get() */
		if
		:: mapped[x] -> refs[x]++
		:: else ->			/* ENXIO */
			x = NONE;
			goto idle
		fi
	};
	if
	:: atomic {				/* tlock_device_get() */
		writes = true;
		assert(refs[x]);
		if
		:: writers[x] < DEAD ->
			writers[x]++;
			files[x]++
		:: else -> goto put		/* ENXIO */
		fi
	   }
	:: atomic {				/* tlock_device_deleted() */
		writes = false;
		assert(refs[x]);
		if
		:: writers[x] < DEAD -> skip
		:: else -> goto put		/* ENXIO */
		fi
	   }
	fi;
use:
	atomic {				/* any call on the file */
		assert(refs[x]);
		/* A file that can acquire the lock is on one that exists */
		assert(!(writes && deleted[x]));
		assert(!writes || writers[x] < DEAD)
	};
	if
	:: goto use
	:: skip
	fi;
	if
	:: writes ->
		atomic {			/* tlock_device_put() */
			writers[x]--;
			files[x]--
		}
	:: else
	fi;
put:
	put_device(x);
	x = NONE;
	writes = false;
	goto idle;
done:
	skip
}

init {
	atomic {
		for (i : 1 .. ADMINS) {
			run admin()
		};
		for (i : 1 .. OPENERS) {
			run opener()
		}
	}
}
