# SPDX-License-Identifier: GPL-2.0-only
"""agent.py TEST [COMMAND]: what an agent in Python does, for versions.sh, which
runs it with the package of one version on the module of another."""
import asyncio
import errno
import subprocess
import sys
import threading
import time

import tlock
from tlock import TimeoutLock, aio

LOCK = "/dev/tlock"


def expect(condition):
    if not condition:
        raise AssertionError("status: %r" % (tlock.status(),))


def refused(number, attempt):
    """The module does not know what attempt() asks for, and the error says so"""
    try:
        attempt()
    except OSError as error:
        with open("/sys/module/tlock/version") as file:
            version = file.readline().strip()
        text = str(error)
        print(text)
        expect(error.errno == number)
        expect("version %s," % version in text and ": install" in text)
    else:
        raise AssertionError("not refused")


def wait_until(condition):
    end = time.monotonic() + 60
    while not condition():
        expect(time.monotonic() < end)
        time.sleep(0.01)


def waits():
    """Acquire, timeout, job, release-and-reacquire, status"""
    lock = TimeoutLock(path=LOCK)
    other = TimeoutLock(path=LOCK)

    def take_turn():
        with other.acquire_timeout(timeout=60, job="turn") as acquired:
            expect(acquired)

    with lock.acquire_timeout(timeout=1, job="held") as acquired:
        expect(acquired and not acquired.abandoned)
        expect(tlock.status().holder.token == acquired.token)
        expect(tlock.status().holder.job == "held")
        expect(not other.acquire(timeout=0.05, job="late"))
        expect(other.job == "held")
        expect(lock.release_and_acquire(timeout=60))
        token = acquired.token
        thread = threading.Thread(target=take_turn)
        thread.start()
        wait_until(lambda: tlock.status().waiters == 1)
        expect(lock.release_and_acquire(timeout=60))
        expect(acquired.token == token + 2)
        thread.join()


async def turns():
    lock = aio.TimeoutLock(path=LOCK)
    other = aio.TimeoutLock(path=LOCK)

    async def take_turn():
        async with other.acquire_timeout(timeout=60, job="turn") as acquired:
            expect(acquired)
            expect([waiter.job for waiter in tlock.waiters()] == ["held"])

    async with lock.acquire_timeout(timeout=1, job="held") as acquired:
        expect(acquired)
        expect(not await other.acquire(timeout=0.05, job="late"))
        expect(other.job == "held")
        task = asyncio.ensure_future(take_turn())
        await acquired.wanted()
        expect([waiter.job for waiter in tlock.waiters()] == ["turn"])
        expect(await acquired.release_and_acquire(timeout=60))
        await task
        # A wait that is canceled leaves nothing behind
        task = asyncio.ensure_future(other.acquire(timeout=60, job="late"))
        await acquired.wanted()
        task.cancel()
        await asyncio.wait([task])
        expect(tlock.status().waiters == 0)


def events():
    """Event loops, those who wait, and what happens"""
    with tlock.Monitor() as monitor:
        asyncio.run(turns())
        kinds = [next(monitor).kind for _ in range(6)]
    print(kinds)
    expect(kinds == ["acquired", "waiting", "timed-out", "waiting", "yielded",
                     "waiting"])


def loses(command):
    """Loses the lock by a command. The package need not know what that is."""
    lock = TimeoutLock(path=LOCK)
    other = TimeoutLock(path=LOCK)
    expect(lock.acquire(timeout=1, job="hung"))
    subprocess.run(command, shell=True, check=True)
    expect(other.acquire(timeout=1, job="next"))
    try:
        lock.release_and_acquire(timeout=60)
    except (OSError, RuntimeError) as error:
        print(error)
    else:
        raise AssertionError("still holds the lock")
    other.release()
    expect(lock.acquire(timeout=1, job="again"))
    lock.release()


async def lease():
    lock = aio.TimeoutLock(path=LOCK)
    async with lock.acquire_timeout(timeout=1, lease=30):
        pass


async def renewal(value):
    lock = aio.TimeoutLock(path=LOCK)
    async with lock.acquire_timeout(timeout=1) as acquired:
        try:
            acquired.renew(lease=value)
        finally:
            expect(acquired and acquired.token == tlock.status().holder.token)


def without_leases():
    """The module knows neither leases nor revocation"""
    lock = TimeoutLock(path=LOCK)
    refused(errno.EINVAL, lambda: lock.acquire(timeout=1, lease=30))
    refused(errno.EINVAL, lambda: asyncio.run(lease()))
    expect(tlock.status().holder is None)
    # What a holder asks for in vain changes nothing
    for value in None, 30:
        # pylint: disable=cell-var-from-loop
        refused(errno.EINVAL, lambda: asyncio.run(renewal(value)))
        with lock.acquire_timeout(timeout=1, job="held") as acquired:
            refused(errno.EINVAL, lambda: lock.renew(lease=value))
            refused(errno.ENOTTY, lambda: tlock.revoke(acquired.token))
            expect(acquired and acquired.token == tlock.status().holder.token)
            expect(lock.release_and_acquire(timeout=1))


async def acquire():
    lock = aio.TimeoutLock(path=LOCK)
    await lock.acquire(timeout=1)


def without_events():
    """The module knows neither requests for event loops nor watching"""
    refused(errno.EINVAL, lambda: asyncio.run(acquire()))
    refused(errno.ENOTTY, tlock.waiters)
    refused(errno.ENOTTY, tlock.Monitor)


TESTS = {"waits": waits, "events": events, "loses": loses,
         "without_leases": without_leases, "without_events": without_events}

TESTS[sys.argv[1]](*sys.argv[2:])
# Nothing is held afterwards
expect(tlock.status().holder is None)
