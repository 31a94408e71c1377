#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""What a pair of acquire and release costs in Python that nobody else wants.

As in uncontended.c: the least of many batches, less the cost of the loop.
"""
import fcntl
import os
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)) +
                "/../../userlib/python")

from tlock import TimeoutLock  # noqa: E402

BATCHES = 15
OPS = 50


class TwoLocks:
    """A lock like that of OCS, from its description: who acquires first takes
    a lock that means "next", then the lock itself, then gives "next" back."""

    def __init__(self):
        self.next = threading.Lock()
        self.lock = threading.Lock()
        self.job = None

    def acquire(self, timeout=-1, job=None):
        if not self.next.acquire(timeout=timeout):
            return False
        try:
            if not self.lock.acquire(timeout=timeout):
                return False
            self.job = job
            return True
        finally:
            self.next.release()

    def release(self):
        self.job = None
        self.lock.release()


def cost_with_loop(pair):
    least = 10**18
    for _ in range(BATCHES):
        start = time.perf_counter_ns()
        for _ in range(OPS):
            pair()
        least = min(least, time.perf_counter_ns() - start)
    return least / OPS


def main():
    tlock = TimeoutLock()
    thread_lock = threading.Lock()
    two = TwoLocks()
    file = tempfile.TemporaryFile()

    def tlock_pair():
        tlock.acquire(timeout=3, job="acq")
        tlock.release()

    def thread_pair():
        thread_lock.acquire(timeout=3)
        thread_lock.release()

    def two_pair():
        two.acquire(timeout=3, job="acq")
        two.release()

    def flock_pair():
        fcntl.flock(file, fcntl.LOCK_EX)
        fcntl.flock(file, fcntl.LOCK_UN)

    def again():
        tlock.release_and_acquire(timeout=3)

    loop = cost_with_loop(lambda: None)
    for name, pair in (("tlock.TimeoutLock", tlock_pair),
                       ("threading.Lock", thread_pair),
                       ("two-locks", two_pair),
                       ("fcntl.flock", flock_pair)):
        print("python/%s %.15g" % (name, cost_with_loop(pair) - loop))
    tlock.acquire(job="acq")
    print("python/release_and_acquire %.15g" % (cost_with_loop(again) - loop))
    tlock.release()


main()
