# SPDX-License-Identifier: GPL-2.0-only
"""A lock for the threads of one process, and something else"""
import contextlib
import threading


class TimeoutLock:
    """Has the methods of the one in OCS, and not more."""

    def __init__(self, default_timeout=0):
        self.job = None
        self._lock = threading.Lock()
        self._default_timeout = default_timeout

    def acquire(self, timeout=None, job=None):
        if timeout is None:
            timeout = self._default_timeout
        acquired = self._lock.acquire(timeout != 0, timeout or -1)
        if acquired:
            self.job = job
        return acquired

    def release(self):
        self.job = None
        self._lock.release()

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
