#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Takes the lock for an acquisition, or says within 3 seconds who has it.

usage: acquire_timeout.py [SECONDS]

SECONDS is how long the acquisition takes; 1 if not given. Run it in two
terminals at once: the second waits for the first.

An agent that used the TimeoutLock of OCS changes its import line:

    from tlock import TimeoutLock

or runs unchanged, by "python3 -m tlock.ocs AGENT.py". In both cases, TLOCK=NAME
in the environment chooses the lock, here too.
"""
import sys
import time

from tlock import TimeoutLock


def acquisition(lock: TimeoutLock, seconds: float) -> bool:
    with lock.acquire_timeout(timeout=3.0, job="acq") as acquired:
        if not acquired:
            print("Lock could not be acquired because it is held by "
                  f"{lock.job}")
            return False

        # Nobody else talks to the instrument during this block
        print("Lock acquired!", flush=True)
        time.sleep(seconds)
    return True


if __name__ == "__main__":
    duration = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
    sys.exit(0 if acquisition(TimeoutLock(), duration) else 1)
