#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""Tasks that are cancelled anywhere, thousands of times.

Tasks of one loop and a second process, which uses the blocking lock, compete.
Whoever holds the lock writes its token into shared memory, which must then be
empty and have no newer token. In the end nothing may be left: no holder, no
waiter, no file, no watch.

TLOCK_CANCELLATIONS is how often to cancel: 100000 takes six minutes in an
emulated guest. TLOCK_SEED repeats a run's choices, though not its timing.
"""
import asyncio
import collections
import mmap
import os
import random
import struct
import subprocess
import sys
import tempfile
import time

import ktap  # first: finds this tree's package
import tlock
from tlock import _event
from tlock.aio import TimeoutLock
from helper import TestCase, environment, states

CANCELLATIONS = int(os.environ.get("TLOCK_CANCELLATIONS") or 2000)
SEED = int(os.environ.get("TLOCK_SEED") or time.time_ns() % 10**6)
TASKS = 6


class Word:
    """Shared memory: the holder's token, or 0, and the newest token"""

    def __init__(self, path):
        with open(path, "r+b") as file:
            self.memory = mmap.mmap(file.fileno(), 16)

    def read(self):
        return struct.unpack("QQ", self.memory[:])

    def enter(self, token):
        now, newest = self.read()
        if now or token < newest:
            raise AssertionError("%d is in, and %d the newest, as %d enters" %
                                 (now, newest, token))
        self.memory[:] = struct.pack("QQ", token, token)

    def leave(self, token):
        now, newest = self.read()
        if (now, newest) != (token, token):
            raise AssertionError("%d is in, and %d the newest, as %d leaves" %
                                 (now, newest, token))
        self.memory[:8] = bytes(8)


def compete(path, seed):
    """Runs in the second process, until its stdin is closed."""
    word = Word(path)
    choose = random.Random(seed)
    lock = tlock.TimeoutLock(path="tlock")
    os.set_blocking(0, False)
    while sys.stdin.buffer.raw.read(1) is None:
        with lock.acquire_timeout(choose.choice([0, 0.002, -1])) as acquired:
            if acquired:
                for _ in range(choose.randrange(3)):
                    word.enter(acquired.token)
                    if choose.random() < 0.3:
                        time.sleep(choose.random() / 500)
                    word.leave(acquired.token)
                    if not acquired.release_and_acquire(
                            choose.choice([0.002, -1])):
                        break
        if choose.random() < 0.2:
            time.sleep(choose.random() / 500)


class Storm(TestCase):
    async def use(self, choose):
        """One acquisition, with an await in each place that has one"""
        timeout = choose.choice([0, 0.001, 0.01, -1, -1, -1])
        if choose.random() < 0.3:
            if await self.lock.acquire(timeout):
                try:
                    await self.inside(choose, self.lock.token)
                finally:
                    self.lock.release()
            return
        async with self.lock.acquire_timeout(timeout) as acquired:
            while acquired:
                await self.inside(choose, acquired.token)
                what = choose.random()
                if what < 0.3:
                    break
                if what < 0.6:
                    await acquired.wanted()
                await acquired.release_and_acquire(
                    choose.choice([0, 0.001, -1, -1]))

    async def inside(self, choose, token):
        self.word.enter(token)
        try:
            for _ in range(choose.randrange(3)):
                await asyncio.sleep(0)
            if choose.random() < 0.1:
                await asyncio.sleep(choose.random() / 500)
        finally:
            self.word.leave(token)

    async def cancel_again_and_again(self, seed, number):
        choose = random.Random(seed)
        while number:
            task = asyncio.ensure_future(self.use(choose))
            for _ in range(choose.randrange(12)):
                await asyncio.sleep(0)
            if choose.random() < 0.5:
                await asyncio.sleep(choose.random() / 200)
            if task.cancel():
                number -= 1
            else:
                self.counts["ended"] += 1
            try:
                await task
            except asyncio.CancelledError:
                pass

    async def cancel_all(self, choose):
        await asyncio.gather(*[
            self.cancel_again_and_again(choose.random(), CANCELLATIONS // TASKS)
            for _ in range(TASKS)])

    def test_cancel_anywhere(self):
        print("# seed %d" % SEED)
        choose = random.Random(SEED)
        self.counts = counts = collections.Counter()
        withdraw = _event.Acquisition._withdraw

        def count(acquisition):
            """Counts in which states a call ended early."""
            for contender in acquisition._claim:
                with open("/proc/self/fdinfo/%d" % contender.fd) as file:
                    counts[file.read().split("tlock-state:\t")[1].split()[0]] += 1
            withdraw(acquisition)

        file = tempfile.NamedTemporaryFile()
        self.addCleanup(file.close)
        os.truncate(file.name, 16)
        self.word = Word(file.name)
        self.lock = TimeoutLock(path="tlock")
        files = len(os.listdir("/proc/self/fd"))
        other = subprocess.Popen(
            [sys.executable, __file__, "compete", file.name,
             str(choose.random())], stdin=subprocess.PIPE, env=environment())
        self.addCleanup(other.wait)
        self.addCleanup(other.kill)
        before = tlock.status()
        loop = asyncio.SelectorEventLoop()
        watched = len(loop._selector.get_map())
        _event.Acquisition._withdraw = count
        try:
            loop.run_until_complete(self.cancel_all(choose))
        finally:
            _event.Acquisition._withdraw = withdraw
        self.assertEqual(len(loop._selector.get_map()), watched)
        loop.close()
        other.stdin.close()
        self.assertEqual(other.wait(), 0)
        after = tlock.status()
        print("# %d grants; calls that ended by themselves, or were ended in "
              "the state: %s" % (after.acquired - before.acquired,
                                 dict(counts)))
        self.assertEqual(after[:2], (None, 0))
        self.assertEqual(set(states()), {"idle"})
        self.assertEqual(self.word.read()[0], 0)
        self.assertLessEqual(len(os.listdir("/proc/self/fd")), files + 4)
        # Calls were ended while they waited, and when they had been granted
        # the lock; and others were not
        for state in "waiting", "decided", "ended":
            self.assertGreater(counts[state], 0, state)


if __name__ == "__main__":
    if sys.argv[1:2] == ["compete"]:
        compete(*sys.argv[2:])
    else:
        if CANCELLATIONS > 10000:
            ktap.LIMIT = 4 * 3600
        ktap.main()
