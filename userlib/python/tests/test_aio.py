#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""tlock.aio: the lock in asyncio programs.

test_storm.py cancels at random; the races here are made one by one.
"""
import asyncio
import copy
import ctypes
import functools
import gc
import inspect
import math
import os
import pickle
import resource
import selectors
import signal
import subprocess
import sys
import threading
import time
import unittest
import warnings
import weakref
from unittest import mock

import ktap  # first: finds this tree's package
import tlock
from tlock import _event, aio
from tlock.aio import TimeoutLock
from helper import LONG, Call, LoopTestCase, environment


def run(coroutine, selector=None):
    """Runs a coroutine in a new loop, which must watch no file afterwards."""
    loop = asyncio.SelectorEventLoop(selector)
    try:
        before = len(loop._selector.get_map())
        result = loop.run_until_complete(coroutine)
        watched = len(loop._selector.get_map()) - before
        assert watched == 0, "%d files are still watched" % watched
        return result
    finally:
        loop.close()


def in_loop(test):
    """Makes a test of a coroutine."""
    @functools.wraps(test)
    def method(self):
        run(asyncio.wait_for(test(self), 4 * LONG))
    return method


def start(coroutine):
    return asyncio.ensure_future(coroutine)


async def turns(number=5):
    """Lets the other tasks run."""
    for _ in range(number):
        await asyncio.sleep(0)


def contenders():
    """How many files of the lock this process has"""
    return len([name for name in os.listdir("/proc/self/fd")
                if os.path.exists("/proc/self/fd/" + name)
                and os.readlink("/proc/self/fd/" + name) == "/dev/tlock"])


class AioTestCase(LoopTestCase):
    sleep = staticmethod(asyncio.sleep)

    def setUp(self):
        super().setUp()
        self.lock = TimeoutLock(path="tlock")
        # The test's object lives on, and would keep the file
        self.addCleanup(vars(self).pop, "lock", None)

    def assert_works(self):
        """Asserts that the lock is free, and that the object can take it."""
        self.assert_free()
        self.assertEqual(tlock.status().waiters, 0)
        self.assert_idle()

        async def use():
            async with self.lock.acquire_timeout(0) as acquired:
                self.assertTrue(acquired)
        asyncio.new_event_loop().run_until_complete(use())


class OnChannel(TimeoutLock):
    """A subclass whose constructor has other arguments"""

    def __init__(self, channel):
        super().__init__(path="tlock")
        self.channel = channel


class AsBlocking(AioTestCase):
    """What is the same as in tlock.TimeoutLock"""

    def test_names_arguments_and_defaults(self):
        def arguments(function):
            return [(p.name, p.default, p.kind) for p in
                    inspect.signature(function).parameters.values()]

        blocking = tlock.TimeoutLock
        for one, other in ((blocking, TimeoutLock),
                           (tlock.Acquisition, aio.Acquisition)):
            for name in vars(one):
                # A task is cancelled by itself
                if name.startswith("_") or name == "cancel":
                    continue
                self.assertTrue(hasattr(other, name) or
                                name in other.__annotations__, name)
                value = getattr(one, name, None)
                if inspect.isfunction(value):
                    self.assertEqual(arguments(value),
                                     arguments(getattr(other, name)), name)
        self.assertEqual(arguments(blocking), arguments(TimeoutLock))

    @in_loop
    async def test_take_and_give_back(self):
        lock = self.lock
        self.assertIsNone(lock.job)
        self.assertFalse(lock.locked())
        self.assertIs(await lock.acquire(job="acq"), True)
        self.assertEqual(lock.job, "acq")
        self.assertEqual(lock.status().holder.job, "acq")
        self.assertEqual(lock.token, tlock.status().holder.token)
        self.assertTrue(lock.locked())
        self.assertIs(await lock.release_and_acquire(), True)
        self.assertIsNone(lock.release())
        async with lock.acquire_timeout() as acquired:
            self.assertIs(bool(acquired), True)
            self.assertEqual(lock.job, "unnamed")
            self.assertEqual(acquired.token, lock.token)
            self.assertEqual(lock.holder.pid, os.getpid())
        self.assertFalse(acquired)
        self.assert_free()

    @in_loop
    async def test_refused(self):
        other = self.agent()
        other.do("lock.acquire(0, 'other')")
        for lock in self.lock, TimeoutLock(None, path="tlock"):
            self.assertIs(await lock.acquire(), False)
            self.assertEqual(lock.blocker.pid, other.pid)
            async with lock.acquire_timeout() as acquired:
                self.assertIs(bool(acquired), False)
                self.assertEqual(acquired.blocker.job, "other")
                other.do("lock.release()")
                # Until the end of the block
                self.assertEqual([lock.job, lock.job], ["other"] * 2)
                with self.assertRaises(RuntimeError):
                    acquired.release()
            self.assertIsNone(lock.job)
            other.do("lock.acquire(0, 'other')")
        other.do("lock.release()")
        self.assertTrue(await self.lock.acquire(0))
        self.assertIsNone(self.lock.blocker)
        self.lock.release()

    @in_loop
    async def test_job_after_a_failure_is_for_one_look(self):
        other = self.agent()
        other.do("lock.acquire(0, 'other')")
        self.assertFalse(await self.lock.acquire(0.01))
        other.do("lock.release()")
        self.assertEqual([self.lock.job, self.lock.job], ["other", None])

    @in_loop
    async def test_timeouts_are_exact(self):
        other = self.agent()
        other.do("lock.acquire(0, 'other')")
        lock = TimeoutLock(0.2, path="tlock")
        for wait, least in ((lock.acquire(), 0.2), (lock.acquire(0), 0),
                            (lock.acquire(0.05), 0.05),
                            (lock.acquire_timeout().__aenter__(), 0.2)):
            begin = time.monotonic()
            self.assertFalse(await wait)
            elapsed = time.monotonic() - begin
            self.assertGreaterEqual(elapsed, least)
            self.assertLess(elapsed, least + 1)
        self.assertEqual(tlock.status().waiters, 0)

    @in_loop
    async def test_bad_timeouts(self):
        for bad in math.nan, -0.5, -2, -math.inf, "psu":
            error = TypeError if bad == "psu" else ValueError
            with self.assertRaises(error):
                TimeoutLock(default_timeout=bad)
            with self.assertRaises(error):
                await self.lock.acquire(bad)
            async with self.lock.acquire_timeout() as acquired:
                for call in (self.lock.release_and_acquire,
                             acquired.release_and_acquire):
                    with self.assertRaises(error):
                        await call(bad)
                self.assert_job("unnamed")
        self.assert_free()

    @in_loop
    async def test_blocking_or_not(self):
        """As for a threading.Lock"""
        with self.assertRaisesRegex(ValueError, "mutually exclusive"):
            self.lock.acquire(0, blocking=True)
        for tries in ({"blocking": False}, {"timeout": False},
                      {"blocking": True}, {"timeout": True}):
            self.assertTrue(await self.lock.acquire(**tries))
            # Another task, as one task would wait for itself
            task = start(self.waits(tries))
            if True in tries.values():
                await self.until_waiters(1)
                await asyncio.sleep(1.1)
                self.assertFalse(task.done())
                self.lock.release()
                self.assertTrue(await task)
            else:
                self.assertFalse(await task)
            self.lock.release()

    async def waits(self, arguments):
        return await self.lock.acquire(**arguments)

    @in_loop
    async def test_very_long_timeouts(self):
        for timeout in 2**63 / 1e9, math.inf, 10**18, -1:
            async with self.lock.acquire_timeout(0):
                task = start(self.use(timeout))
                await self.until_waiters(1)
            await task

    async def use(self, timeout=LONG):
        async with self.lock.acquire_timeout(timeout) as acquired:
            self.assertTrue(acquired)

    @in_loop
    async def test_jobs(self):
        for job, shown in ((None, ""), (b"\xff", "?"), ("a\nb", "a?b"),
                           ("x" * 64, "x" * 60 + "\u2026"), (7, "7")):
            async with self.lock.acquire_timeout(0, job=job):
                self.assertEqual(self.lock.job, shown)

    @in_loop
    async def test_released_after_an_exception(self):
        with self.assertRaises(KeyError):
            async with self.lock.acquire_timeout():
                raise KeyError
        self.assert_free()

    @in_loop
    async def test_abandoned(self):
        other = self.agent()
        other.do("lock.acquire(0)")
        task = start(self.lock.acquire(-1))
        await self.until_waiters(1)
        other.kill()
        await task
        self.assertIs(self.lock.abandoned, True)
        await self.lock.release_and_acquire()
        self.assertIs(self.lock.abandoned, False)
        self.lock.release()

    @in_loop
    async def test_async_with_lock(self):
        lock = TimeoutLock(0.05, path="tlock")
        async with lock as acquired:
            self.assertTrue(acquired)
            with self.assertRaisesRegex(TimeoutError, "held by job 'unnamed'"):
                async with lock:
                    self.fail("the block runs")
            self.assert_job("unnamed")
        self.assert_free()
        with self.assertRaises(KeyError):
            async with lock:
                raise KeyError
        self.assert_free()

    @in_loop
    async def test_context_manager_may_be_used_again(self):
        block = self.lock.acquire_timeout(0)
        for _ in range(2):
            async with block as acquired:
                self.assertTrue(acquired)
                with self.assertRaises(RuntimeError):
                    await block.__aenter__()
                self.assert_job("unnamed")
            self.assert_free()

    @in_loop
    async def test_copies_and_pickles_are_the_same_lock(self):
        lock = TimeoutLock(0.25, path="tlock")
        async with lock.acquire_timeout(0, "original"):
            for other in copy.copy(lock), pickle.loads(pickle.dumps(lock)):
                self.assertIs(type(other), TimeoutLock)
                begin = time.monotonic()
                self.assertFalse(await other.acquire())
                self.assertGreaterEqual(time.monotonic() - begin, 0.25)
                self.assertEqual(other.job, "original")

    def test_copies_of_subclasses(self):
        lock = OnChannel(3)
        for other in copy.copy(lock), pickle.loads(pickle.dumps(lock)):
            self.assertIs(type(other), OnChannel)
            self.assertEqual(other.path, "/dev/tlock")
            self.assertTrue(run(other.acquire(0)))
            other.release()

    @in_loop
    async def test_repr(self):
        self.assertEqual(repr(self.lock),
                         "<tlock.aio.TimeoutLock /dev/tlock: free>")
        async with self.lock.acquire_timeout(0, "\u03bb") as acquired:
            self.assertIn("job '\u03bb': holds the lock", repr(acquired))
            self.assertIn("held by job '\u03bb'", repr(self.lock))
            async with self.lock.acquire_timeout(0) as refused:
                self.assertIn("could not be acquired: held by job '\u03bb' of "
                              "pid", repr(refused))
        self.assertIn("does not hold", repr(acquired))

    def test_two_objects_without_a_path(self):
        def found(program):
            done = subprocess.run(
                [sys.executable, "-c", program], env=environment(),
                stderr=subprocess.PIPE, universal_newlines=True)
            self.assertEqual(done.returncode, 0, done.stderr)
            return done.stderr

        head = "from tlock import aio\nimport tlock\na = aio.TimeoutLock()\n"
        for other in "aio", "tlock":
            text = found(head + "b = %s.TimeoutLock()  # here\n" % other)
            self.assertEqual(text.count("RuntimeWarning"), 1)
        text = found(head + "def f():\n  return aio.TimeoutLock()\n"
                     "import warnings; warnings.simplefilter('always')\n"
                     "warnings.showwarning = lambda m, c, f, n, *_: "
                     "print('line', n, file=__import__('sys').stderr)\nf()\n")
        self.assertEqual(text, "line 5\n")
        self.assertEqual(found(head + "b = aio.TimeoutLock(path='tlock')"), "")

    def test_missing_lock(self):
        with self.assertRaises(FileNotFoundError):
            TimeoutLock(path="stage")


class Waiting(AioTestCase):
    @in_loop
    async def test_other_tasks_run_meanwhile(self):
        other = self.agent()
        other.do("lock.acquire(0)")
        task = start(self.lock.acquire(-1))
        await self.until_waiters(1)
        for _ in range(20):
            await asyncio.sleep(0.001)
        self.assertFalse(task.done())
        # And the processor rests
        used = time.process_time()
        await asyncio.sleep(1)
        self.assertLess(time.process_time() - used, 0.5)
        other.do("lock.release()")
        self.assertTrue(await task)
        self.lock.release()

    @in_loop
    async def test_1000_tasks_in_order(self):
        number = 1000
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, limits)
        resource.setrlimit(resource.RLIMIT_NOFILE, (number + 100, limits[1]))
        order = []
        before = contenders()

        async def take(which):
            async with self.lock.acquire_timeout(
                    -1 if which % 2 else 10 * LONG, which) as acquired:
                order.append((which, bool(acquired), self.lock.job))
                await asyncio.sleep(0)

        async with self.lock.acquire_timeout(0):
            tasks = [start(take(which)) for which in range(number)]
            await self.until_waiters(number)
        await asyncio.gather(*tasks)
        self.assertEqual(order, [(which, True, str(which))
                                 for which in range(number)])
        self.assertLessEqual(contenders(), before + 4)

    @in_loop
    async def test_order_among_processes(self):
        x, y = self.agent(), self.agent()
        order = []

        async def take(which):
            async with self.lock.acquire_timeout(-1):
                order.append((which, time.monotonic()))
        holds = ("lock.acquire(-1) and [time.monotonic(), time.sleep(0.05), "
                 "lock.release()][0]")
        async with self.lock.acquire_timeout(0):
            first = start(take("first"))
            await self.until_waiters(1)
            x.begin(holds)
            await self.until_waiters(2)
            second = start(take("second"))
            await self.until_waiters(3)
            y.begin(holds)
            await self.until_waiters(4)
        await first
        await second
        order += [("x", x.result()), ("y", y.result())]
        self.assertEqual([who for who, _ in sorted(order, key=lambda o: o[1])],
                         ["first", "x", "second", "y"])

    @in_loop
    async def test_release_and_acquire_lets_all_waiters_in(self):
        order = []

        async def take(which):
            async with self.lock.acquire_timeout(-1, which):
                order.append(which)

        async with self.lock.acquire_timeout(0, "acq") as acquired:
            token = acquired.token
            self.assertTrue(await self.lock.release_and_acquire())
            self.assertEqual(acquired.token, token)
            tasks = [start(take("a")), start(take("b"))]
            await self.until_waiters(2)
            self.assertTrue(await acquired.release_and_acquire(LONG))
            self.assertEqual(order, ["a", "b"])
            self.assertGreater(acquired.token, token)
            self.assert_job("acq")
        await asyncio.gather(*tasks)

    @in_loop
    async def test_lost_and_taken_back(self):
        other = self.agent()
        async with self.lock.acquire_timeout(0, "acq") as acquired:
            other.begin("lock.acquire(-1, 'other')")
            await self.until_waiters(1)
            self.assertIs(await self.lock.release_and_acquire(0.1), False)
            other.result()
            self.assertFalse(acquired)
            self.assertEqual(self.lock.job, "other")
            with self.assertRaises(RuntimeError):
                self.lock.release()
            self.assertFalse(await self.lock.release_and_acquire(0))
            other.do("lock.release()")
            self.assertTrue(await self.lock.release_and_acquire(0))
            self.assertIsNone(acquired.blocker)
            self.assert_job("acq")
        self.assert_free()

    def test_selectors(self):
        async def work():
            async with self.lock.acquire_timeout(0) as acquired:
                wanted = start(acquired.wanted())
                await turns()
                task = start(self.lock.acquire(LONG))
                await wanted
                acquired.release()
            self.assertTrue(await task)
            refused = start(self.lock.acquire(0.05))
            self.assertFalse(await refused)
            self.lock.release()

        for kind in (selectors.SelectSelector, selectors.PollSelector,
                     selectors.EpollSelector):
            run(work(), kind())
            self.assert_works()

    def test_loop_that_cannot_watch_files(self):
        class Loop(asyncio.SelectorEventLoop):
            def add_writer(self, *_):
                raise NotImplementedError

        other = self.agent()
        other.do("lock.acquire(0)")
        loop = Loop()
        self.assertFalse(loop.run_until_complete(self.lock.acquire(0)))
        with self.assertRaises(NotImplementedError):
            loop.run_until_complete(self.lock.acquire(-1))
        self.assertEqual(tlock.status().waiters, 0)
        other.do("lock.release()")
        self.assert_works()
        loop.close()

    @in_loop
    async def test_limit_of_files(self):
        async with self.lock.acquire_timeout(0):
            limits = resource.getrlimit(resource.RLIMIT_NOFILE)
            self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, limits)
            highest = max(int(name) for name in os.listdir("/proc/self/fd"))
            resource.setrlimit(resource.RLIMIT_NOFILE,
                               (highest + 10, limits[1]))
            tasks = [start(self.lock.acquire(0.3)) for _ in range(30)]
            results = await asyncio.gather(*tasks, return_exceptions=True)
            self.assertEqual(set(map(type, results)), {bool, OSError})
        self.addCleanup(self.assert_works)


class Wanted(AioTestCase):
    async def check_wanted(self, wait):
        """wait() waits until somebody wants the lock."""
        other = self.agent()
        task = start(wait())
        await asyncio.sleep(0.05)
        self.assertFalse(task.done())
        other.begin("lock.acquire(-1)")
        self.assertIsNone(await task)
        # At once, while somebody waits
        self.assertIsNone(await wait())
        self.assertTrue(await self.lock.release_and_acquire(0.01) or
                        other.result())
        other.do("lock.release()")

    @in_loop
    async def test_another_process_wants_it(self):
        async with self.lock.acquire_timeout(0):
            await self.check_wanted(self.lock.wanted)
        async with self.lock.acquire_timeout(0) as acquired:
            await self.check_wanted(acquired.wanted)

    @in_loop
    async def test_again_and_again(self):
        """An agent that lets others in when they want it, and only then"""
        rounds = 20
        async with self.lock.acquire_timeout(0) as acquired:
            other = self.agent()
            other.begin("[lock.acquire(-1) and lock.release() for _ in range(%d)]"
                        % rounds)
            token = acquired.token
            for _ in range(rounds):
                await acquired.wanted()
                self.assertTrue(await acquired.release_and_acquire(LONG))
                self.assertEqual(acquired.token, token + 2)
                token = acquired.token
            with self.assertRaises(asyncio.TimeoutError):
                await asyncio.wait_for(acquired.wanted(), 0.05)
            other.result()

    @in_loop
    async def test_rests_while_somebody_waits(self):
        """A watch that has done its work must not keep the loop busy."""
        async with self.lock.acquire_timeout(0):
            watcher = start(self.lock.wanted())
            await turns()
            task = start(self.lock.acquire(-1))
            await watcher
            used = time.process_time()
            await asyncio.sleep(1)
            self.assertLess(time.process_time() - used, 0.5)
        await task
        # This task acquired it: see TimeoutLock
        self.lock.release()

    @in_loop
    async def test_several_watchers(self):
        async with self.lock.acquire_timeout(0) as acquired:
            tasks = [start(acquired.wanted()) for _ in range(3)]
            await turns()
            tasks[0].cancel()
            await turns()
            self.assertEqual([task.done() for task in tasks],
                             [True, False, False])
            other = start(self.lock.acquire(LONG))
            await asyncio.gather(*tasks[1:])
        await other
        self.lock.release()

    @in_loop
    async def test_watcher_of_a_lock_that_is_released(self):
        async with self.lock.acquire_timeout(0) as acquired:
            for end in acquired.release, self.lock.release:
                task = start(acquired.wanted())
                await turns()
                end()
                with self.assertRaises(RuntimeError):
                    await task
                with self.assertRaises(RuntimeError):
                    await acquired.wanted()
                # The file is used again, and not watched
                self.assertTrue(await self.lock.acquire(0))
        with self.assertRaises(RuntimeError):
            await self.lock.wanted()

    @in_loop
    async def test_watcher_of_a_lock_that_is_lost(self):
        other = self.agent()
        async with self.lock.acquire_timeout(0) as acquired:
            other.begin("lock.acquire(-1)")
            await self.until_waiters(1)
            with mock.patch.object(_event.Acquisition, "_is_wanted",
                                   lambda _: False):
                task = start(acquired.wanted())
                await turns()
                self.assertFalse(await acquired.release_and_acquire(0.05))
            other.result()
            with self.assertRaises(RuntimeError):
                await task
        other.do("lock.release()")

    @in_loop
    async def test_watcher_during_release_and_acquire(self):
        """It learns of those who come once the lock is back."""
        async with self.lock.acquire_timeout(0) as acquired:
            other = self.agent()
            other.begin("lock.acquire(-1)")
            await self.until_waiters(1)
            with mock.patch.object(_event.Acquisition, "_is_wanted",
                                   lambda _: False):
                task = start(acquired.wanted())
                await turns()
                again = start(acquired.release_and_acquire(LONG))
                await turns()
                other.result()
            other.do("lock.release()")
            self.assertTrue(await again)
            await asyncio.sleep(0.05)
            self.assertFalse(task.done())
            other.begin("lock.acquire(-1)")
            await task
        other.result()
        other.do("lock.release()")

    @in_loop
    async def test_watcher_of_a_lock_that_a_thread_releases(self):
        async with self.lock.acquire_timeout(0) as acquired:
            task = start(acquired.wanted())
            await turns()
            threads = []
            stop = aio._Watch.stop

            def note(watch, error):
                threads.append(threading.get_ident())
                stop(watch, error)

            contender = acquired._claim[0]
            with mock.patch.object(aio._Watch, "stop", note):
                Call(acquired.release).result()
                # The file is still watched, and so not used again
                self.assertNotIn(contender, self.lock._idle)
                with self.assertRaises(RuntimeError):
                    await task
            self.assertEqual(threads, [threading.get_ident()])
        self.assert_free()


class Cancelling(AioTestCase):
    def setUp(self):
        super().setUp()
        self.other = self.agent()
        self.other.do("lock.acquire(0, 'other')")

    async def cancelled(self, task):
        task.cancel()
        with self.assertRaises(asyncio.CancelledError):
            await task

    async def enter(self, timeout=-1):
        async with self.lock.acquire_timeout(timeout):
            self.fail("the block runs")

    def waits(self):
        """The calls that wait for the lock"""
        return self.lock.acquire, self.enter

    @in_loop
    async def test_while_it_waits(self):
        for wait in self.waits():
            task = start(wait(-1))
            await self.until_waiters(1)
            await self.cancelled(task)
            self.assertEqual(tlock.status().waiters, 0)
            self.assert_idle()
        self.assert_job("other")
        self.other.do("lock.release()")
        self.addCleanup(self.assert_works)

    @in_loop
    async def test_before_it_begins(self):
        for wait in self.waits():
            await self.cancelled(start(wait(-1)))
            self.assertEqual(tlock.status().waiters, 0)

    @in_loop
    async def test_granted_and_not_fetched(self):
        for wait in self.waits():
            task = start(wait(-1))
            await self.until_waiters(1)
            # The loop does not run until the task is cancelled
            self.other.do("lock.release()")
            self.granted_to_us()
            await self.cancelled(task)
            self.assert_free()
            self.other.do("lock.acquire(0, 'other')")

    @in_loop
    async def test_granted_and_passed_on(self):
        next_one = self.agent()
        task = start(self.lock.acquire(-1))
        await self.until_waiters(1)
        next_one.begin("lock.acquire(-1)")
        await self.until_waiters(2)
        self.other.do("lock.release()")
        self.granted_to_us()
        await self.cancelled(task)
        self.assertTrue(next_one.result())
        next_one.do("lock.release()")

    @in_loop
    async def test_fetched_and_not_returned(self):
        """The task is cancelled before it runs again."""
        fetch = aio._Decision.__call__
        for wait in self.waits():
            for outcome in True, False:
                task = start(wait(-1 if outcome else 0.05))

                def fetch_and_cancel(decision, task=task):
                    fetch(decision)
                    self.assertTrue(decision.future.done())
                    task.cancel()

                with mock.patch.object(aio._Decision, "__call__",
                                       fetch_and_cancel):
                    if outcome:
                        await self.until_waiters(1)
                        self.other.do("lock.release()")
                    with self.assertRaises(asyncio.CancelledError):
                        await task
                self.assert_idle()
                if outcome:
                    self.assert_free()
                    self.other.do("lock.acquire(0, 'other')")

    @in_loop
    async def test_fetched_and_its_file_used_again(self):
        """Its end must not end the watch of the next request of the file."""
        fetch = aio._Decision.__call__
        self.lock._idle.clear()
        first = start(self.lock.acquire(0.05))
        others = []

        def fetch_and_cancel(decision):
            fetch(decision)
            if not others:
                self.assertEqual(self.lock._idle, [decision.contender])
                others.append(self.lock.acquire(LONG))
                # Runs it until it waits
                future = others[0].send(None)
                future._asyncio_future_blocking = False
                self.assertEqual(self.lock._idle, [])
                others.append(future)
                first.cancel()

        with mock.patch.object(aio._Decision, "__call__", fetch_and_cancel):
            await self.until_waiters(1)
            with self.assertRaises(asyncio.CancelledError):
                await first
            self.assertEqual(tlock.status().waiters, 1)
            self.other.do("lock.release()")
            self.assertTrue(await others[1])
        with self.assertRaises(StopIteration) as caught:
            others[0].send(None)
        self.assertTrue(caught.exception.value)
        self.lock.release()

    @in_loop
    async def test_late_event_for_a_file_that_is_used_again(self):
        decisions = []
        make = aio._Decision.__init__

        def note(decision, *args):
            make(decision, *args)
            decisions.append(decision)

        with mock.patch.object(aio._Decision, "__init__", note):
            first = start(self.lock.acquire(-1))
            await self.until_waiters(1)
            await self.cancelled(first)
            second = start(self.lock.acquire(-1))
            await self.until_waiters(1)
        late, valid = decisions
        self.assertIs(late.contender, valid.contender)
        # As if the event had come just before the cancellation
        late.future = asyncio.get_running_loop().create_future()
        self.other.do("lock.release()")
        self.granted_to_us()
        late()
        self.assertFalse(late.future.done())
        late.future.cancel()
        self.assertTrue(await second)
        self.lock.release()

    @in_loop
    async def test_release_and_acquire(self):
        self.other.do("lock.release()")
        for fetched in None, False, True:
            async with self.lock.acquire_timeout(0, "acq") as acquired:
                self.other.begin("lock.acquire(-1, 'other')")
                await self.until_waiters(1)
                task = start(self.lock.release_and_acquire(-1))
                await turns()
                self.assertTrue(self.other.result())
                if fetched is None:
                    await self.cancelled(task)
                    self.assert_job("other")
                    self.other.do("lock.release()")
                else:
                    self.other.do("lock.release()")
                    self.granted_to_us()
                    if fetched:
                        await self.fetch(task)
                    await self.cancelled(task)
                self.assert_free()
                # It has lost the lock, and may take it again
                with self.assertRaises(RuntimeError):
                    self.lock.release()
                self.assertTrue(await self.lock.release_and_acquire(0))
                self.assertTrue(acquired)
                self.assert_job("acq")
            self.assert_free()

    async def fetch(self, task):
        """Lets the loop fetch the outcome, but not the task run."""
        fetched = asyncio.get_running_loop().create_future()
        fetch = aio._Decision.__call__

        def wrapped(decision):
            # First in the loop's queue, ahead of the task
            fetched.set_result(None)
            fetch(decision)

        with mock.patch.object(aio._Decision, "__call__", wrapped):
            await fetched
        self.assertFalse(task.done())

    @in_loop
    async def test_in_the_block(self):
        self.other.do("lock.release()")

        async def body():
            async with self.lock.acquire_timeout(0):
                await asyncio.sleep(LONG)

        task = start(body())
        await turns()
        self.assert_job("unnamed")
        await self.cancelled(task)
        self.assert_free()

    @in_loop
    async def test_block_left_during_its_release_and_acquire(self):
        """Another task makes the call, and learns that the block has ended."""
        self.other.do("lock.release()")
        for granted in False, True:
            async with self.lock.acquire_timeout(0, "acq") as acquired:
                self.other.begin("lock.acquire(-1, 'other')")
                await self.until_waiters(1)
                task = start(acquired.release_and_acquire(-1))
                await turns()
                self.assertTrue(self.other.result())
                with self.assertRaisesRegex(RuntimeError, "under way"):
                    await acquired.release_and_acquire(0)
                with self.assertRaises(RuntimeError):
                    acquired.release()
                if granted:
                    self.other.do("lock.release()")
                    self.granted_to_us()
            if granted:
                self.other.do("lock.acquire(0, 'other')")
            # The file is still watched, and so not used again
            following = start(self.lock.acquire(-1))
            with self.assertRaisesRegex(RuntimeError, "has released"):
                await task
            await self.until_waiters(1)
            self.other.do("lock.release()")
            self.assertTrue(await following)
            self.lock.release()
            self.assert_idle()
            with self.assertRaises(RuntimeError):
                await acquired.release_and_acquire(0)

    @in_loop
    async def test_wait_for(self):
        for wait in self.waits():
            with self.assertRaises(asyncio.TimeoutError):
                await asyncio.wait_for(wait(-1), 0.05)
            self.assertEqual(tlock.status().waiters, 0)
        # The workaround with a blocking lock in a thread takes it now
        self.other.do("lock.release()")
        await asyncio.sleep(0.05)
        self.assert_free()
        # It belongs to the task that made the call
        self.assertTrue(await asyncio.wait_for(self.lock.acquire(-1), LONG))
        self.assertTrue(
            await asyncio.wait_for(self.lock.release_and_acquire(), LONG))
        self.lock.release()

    @unittest.skipUnless(hasattr(asyncio, "timeout"), "new in Python 3.11")
    @in_loop
    async def test_timeout(self):
        for wait in self.waits():
            with self.assertRaises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await wait(-1)
            self.assertEqual(tlock.status().waiters, 0)
        # A deadline that has passed when the lock was granted in time
        with self.assertRaises(TimeoutError):
            async with asyncio.timeout(0.1):
                task = start(self.lock.acquire(-1))
                await turns()
                self.other.do("lock.release()")
                self.granted_to_us()
                time.sleep(0.1)
                await task
        self.assert_free()

    @unittest.skipUnless(hasattr(asyncio, "TaskGroup"), "new in Python 3.11")
    @in_loop
    async def test_task_group(self):
        async def fail():
            await self.until_waiters(2)
            raise KeyError

        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(fail())
                for wait in self.waits():
                    group.create_task(wait(-1))
            self.fail("the group succeeds")
        except BaseException as error:
            self.assertEqual([type(one) for one in error.exceptions],
                             [KeyError])
        self.assertEqual(tlock.status().waiters, 0)

    @in_loop
    async def test_shield(self):
        inner = start(self.lock.acquire(-1))
        outer = asyncio.shield(inner)
        await self.until_waiters(1)
        outer.cancel()
        await turns()
        # It goes on, as it was asked to
        self.assertEqual(tlock.status().waiters, 1)
        self.other.do("lock.release()")
        self.assertTrue(await inner)
        self.lock.release()

    @in_loop
    async def test_no_reference_is_left(self):
        task = start(self.lock.acquire(-1))
        await self.until_waiters(1)
        await self.cancelled(task)
        gone = weakref.ref(task)
        del task
        await turns()
        gc.collect()
        self.assertIsNone(gone())


class Ownership(AioTestCase):
    async def lose(self, call, other):
        other.begin("lock.acquire(-1, 'other')")
        await self.until_waiters(1)
        self.assertFalse(await call(0))
        self.assertTrue(other.result())

    @in_loop
    async def test_loser_spares_another_task(self):
        other = self.agent()
        lock = self.lock
        lost, done = asyncio.Event(), asyncio.Event()

        async def loser():
            async with lock.acquire_timeout(0, "loser"):
                await self.lose(lock.release_and_acquire, other)
                lost.set()
                await done.wait()
                with self.assertRaises(RuntimeError):
                    lock.release()
                self.assertFalse(await lock.release_and_acquire(0))
            self.assert_job("winner")

        async def winner():
            await lost.wait()
            other.do("lock.release()")
            async with lock.acquire_timeout(0, "winner") as acquired:
                self.assertTrue(acquired)
                done.set()
                await task
                self.assertTrue(acquired)

        task = start(loser())
        await winner()
        self.assert_free()

    @in_loop
    async def test_another_task_may_release(self):
        async def release():
            self.assertTrue(await self.lock.release_and_acquire())
            self.lock.release()

        self.assertTrue(await self.lock.acquire(0))
        await start(release())
        self.assert_free()
        with self.assertRaises(RuntimeError):
            self.lock.release()
        with self.assertRaises(RuntimeError):
            await self.lock.release_and_acquire()

    @in_loop
    async def test_by_hand_in_a_block(self):
        other = self.agent()
        async with self.lock.acquire_timeout(0, "acq") as acquired:
            self.lock.release()
            self.assert_free()
            self.assertFalse(acquired)
            self.assertTrue(await self.lock.acquire(0, "again"))
            self.assertTrue(acquired)
            self.assert_job("again")
            await self.lose(self.lock.release_and_acquire, other)
            other.do("lock.release()")
            self.assertTrue(await self.lock.acquire(0, "third"))
        self.assert_free()

    @in_loop
    async def test_refused_inner_block(self):
        lock = self.lock
        async with lock.acquire_timeout(0, "outer") as outer:
            async with lock.acquire_timeout(0, "inner") as inner:
                self.assertFalse(inner)
                lock.release()
                self.assertFalse(outer)
                self.assertTrue(await lock.acquire(0, "again"))
                self.assertTrue(outer)
                self.assertFalse(inner)
            self.assert_job("again")
        self.assert_free()

    @in_loop
    async def test_methods_of_an_acquisition_spare_others(self):
        async with self.lock.acquire_timeout(0) as ended:
            pass
        await self.lock.acquire(0, "other")
        for call in ended.release_and_acquire, ended.wanted:
            with self.assertRaises(RuntimeError):
                await call()
        with self.assertRaises(RuntimeError):
            ended.release()
        self.assert_job("other")
        self.lock.release()

    @in_loop
    async def test_waiting_for_oneself(self):
        async with self.lock.acquire_timeout(0, "mine"):
            with self.assertRaisesRegex(RuntimeError, "itself, for job 'mine'"):
                await self.lock.acquire(-1)
            with self.assertRaisesRegex(RuntimeError, "itself, for job 'mine'"):
                async with self.lock.acquire_timeout(-1):
                    self.fail("the block runs")
            self.assertFalse(await self.lock.acquire(0.01))
            # A task that does not wait for it may release the lock
            task = start(self.lock.acquire(-1))
            await self.until_waiters(1)
            self.lock.release()
        self.assertTrue(await task)
        self.lock.release()

    def test_without_a_loop(self):
        for _ in range(2):
            self.assertTrue(run(self.lock.acquire(0, "before")))
            self.assert_job("before")
            self.lock.release()
            self.assert_free()

    @in_loop
    async def test_what_is_over_is_forgotten(self):
        kept = []

        async def use():
            async with self.lock.acquire_timeout(0) as acquired:
                kept.append(weakref.ref(acquired._lock))
            await self.lock.acquire(0)
            self.lock.release()
            self.assertEqual(len(self.lock._own()), 1)

        for _ in range(3):
            await start(use())
        await turns()
        gc.collect()
        self.assertLessEqual(len(self.lock._tasks), 1)

    def test_dropped_object(self):
        lock = TimeoutLock(path="tlock")
        run(lock.acquire(0))
        del lock
        gc.collect()
        self.assert_free()


class BusyLoop(AioTestCase):
    """The loop does something else while its request is decided."""

    @in_loop
    async def test_unfetched_grant_ends_when_somebody_wants_the_lock(self):
        other, x = self.agent(), self.agent()
        other.do("lock.acquire(0, 'other')")
        task = start(self.lock.acquire(0.5, "busy"))
        await self.until_waiters(1)
        begin = time.monotonic()
        other.do("lock.release()")
        self.granted_to_us()
        x.begin("[lock.acquire(-1, 'x'), time.monotonic()]")
        acquired, when = x.result()
        self.assertTrue(acquired)
        self.assertGreaterEqual(when - begin, 0.3)
        # It learns who has the lock now
        self.assertIs(await task, False)
        self.assertEqual(self.lock.blocker.pid, x.pid)
        self.assertEqual(self.lock.job, "x")
        self.assert_job("x")
        x.do("lock.release()")

    @in_loop
    async def test_unfetched_grant_stays_while_nobody_wants_the_lock(self):
        other = self.agent()
        other.do("lock.acquire(0, 'other')")
        task = start(self.lock.acquire(0.2, "busy"))
        await self.until_waiters(1)
        other.do("lock.release()")
        time.sleep(0.3)
        self.assertTrue(await task)
        self.lock.release()


class Loops(AioTestCase):
    def test_loops_in_threads(self):
        state = [0, 0]

        async def work(number):
            for _ in range(number):
                async with self.lock.acquire_timeout(LONG) as acquired:
                    self.assertTrue(acquired)
                    state[0] += 1
                    self.assertEqual(state[0], 1)
                    await asyncio.sleep(0)
                    self.assertEqual(state[0], 1)
                    state[0] -= 1
                    state[1] += 1

        async def works():
            await asyncio.gather(*[work(25) for _ in range(4)])

        calls = [Call(run, works()) for _ in range(3)]
        for call in calls:
            call.result()
        self.assertEqual(state, [0, 300])

    def test_watch_of_another_loop(self):
        async def main():
            async with self.lock.acquire_timeout(0) as acquired:
                task = start(acquired.wanted())
                await turns()
                with self.assertRaisesRegex(RuntimeError, "another event loop"):
                    Call(run, acquired.wanted()).result()
                task.cancel()
                await turns()
        run(main())

    @in_loop
    async def test_two_threads_end_one_acquisition(self):
        """One of them, in the middle of it, does not end the next one."""
        async with self.lock.acquire_timeout(0, "first") as acquired:
            contender = acquired._claim[0]
            following = self.lock._get()

            class Other(list):
                """Another thread pops what this one has just seen."""

                def __getitem__(self, index):
                    seen = super().__getitem__(index)
                    self.pop()
                    contender.release()
                    acquired._claim = [following]
                    return seen

            acquired._claim = Other([contender])
            with self.assertRaises(RuntimeError):
                acquired.release()
            self.assertEqual(acquired._claim, [following])
        self.assert_free()

    @in_loop
    async def test_ended_by_a_thread_as_it_begins_to_wait(self):
        other = self.agent()
        async with self.lock.acquire_timeout(0) as acquired:
            other.begin("lock.acquire(-1)")
            await self.until_waiters(1)
            call = _event.Acquisition._call

            def call_and_end(acquisition, *args):
                result = call(acquisition, *args)
                acquisition._end(True)
                return result

            with mock.patch.object(_event.Acquisition, "_call", call_and_end):
                with self.assertRaisesRegex(RuntimeError, "has released"):
                    await acquired.release_and_acquire(-1)
            other.result()
            self.assertEqual(tlock.status().waiters, 0)
            other.do("lock.release()")
            # It was not under way for ever
            self.assertTrue(await acquired.release_and_acquire(0))

    @in_loop
    async def test_watch_of_a_loop_that_is_just_closed(self):
        async with self.lock.acquire_timeout(0) as acquired:
            task = start(acquired.wanted())
            await turns()

            def release():
                with mock.patch.object(
                        acquired._watch.loop, "call_soon_threadsafe",
                        side_effect=RuntimeError("Event loop is closed")):
                    acquired.release()

            watch = acquired._watch
            Call(release).result()
            self.assert_free()
            watch.stop(RuntimeError())
            with self.assertRaises(RuntimeError):
                await task

    def closed(self, keep, coroutine):
        """Closes a loop while a task waits in it."""
        loop = asyncio.SelectorEventLoop()
        task = loop.create_task(coroutine)
        task._log_destroy_pending = False
        loop.run_until_complete(turns())
        self.wait_for_waiters(1)
        if not keep:
            del task
        loop.close()
        gc.collect()
        return task if keep else None

    def test_loop_closed_with_requests(self):
        other = self.agent()
        other.do("lock.acquire(0, 'other')")

        async def enter():
            async with self.lock.acquire_timeout(-1):
                self.fail("the block runs")

        for keep in True, False:
            for wait in self.lock.acquire(-1), enter():
                task = self.closed(keep, wait)
                self.assertEqual(tlock.status().waiters, 0)
                del task
                gc.collect()
        other.do("lock.release()")
        self.assert_works()

    def test_loop_closed_after_a_grant(self):
        other = self.agent()
        other.do("lock.acquire(0, 'other')")
        loop = asyncio.SelectorEventLoop()
        task = loop.create_task(self.lock.acquire(-1))
        task._log_destroy_pending = False
        loop.run_until_complete(turns())
        self.wait_for_waiters(1)
        other.do("lock.release()")
        self.granted_to_us()
        loop.close()
        self.assert_free()
        del task

    def test_loop_closed_with_a_watch(self):
        loop = asyncio.SelectorEventLoop()
        loop.run_until_complete(self.lock.acquire(0))
        task = loop.create_task(self.lock.wanted())
        task._log_destroy_pending = False
        loop.run_until_complete(turns())
        loop.close()

        async def again():
            with self.assertRaises(asyncio.TimeoutError):
                await asyncio.wait_for(self.lock.wanted(), 0.01)
        run(again())
        self.lock.release()
        self.assert_works()
        del task

    def test_interrupted_by_the_keyboard(self):
        """asyncio.run() ends all tasks, whatever they wait for."""
        other = self.agent()
        other.do("lock.acquire(0, 'other')")
        self.addCleanup(signal.signal, signal.SIGINT,
                        signal.getsignal(signal.SIGINT))
        signal.signal(signal.SIGINT, signal.default_int_handler)

        async def main():
            tasks = [start(self.lock.acquire(-1)) for _ in range(3)]
            await self.until_waiters(3)
            signal.raise_signal(signal.SIGINT)
            await asyncio.gather(*tasks)

        with self.assertRaises(KeyboardInterrupt):
            asyncio.run(main())
        self.assertEqual(tlock.status().waiters, 0)
        other.do("lock.release()")
        self.assert_works()

    def test_killed_with_requests(self):
        program = """
