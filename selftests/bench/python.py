#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""The cost of a lock in Python that nobody else wants, in instructions.

As in uncontended.c: the minimum of many batches, less the cost of the loop.
Figures are named pythonVERSION/WHAT/LOCK, because they differ between versions.
WHAT is "pair" for acquire and release, "with" for an empty with block, and
"again" for release_and_acquire.
"""
import argparse
import contextlib
import ctypes
import fcntl
import os
import sys
import tempfile
import threading
import time

TREE = os.path.dirname(os.path.abspath(__file__)) + "/../.."
sys.path.insert(0, TREE + "/userlib/python")

from tlock import TimeoutLock, _device  # noqa: E402

try:
    import filelock  # type: ignore
except ImportError:  # Debian's package is not installed
    filelock = None

BATCHES = 15
OPS = 50


class OcsDesign:
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


def timeout_lock(lock):
    """What to measure of a lock that has TimeoutLock's methods"""
    def pair():
        lock.acquire(timeout=3, job="acq")
        lock.release()

    def block():
        with lock.acquire_timeout(timeout=3, job="acq"):
            pass

    def again():
        lock.release_and_acquire(timeout=10)

    yield "pair", pair
    yield "with", block
    lock.acquire(job="acq")
    yield "again", again
    lock.release()


def plain_block(lock):
    def block():
        with lock:
            pass

    return block


def thread_lock():
    lock = threading.Lock()

    def pair():
        lock.acquire(timeout=3)
        lock.release()

    yield "pair", pair
    yield "with", plain_block(lock)


def ioctls():
    """Two bare calls of ctypes: the least that a pair can cost"""
    fd = os.open(_device.DEFAULT_PATH, os.O_RDWR)
    argument = ctypes.byref(_device.AcquireStruct(timeout_ns=3 * 10**9,
                                                  job=b"acq"))
    ioctl = ctypes.CDLL(None).ioctl
    ioctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p)

    def pair():
        ioctl(fd, _device.ACQUIRE, argument)
        ioctl(fd, _device.RELEASE, None)

    yield "pair", pair


def flock():
    fd = os.open(tempfile.gettempdir(), os.O_TMPFILE | os.O_RDWR)

    def pair():
        fcntl.flock(fd, fcntl.LOCK_EX)
        fcntl.flock(fd, fcntl.LOCK_UN)

    yield "pair", pair


def empty_contextmanager():
    @contextlib.contextmanager
    def empty():
        yield

    def block():
        with empty():
            pass

    yield "with", block


def file_lock():
    if filelock is not None:
        path = os.path.join(tempfile.mkdtemp(), "lock")
        yield "with", plain_block(filelock.FileLock(path))


LOCKS = {
    "tlock.TimeoutLock": lambda: timeout_lock(TimeoutLock()),
    "OCS-design": lambda: timeout_lock(OcsDesign()),
    "threading.Lock": thread_lock,
    "ctypes-ioctls": ioctls,
    "fcntl.flock": flock,
    "contextmanager": empty_contextmanager,
    "filelock": file_lock,
}


def cost_with_loop(call):
    least = 10**18
    for _ in range(BATCHES):
        start = time.perf_counter_ns()
        for _ in range(OPS):
            call()
        least = min(least, time.perf_counter_ns() - start)
    return least / OPS


def main():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("locks", nargs="*", metavar="LOCK",
                        help="by default, all of %s" % ", ".join(LOCKS))
    locks = parser.parse_args().locks or LOCKS
    loop = cost_with_loop(lambda: None)
    for name in locks:
        for what, call in LOCKS[name]():
            print("python%d.%d/%s/%s %.15g" % (
                *sys.version_info[:2], what, name,
                cost_with_loop(call) - loop))


main()
