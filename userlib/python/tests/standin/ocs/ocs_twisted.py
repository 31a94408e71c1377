# SPDX-License-Identifier: GPL-2.0-only
"""A lock for the threads of one process, and something else"""
import contextlib
import threading


class TimeoutLock:
    """A lock like that of OCS, from its description. Acquiring first acquires a
    lock that means "next", then the lock itself, and then releases "next"."""

    def __init__(self, default_timeout=0):
        self.default_timeout = default_timeout
        self.next = threading.Lock()
        self.lock = threading.Lock()
        self.job = None

    def acquire(self, timeout=None, job=None):
        if timeout is None:
            timeout = self.default_timeout
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

    def release_and_acquire(self, timeout=None):
        job = self.job
        self.release()
        return self.acquire(timeout, job)

    @contextlib.contextmanager
    def acquire_timeout(self, timeout=None, job="unnamed"):
        acquired = self.acquire(timeout, job)
        try:
            yield acquired
        finally:
            if acquired:
                self.release()


class Pacemaker:
    """Is not replaced."""