import asyncio, sys
from tlock.aio import TimeoutLock
async def main():
    lock = TimeoutLock(path="tlock")
    await asyncio.gather(*[lock.acquire(-1) for _ in range(100)])
asyncio.run(main())
"""
        x, after = self.agent(), self.agent()
        x.do("lock.acquire(0)")
        process = subprocess.Popen([sys.executable, "-c", program],
                                   env=environment())
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        self.wait_for_waiters(100)
        after.begin("lock.acquire(-1)")
        self.wait_for_waiters(101)
        # One is granted and not fetched, the others wait
        process.send_signal(signal.SIGSTOP)
        x.do("lock.release()")
        self.wait_for(lambda: tlock.status().holder.pid == process.pid, "grant")
        process.kill()
        self.assertTrue(after.result())
        self.assertFalse(after.do("lock.abandoned"))
        after.do("lock.release()")


class Fork(AioTestCase):
    def in_child(self, function):
        """Runs function() in a forked child, where it must return True."""
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    status = 0 if function() is True else 2
            finally:
                os._exit(status)
        self.assertEqual(os.waitpid(pid, 0)[1], 0)

    @in_loop
    async def test_child_holds_nothing(self):
        lock = self.lock
        async with lock.acquire_timeout(0, "parent") as acquired:
            watch = start(acquired.wanted())
            await turns()
            loop = asyncio.get_running_loop()

            def child():
                # Both would reach the parent
                loop.call_soon_threadsafe = loop.remove_reader = None

                async def use():
                    for call in (lock.release_and_acquire, lock.wanted,
                                 acquired.release_and_acquire, acquired.wanted):
                        try:
                            await call()
                        except RuntimeError:
                            continue
                        return False
                    for call in lock.release, acquired.release:
                        try:
                            call()
                        except RuntimeError:
                            continue
                        return False
                    return (not acquired and not await lock.acquire(0)
                            and lock.job == "parent")
                return asyncio.new_event_loop().run_until_complete(use())

            self.in_child(child)
            self.assertTrue(acquired)
            self.assert_job("parent")
            # The parent's watch is as it was
            other = start(lock.acquire(LONG))
            await watch
        self.assertTrue(await other)
        lock.release()

    @in_loop
    async def test_child_leaves_its_parents_block(self):
        left = os.pipe()
        for end in left:
            self.addCleanup(os.close, end)
        async with self.lock.acquire_timeout(0, "parent"):
            pid = os.fork()
            if pid:
                os.read(left[0], 1)
                self.assert_job("parent")
        if pid == 0:
            # It has just left the block, and competes
            status = 1
            try:
                os.write(left[1], b".")
                while not await self.lock.acquire(0, "child"):
                    time.sleep(0.01)
                self.lock.release()
                status = 0
            finally:
                os._exit(status)
        self.assertEqual(os.waitpid(pid, 0)[1], 0)
        self.assert_free()

    @in_loop
    async def test_child_drops_its_parents_requests(self):
        """It ends the parent's coroutines, as at its exit."""
        other = self.agent()
        other.do("lock.acquire(0, 'other')")
        task = start(self.lock.acquire(-1))
        await self.until_waiters(1)
        loop = asyncio.get_running_loop()

        def child():
            asyncio._set_running_loop(None)
            # A file of the child in the place of the parent's
            held = [os.open("/dev/null", os.O_RDONLY) for _ in range(10)]
            task.get_coro().close()
            return bool(held)

        self.in_child(child)
        self.assertEqual(tlock.status().waiters, 1)
        other.do("lock.release()")
        self.assertTrue(await task)
        self.lock.release()
        self.assertIs(loop, asyncio.get_running_loop())

    @in_loop
    async def test_child_competes(self):
        def child():
            async def use():
                async with self.lock.acquire_timeout(LONG, "child") as acquired:
                    return bool(acquired) and self.lock.job == "child"
            return asyncio.new_event_loop().run_until_complete(use())

        self.in_child(child)
        async with self.lock.acquire_timeout(0) as acquired:
            self.assertTrue(acquired)

    def test_child_outlives_its_parent(self):
        program = """
import asyncio, os, subprocess, sys, time
from tlock.aio import TimeoutLock
async def main():
    lock = TimeoutLock(path="tlock")
    await lock.acquire(0, "parent")
    task = asyncio.ensure_future(lock.acquire(-1))
    await asyncio.sleep(0.01)
    child = %s
    print(child, flush=True)
    await asyncio.sleep(1000)
asyncio.run(main())
"""
        for child in ("os.fork() or [time.sleep(1000), os._exit(0)]",
                      "subprocess.Popen(['sleep', '1000'], "
                      "close_fds=False).pid"):
            parent = subprocess.Popen([sys.executable, "-c", program % child],
                                      stdout=subprocess.PIPE, env=environment())
            pid = int(parent.stdout.readline())
            try:
                self.wait_for_waiters(1)
                parent.kill()
                parent.wait()
                self.wait_for(lambda: tlock.status()[:2] == (None, 0),
                              "free lock")
                os.kill(pid, 0)
            finally:
                os.kill(pid, 9)
                parent.stdout.close()
            async def use():
                async with self.lock.acquire_timeout(0):
                    self.assertTrue(self.lock.abandoned)
            run(use())


