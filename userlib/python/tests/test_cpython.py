#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""CPython's own tests of locks, from Debian's libpython3.N-testsuite.

They run with a TimeoutLock as the lock, and with threading's classes built on
one. The tests of recursive locks do not apply.

A test set to None here is left out, for the reason above it.
"""
import threading
import unittest

import ktap  # first: finds this tree's package
from tlock import TimeoutLock
from helper import TestCase
from test import lock_tests  # type: ignore


def make_lock():
    """A lock like threading's: acquire() waits for as long as it takes"""
    # With a path, as all of them are meant to be the same lock
    return TimeoutLock(default_timeout=-1, path="tlock")


class Condition(threading.Condition):
    def __init__(self):
        super().__init__(make_lock())


class Event(threading.Event):
    def __init__(self):
        super().__init__()
        self._cond = Condition()


class Semaphore(threading.Semaphore):
    def __init__(self, value=1):
        super().__init__(value)
        self._cond = Condition()


class BoundedSemaphore(threading.BoundedSemaphore):
    def __init__(self, value=1):
        super().__init__(value)
        self._cond = Condition()


class Barrier(threading.Barrier):
    def __init__(self, parties, action=None, timeout=None):
        super().__init__(parties, action, timeout)
        self._cond = Condition()


class FreeLock(TestCase):
    """helper.TestCase's checks, around what CPython does"""

    def setUp(self):
        super().setUp()
        super(TestCase, self).setUp()

    def assertTimeout(self, actual, expected):
        # An emulated machine may be later than CPython allows
        self.assertGreaterEqual(actual, expected * 0.6)


class LockTests(FreeLock, lock_tests.LockTests):
    locktype = staticmethod(make_lock)
    # The text differs: it has the path and the holder
    test_repr = None
    test_locked_repr = None
    # A thread that would wait for itself for ever gets a RuntimeError
    test_reacquire = None
    # The second argument is the job, and no timeout is too long
    test_timeout = None
    # A method of threading's own, for what fork() does to its locks
    test_at_fork_reinit = None


class EventTests(FreeLock, lock_tests.EventTests):
    eventtype = Event
    # A thread that a busy host starts late runs out of time
    test_set_and_clear = None
    # As above
    test_at_fork_reinit = None


class ConditionTests(FreeLock, lock_tests.ConditionTests):
    condtype = Condition
    # It uses an RLock, which may be acquired again, and a threading.Lock
    test_acquire = None


class SemaphoreTests(FreeLock, lock_tests.SemaphoreTests):
    semtype = Semaphore


class BoundedSemaphoreTests(FreeLock, lock_tests.BoundedSemaphoreTests):
    semtype = BoundedSemaphore


class BarrierTests(FreeLock, lock_tests.BarrierTests):
    barriertype = Barrier
    defaultTimeout = 10.0
    # A thread that a busy host starts late runs out of time
    test_default_timeout = None


class LeftOut(unittest.TestCase):
    def test_is_in_the_suite(self):
        """A test that CPython renamed or dropped must not stay listed here."""
        for tests in (LockTests, EventTests, ConditionTests, SemaphoreTests,
                      BoundedSemaphoreTests, BarrierTests):
            for name, value in vars(tests).items():
                if value is None and not name.startswith("__"):
                    self.assertTrue(callable(getattr(super(FreeLock, tests),
                                                     name, None)),
                                    "%s.%s" % (tests.__name__, name))


if __name__ == "__main__":
    ktap.main()
