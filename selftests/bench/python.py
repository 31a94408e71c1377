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
# The stand-in for OCS there has a lock of the same design as OCS's
sys.path.append(TREE + "/userlib/python/tests/standin")

from ocs.ocs_twisted import TimeoutLock as OcsDesign  # type: ignore # noqa: E402
from tlock import TimeoutLock, _device  # noqa: E402

try:
    import filelock  # type: ignore
except ImportError:  # Debian's package is not installed
    filelock = None

BATCHES = 15
OPS = 50


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