class Monitors(AioTestCase):
    """aio.Monitor: what happens to a lock"""

    def setUp(self):
        super().setUp()
        self.other = tlock.TimeoutLock(path="tlock")
        self.addCleanup(vars(self).pop, "other")
        # What the other tests left is closed
        gc.collect()
        self.before = contenders()

    def use(self, job="job"):
        """Takes the lock for a moment."""
        with self.other.acquire_timeout(0, job):
            pass

    async def next(self, monitor):
        """The next event's kind and job"""
        event = await asyncio.wait_for(monitor.__anext__(), LONG)
        return event.kind, event.job

    def watched(self):
        """How many files the loop watches, but for its own"""
        return len(asyncio.get_running_loop()._selector.get_map()) - 1

    @in_loop
    async def test_iteration(self):
        events = []
        async with aio.Monitor() as monitor:
            self.assertIs(monitor.__aiter__(), monitor)
            self.assertEqual(monitor.path, "/dev/tlock")
            self.use("first")
            async with self.lock.acquire_timeout(0, "second"):
                async for event in monitor:
                    events.append(event)
                    if len(events) == 3:
                        break
                task = start(monitor.__anext__())
                await turns()
                self.assertFalse(task.done())
            events.append(await task)
            self.assertEqual(self.watched(), 0)
            self.use("not read")
        self.assertEqual([(event.kind, event.job) for event in events],
                         [("acquired", "first"), ("released", "first"),
                          ("acquired", "second"), ("released", "second")])
        self.assertIs(type(event), tlock.Event)
        self.assertEqual([event.seq for event in events],
                         list(range(events[0].seq, events[0].seq + 4)))
        # Closed, and at its end
        self.assertEqual([event async for event in monitor], [])
        self.assertEqual(contenders(), self.before)

    @in_loop
    async def test_other_tasks_run_during_a_wait(self):
        monitor = aio.Monitor()
        task = start(self.next(monitor))
        await turns()
        self.assertEqual(self.watched(), 1)
        begun = time.process_time()
        await asyncio.sleep(0.5)
        # It is no busy loop
        self.assertLess(time.process_time() - begun, 0.25)
        self.use("after")
        self.assertEqual(await task, ("acquired", "after"))
        self.assertEqual(self.watched(), 0)
        monitor.close()

    @in_loop
    async def test_other_tasks_run_between_many_events(self):
        monitor = aio.Monitor()
        for _ in range(500):
            self.use()
        seen = []

        async def tick():
            while len(seen) < 1000:
                ticks.append(len(seen))
                await asyncio.sleep(0)

        ticks = []
        ticker = start(tick())
        async for event in monitor:
            seen.append(event.seq)
            if len(seen) == 1000:
                break
        await ticker
        ticks.append(len(seen))
        self.assertEqual(seen, list(range(seen[0], seen[0] + 1000)))
        gaps = [after - before for before, after in zip(ticks, ticks[1:])]
        self.assertLessEqual(max(gaps), 100)
        monitor.close()

    @in_loop
    async def test_lost(self):
        async with aio.Monitor() as monitor:
            for _ in range(700):
                self.use()
            event = await monitor.__anext__()
            self.assertGreater(event.lost, 0)
            self.assertEqual((await monitor.__anext__()).lost, 0)
            left = 1400 - event.lost - 2
            for _ in range(left):
                event = await monitor.__anext__()
            self.assertEqual(event.token, self.other.token)
            task = start(monitor.__anext__())
            await turns()
            self.assertFalse(task.done())
            task.cancel()

    @in_loop
    async def test_cancelled_wait(self):
        """Loses no event, and leaves nothing watched."""
        monitor = aio.Monitor()
        for job in "first", "second":
            with self.assertRaises(asyncio.TimeoutError):
                await asyncio.wait_for(monitor.__anext__(), 0.02)
            self.assertEqual(self.watched(), 0)
            self.use(job)
            self.assertEqual(await self.next(monitor), ("acquired", job))
            self.assertEqual(await self.next(monitor), ("released", job))
        monitor.close()
        self.assertEqual(contenders(), self.before)

    @in_loop
    async def test_cancelled_at_each_step(self):
        """Also when the event is there already"""
        monitor = aio.Monitor()
        self.use("job 0")
        await self.next(monitor)
        seen = 0
        for number in range(8):
            task = start(self.next(monitor))
            await turns(number)
            task.cancel()
            try:
                self.assertEqual((await task)[1], "job %d" % seen)
                seen += 1
                self.use("job %d" % seen)
                # Of the same job
                await self.next(monitor)
            except asyncio.CancelledError:
                pass
            self.assertEqual(self.watched(), 0)
        self.assertLess(0, seen)
        self.assertLess(seen, 8)
        self.assertEqual(await self.next(monitor), ("released",
                                                    "job %d" % seen))
        monitor.close()

    @in_loop
    async def test_dropped_coroutine(self):
        """A task that waits is destroyed, as at the end of a program."""
        monitor = aio.Monitor()
        step = monitor.__anext__()
        step.send(None)
        self.assertEqual(self.watched(), 1)
        step.close()
        self.assertEqual(self.watched(), 0)
        self.use("after")
        self.assertEqual(await self.next(monitor), ("acquired", "after"))
        del monitor, step
        self.assertEqual(contenders(), self.before)

    @in_loop
    async def test_closed_by_another_task(self):
        monitor = aio.Monitor()

        async def collect():
            return [event async for event in monitor]

        task = start(collect())
        await turns()
        monitor.close()
        self.assertEqual(self.watched(), 0)
        self.assertEqual(contenders(), self.before)
        self.assertEqual(await task, [])
        monitor.close()
        # Another file has the descriptor now, and another monitor watches it
        monitor = aio.Monitor()
        task = start(collect())
        await turns()
        monitor.close()
        second = aio.Monitor()
        waiting = start(self.next(second))
        self.assertEqual(await task, [])
        await turns()
        self.assertEqual(self.watched(), 1)
        self.use("second")
        self.assertEqual(await waiting, ("acquired", "second"))
        second.close()

    @in_loop
    async def test_closed_with_events_that_were_read(self):
        monitor = aio.Monitor()
        for _ in range(3):
            self.use()
        await self.next(monitor)
        monitor.close()
        self.assertEqual([event async for event in monitor], [])

    @in_loop
    async def test_deleted(self):
        """The end, at which the loop has nothing to do."""
        with open("/sys/class/tlock/new_lock", "w") as file:
            file.write("short")
        monitor = aio.Monitor("short")

        async def collect():
            return [event.kind async for event in monitor]

        task = start(collect())
        await turns()
        with open("/sys/class/tlock/delete_lock", "w") as file:
            file.write("short")
        self.assertEqual(await asyncio.wait_for(task, LONG), ["deleted"])
        self.assertEqual(self.watched(), 0)
        self.assertEqual(await asyncio.wait_for(collect(), LONG), [])
        self.assertEqual(self.watched(), 0)
        monitor.close()

    @in_loop
    async def test_several_monitors(self):
        """Of several locks, and of one"""
        names = ["first", "second", "third"]
        self.new_lock(*names)
        monitors = [aio.Monitor(name) for name in names + names[:1]]
        tasks = [start(self.next(monitor)) for monitor in monitors]
        await turns()
        locks = [tlock.TimeoutLock(path=name) for name in names]
        for lock, name in zip(reversed(locks), reversed(names)):
            lock.acquire(0, name)
            lock.release()
        self.assertEqual([await task for task in tasks],
                         [("acquired", name) for name in names + names[:1]])
        self.assertEqual([await self.next(monitor) for monitor in monitors],
                         [("released", name) for name in names + names[:1]])
        for monitor in monitors:
            monitor.close()
        del lock, locks
        gc.collect()

    @in_loop
    async def test_two_tasks(self):
        monitor = aio.Monitor()
        task = start(self.next(monitor))
        await turns()
        with self.assertRaisesRegex(RuntimeError, "another task waits"):
            await monitor.__anext__()
        self.use("one")
        self.assertEqual(await task, ("acquired", "one"))
        self.assertEqual(await self.next(monitor), ("released", "one"))
        monitor.close()

    def test_loop_after_loop(self):
        monitor = aio.Monitor()
        for job in "first", "second":
            self.use(job)
            self.assertEqual(run(self.next(monitor)), ("acquired", job))
            self.assertEqual(run(self.next(monitor)), ("released", job))
        # One is closed while a task waits
        loop = asyncio.new_event_loop()
        task = loop.create_task(monitor.__anext__())
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        self.use("third")
        self.assertEqual(run(self.next(monitor)), ("acquired", "third"))
        task._log_destroy_pending = False
        del task
        gc.collect()
        self.assertEqual(run(self.next(monitor)), ("released", "third"))
        monitor.close()
        self.assertEqual(contenders(), self.before)

    @in_loop
    async def test_dropped(self):
        """Nothing else refers to the object, not even the loop."""
        async for _ in self.one_event(aio.Monitor()):
            break
        self.assertEqual(contenders(), self.before)

    def one_event(self, monitor):
        self.use()
        return monitor

    def test_fork(self):
        """A child has the object closed; its parent's loop goes on."""
        monitor = aio.Monitor()
        loop = asyncio.new_event_loop()
        task = loop.create_task(self.next(monitor))
        loop.run_until_complete(asyncio.sleep(0))
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                asyncio._set_running_loop(None)

                async def collect():
                    return [event async for event in monitor]

                if asyncio.new_event_loop().run_until_complete(collect()) == []:
                    task.cancel()
                    monitor.close()
                    del monitor
                    status = 0
            finally:
                os._exit(status)
        self.assertEqual(os.waitpid(pid, 0)[1], 0)
        self.use("parent")
        self.assertEqual(loop.run_until_complete(task), ("acquired", "parent"))
        loop.close()
        monitor.close()

    def test_keyboard_interrupt(self):
        """The loop may go on after it."""
        monitor = aio.Monitor()
        loop = asyncio.new_event_loop()
        task = loop.create_task(self.next(monitor))
        loop.call_soon(os.kill, os.getpid(), signal.SIGINT)
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        self.addCleanup(signal.signal, signal.SIGINT, before)
        with self.assertRaises(KeyboardInterrupt):
            loop.run_until_complete(task)
        self.use("after")
        self.assertEqual(loop.run_until_complete(task), ("acquired", "after"))
        loop.close()
        monitor.close()

    def test_errors(self):
        for path, error in (("nosuchlock", FileNotFoundError),
                            ("/dev/null", OSError), ("", ValueError)):
            with self.assertRaises(error):
                aio.Monitor(path)
        self.assertEqual(contenders(), self.before)


if __name__ == "__main__":
    ktap.main()
