#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""tlock.twisted: the lock in Twisted programs, on four reactors.

A process has one reactor. So this program runs itself once for each of them, as
"test_twisted.py reactor NAME", and reports the results. With more arguments
after that, it runs the flows that have one of them in the name.
"""
import asyncio
import copy
import gc
import inspect
import os
import random
import subprocess
import sys
import time
import traceback
import unittest
from unittest import mock

import ktap  # first: finds this tree's package
import tlock
from tlock import _event, aio
from tlock import twisted as tlock_twisted
from tlock.twisted import TimeoutLock
from twisted.application.reactors import installReactor
from twisted.internet.defer import (CancelledError, Deferred, ensureDeferred,
                                    inlineCallbacks)
from twisted.internet.error import ConnectionLost
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from helper import LONG, Call, LoopTestCase, environment, states

REACTORS = "select", "poll", "epoll", "asyncio"


class Flows(LoopTestCase):
    """The tests, which run in the reactor"""

    def sleep(self, seconds=0):
        from twisted.internet import reactor
        return deferLater(reactor, seconds)

    def setUp(self):
        super().setUp()
        self.lock = TimeoutLock(path="tlock")

    async def fails(self, deferred, error):
        with self.assertRaises(error):
            await deferred

    async def cancelled(self, deferred):
        deferred.cancel()
        await self.fails(deferred, CancelledError)

    async def rests(self):
        """Asserts that the reactor has nothing to do."""
        used = time.process_time()
        await self.sleep(1)
        self.assertLess(time.process_time() - used, 0.5)

    async def test_names_arguments_and_defaults(self):
        def arguments(function):
            return [(p.name, p.default, p.kind) for p in
                    inspect.signature(function).parameters.values()]

        for one, other in ((tlock.TimeoutLock, TimeoutLock),
                           (tlock.Acquisition, tlock_twisted.Acquisition)):
            # A Deferred is cancelled by itself
            names = {name for name in vars(one) if name[0] != "_"} - {"cancel"}
            self.assertEqual(names - set(dir(other)), set())
            for name, value in vars(one).items():
                if inspect.isfunction(value) and name in names:
                    self.assertEqual(arguments(value),
                                     arguments(getattr(other, name)), name)

    async def test_take_and_give_back(self):
        lock = self.lock
        self.assertIs(await lock.acquire(job="acq"), True)
        self.assertEqual(lock.job, "acq")
        self.assertEqual(lock.token, tlock.status().holder.token)
        self.assertIs(await lock.release_and_acquire(), True)
        lock.release()
        with self.assertRaises(RuntimeError):
            lock.release()
        for call in lock.release_and_acquire, lock.wanted:
            await self.fails(call(), RuntimeError)
        with self.assertRaises(ValueError):
            lock.acquire(-2)
        with await lock.acquire_timeout() as acquired:
            self.assertTrue(acquired)
            self.assert_job("unnamed")
        self.assertFalse(acquired)
        with self.assertRaises(RuntimeError):
            acquired.release()
        with self.assertRaises(ValueError):
            lock.acquire(0, blocking=False)
        self.assertTrue(await lock.acquire(blocking=False))
        self.assertIs(await lock.acquire(False), False)
        for forever in {"blocking": True}, {"timeout": True}:
            waiter = lock.acquire(**forever)
            await self.sleep(1.1)
            self.assertFalse(waiter.called)
            await self.cancelled(waiter)
        lock.release()
        self.assertEqual(repr(copy.copy(lock)),
                         "<tlock.twisted.TimeoutLock /dev/tlock: free>")

    async def test_refused(self):
        other = self.agent()
        other.do("lock.acquire(0, 'other')")
        begin = time.monotonic()
        with await self.lock.acquire_timeout(0.1) as acquired:
            self.assertFalse(acquired)
            self.assertEqual(acquired.blocker.pid, other.pid)
        self.assertGreaterEqual(time.monotonic() - begin, 0.1)
        self.assertIs(await self.lock.acquire(0), False)
        other.do("lock.release()")
        self.assertEqual(self.lock.blocker.job, "other")
        self.assertEqual([self.lock.job, self.lock.job], ["other", None])
        self.assertTrue(await self.lock.acquire(0, "ours"))
        self.assertIs(await self.lock.acquire(0), False)
        self.assertTrue(await self.lock.release_and_acquire(0))
        self.assertIsNone(self.lock.blocker)
        self.lock.release()
        self.assertIsNone(self.lock.job)

    async def test_inline_callbacks(self):
        other = self.agent()
        other.do("lock.acquire(0, 'other')")
        seen = []

        @inlineCallbacks
        def flow(error=None):
            with (yield self.lock.acquire_timeout(-1, "flow")) as acquired:
                seen.append((self.lock.job, bool(acquired)))
                yield self.sleep()
                if error:
                    raise error
            return "result"

        flows = [flow(), flow(KeyError()), flow()]
        await self.until_waiters(3)
        await self.rests()
        other.do("lock.release()")
        self.assertEqual(await flows[0], "result")
        await self.fails(flows[1], KeyError)
        await flows[2]
        self.assertEqual(seen, [("flow", True)] * 3)
        # Cancelled where they wait: for the lock, and in the block
        holder = flow()
        waiter = flow()
        await self.until_waiters(1)
        await self.cancelled(waiter)
        self.assertEqual(tlock.status().waiters, 0)
        await self.cancelled(holder)
        self.assert_free()

    async def test_100_flows_in_order(self):
        order = []

        async def take(which):
            with await self.lock.acquire_timeout(-1 if which % 2 else 600):
                order.append(which)
                await self.sleep()

        with await self.lock.acquire_timeout(0):
            flows = [ensureDeferred(take(which)) for which in range(100)]
            await self.until_waiters(100)
        for flow in flows:
            await flow
        self.assertEqual(order, list(range(100)))

    async def test_release_and_acquire(self):
        other = self.agent()
        with await self.lock.acquire_timeout(0, "acq") as acquired:
            token = acquired.token
            other.begin("lock.acquire(-1, 'other') and "
                        "[time.sleep(0.1), lock.release()]")
            await self.until_waiters(1)
            again = acquired.release_and_acquire(-1)
            with self.assertRaises(RuntimeError):
                self.lock.release()
            await self.fails(acquired.release_and_acquire(), RuntimeError)
            self.assertTrue(await again)
            self.assertEqual(acquired.token, token + 2)
            self.assert_job("acq")
            other.result()
            # Lost, and taken back
            other.begin("lock.acquire(-1, 'other')")
            await self.until_waiters(1)
            self.assertFalse(await self.lock.release_and_acquire(0.05))
            self.assertEqual(acquired.blocker.job, "other")
            other.result()
            other.do("lock.release()")
            self.assertTrue(await self.lock.release_and_acquire(0))
        self.assert_free()

    async def test_block_left_during_its_release_and_acquire(self):
        other = self.agent()
        with await self.lock.acquire_timeout(0) as acquired:
            other.begin("lock.acquire(-1)")
            await self.until_waiters(1)
            again = acquired.release_and_acquire(-1)
        await self.fails(again, RuntimeError)
        self.assertEqual(tlock.status().waiters, 0)
        other.result()
        other.do("lock.release()")

    async def test_wanted(self):
        other = self.agent()
        with await self.lock.acquire_timeout(0) as acquired:
            watchers = [acquired.wanted(), self.lock.wanted(),
                        acquired.wanted()]
            await self.cancelled(watchers[0])
            await self.rests()
            # A late event
            acquired._watch.doRead()
            self.assertEqual([one.called for one in watchers],
                             [True, False, False])
            other.begin("lock.acquire(-1)")
            for watcher in watchers[1:]:
                self.assertIsNone(await watcher)
            await self.rests()
            self.assertIsNone(await acquired.wanted())
            self.assertFalse(await acquired.release_and_acquire(0))
            other.result()
            other.do("lock.release()")
            self.assertTrue(await acquired.release_and_acquire(0))
            watcher = acquired.wanted()
            acquired.release()
            # Its callbacks run later, not in the middle of release()
            self.assertFalse(watcher.called)
            await self.fails(watcher, RuntimeError)
            # The file is used again, and not watched
            self.assertTrue(await self.lock.acquire(0))
            await self.cancelled(self.lock.wanted())
            self.lock.release()

    def revoke(self):
        self.assertTrue(tlock.revoke(tlock.status().holder.token))

    async def test_leases(self):
        other = tlock.TimeoutLock(path="tlock")
        for bad in 0, -1, float("nan"):
            for call in self.lock.acquire, self.lock.acquire_timeout:
                with self.assertRaises(ValueError):
                    call(0, lease=bad)
        with await self.lock.acquire_timeout(0, lease=30) as acquired:
            first = tlock.status().holder
            self.assertEqual(first.expires_ns, first.since_ns + 30 * 10**9)
            self.assertTrue(await self.lock.release_and_acquire(0))
            second = tlock.status().holder
            self.assertGreater(second.expires_ns, first.expires_ns)
            self.assertIsNone(self.lock.renew(lease=60))
            third = tlock.status().holder
            self.assertGreater(third.expires_ns,
                               second.expires_ns + 29 * 10**9)
            acquired.renew()
            self.assertGreater(tlock.status().holder.expires_ns,
                               third.expires_ns)
            acquired.release()
            for one in acquired, self.lock:
                with self.assertRaises(RuntimeError):
                    one.renew()
        with self.assertRaises(tlock.Revoked):
            with await self.lock.acquire_timeout(0, lease=0.05):
                self.assertTrue(other.acquire(LONG))
        self.assertTrue(other.revoked)
        other.release()
        self.assertTrue(await self.lock.acquire(0))
        self.assertFalse(tlock.status().holder.leased)
        self.assertFalse(self.lock.revoked)
        self.lock.release()

    async def test_revoked(self):
        for call in (lambda one: one.release(), lambda one: one.renew(),
                     lambda one: one.wanted(),
                     lambda one: one.release_and_acquire(0)):
            for of_the_lock in True, False:
                with await self.lock.acquire_timeout(0, "acq") as acquired:
                    self.revoke()
                    with self.assertRaises(tlock.Revoked) as caught:
                        await call(self.lock if of_the_lock else acquired)
                    self.assertIn("'acq'", str(caught.exception))
                    self.assertFalse(acquired)
                    with self.assertRaises(RuntimeError) as caught:
                        acquired.release()
                    self.assertNotIsInstance(caught.exception, tlock.Revoked)
                    self.assertTrue(await self.lock.acquire(0))
                    self.assertTrue(self.lock.revoked)
                    self.lock.release()
        with self.assertRaises(KeyError):
            with await self.lock.acquire_timeout(0):
                self.revoke()
                raise KeyError
        with await self.lock.acquire_timeout(0) as acquired:
            self.revoke()
            with self.assertRaises(tlock.Revoked):
                await acquired.release_and_acquire(0)
            self.assertTrue(await acquired.release_and_acquire(0))

    async def test_watchers_of_a_revoked_lock(self):
        """Some reactors believe that the connection is lost."""
        with await self.lock.acquire_timeout(0) as acquired:
            watchers = [acquired.wanted(), self.lock.wanted()]
            self.revoke()
            for watcher in watchers:
                await self.fails(watcher, tlock.Revoked)
            self.assertFalse(acquired)
            await self.rests()
            # The reactor watches the next file
            self.assertTrue(await acquired.release_and_acquire(0))
            self.assertTrue(acquired.revoked)
            watcher = acquired.wanted()
            waiter = self.lock.acquire(-1)
            self.assertIsNone(await watcher)
            # By a call that comes first
            watcher = acquired.wanted()
            await self.cancelled(waiter)
            watcher = acquired.wanted()
            self.revoke()
            with self.assertRaises(tlock.Revoked):
                acquired.renew()
            await self.fails(watcher, tlock.Revoked)

    async def test_grant_that_is_lost_before_it_is_fetched(self):
        other = tlock.TimeoutLock(path="tlock")
        self.assertTrue(other.acquire(0))
        waiter = self.lock.acquire(LONG, "acq")
        await self.until_waiters(1)
        other.release()
        # The reactor is busy
        self.granted_to_us()
        self.revoke()
        await self.fails(waiter, tlock.Revoked)
        self.assert_idle()
        with await self.lock.acquire_timeout(0) as acquired:
            call = Call(other.acquire, -1)
            self.wait_for_waiters(1)
            again = acquired.release_and_acquire(LONG)
            self.assertTrue(call.result())
            other.release()
            self.granted_to_us()
            self.revoke()
            await self.fails(again, tlock.Revoked)
            self.assertFalse(acquired)
            self.assertTrue(await acquired.release_and_acquire(0))
            self.assertTrue(acquired.revoked)

    async def test_watcher_that_cancels_the_others(self):
        other = self.agent()
        with await self.lock.acquire_timeout(0) as acquired:
            watchers = [acquired.wanted() for _ in range(3)]
            watchers[0].addCallback(lambda _: watchers[1].cancel())
            other.begin("lock.acquire(-1)")
            await watchers[0]
            await self.fails(watchers[1], CancelledError)
            # Nothing has disturbed the reactor or this one
            self.assertIsNone(await watchers[2])
            # The same when the reactor stops
            with mock.patch.object(_event.Acquisition, "_is_wanted",
                                   lambda _: False):
                watchers[:] = [acquired.wanted() for _ in range(2)]
            watchers[0].addErrback(lambda _: watchers[1].cancel())
            acquired._watch.connectionLost(Failure(ConnectionLost()))
            self.assertIsNone(await watchers[0])
            await self.fails(watchers[1], CancelledError)
        other.result()
        other.do("lock.release()")

    async def test_wanted_while_it_waits(self):
        """The file is watched for both."""
        other = self.agent()
        with await self.lock.acquire_timeout(0) as acquired:
            other.begin("lock.acquire(-1)")
            await self.until_waiters(1)
            with mock.patch.object(_event.Acquisition, "_is_wanted",
                                   lambda _: False):
                watcher = acquired.wanted()
                again = acquired.release_and_acquire(-1)
                other.result()
            await self.rests()
            other.do("lock.release()")
            self.assertTrue(await again)
            self.assertFalse(watcher.called)
            other.begin("lock.acquire(-1)")
            await watcher
        other.result()
        other.do("lock.release()")

    async def test_cancelled(self):
        other = self.agent()
        for granted in False, True:
            for wait in self.lock.acquire, self.lock.acquire_timeout:
                other.do("lock.acquire(0, 'other')")
                deferred = wait(-1)
                await self.until_waiters(1)
                if granted:
                    other.do("lock.release()")
                    self.granted_to_us()
                await self.cancelled(deferred)
                self.assert_idle()
                self.assertEqual(tlock.status().waiters, 0)
                if not granted:
                    other.do("lock.release()")
                self.assert_free()

    async def test_add_timeout(self):
        from twisted.internet import reactor
        from twisted.internet.defer import TimeoutError
        other = self.agent()
        other.do("lock.acquire(0)")
        deferred = self.lock.acquire(-1).addTimeout(0.05, reactor)
        await self.fails(deferred, TimeoutError)
        self.assertEqual(tlock.status().waiters, 0)
        other.do("lock.release()")
        await self.sleep(0.05)
        self.assert_free()

    async def test_cancelled_release_and_acquire(self):
        other = self.agent()
        with await self.lock.acquire_timeout(0, "acq") as acquired:
            other.begin("lock.acquire(-1)")
            await self.until_waiters(1)
            deferred = acquired.release_and_acquire(-1)
            other.result()
            await self.cancelled(deferred)
            self.assertFalse(acquired)
            other.do("lock.release()")
            self.assertTrue(await acquired.release_and_acquire(0))
        self.assert_free()

    async def test_busy_reactor(self):
        other, x = self.agent(), self.agent()
        other.do("lock.acquire(0)")
        deferred = self.lock.acquire(0.5)
        await self.until_waiters(1)
        other.do("lock.release()")
        self.granted_to_us()
        x.do("lock.acquire(-1, 'x')")
        self.assertIs(await deferred, False)
        self.assertEqual(self.lock.blocker.pid, x.pid)
        x.do("lock.release()")

    async def test_late_event(self):
        """What comes for a file after it was cancelled or used again."""
        other = self.agent()
        other.do("lock.acquire(0)")
        files = []
        decide = tlock_twisted._File.decide

        def note(file):
            files.append(file)
            return decide(file)

        with mock.patch.object(tlock_twisted._File, "decide", note):
            await self.cancelled(self.lock.acquire(-1))
            second = self.lock.acquire(-1)
        files[0].doWrite()
        files[0].doRead()
        self.assertIs(files[0].contender, files[1].contender)
        files[1].doWrite()
        files[1].doRead()
        self.assertFalse(second.called)
        other.do("lock.release()")
        self.granted_to_us()
        files[0].doWrite()
        self.assertFalse(second.called)
        self.assertTrue(await second)
        files[1].doWrite()
        files[1].doRead()
        self.lock.release()

    async def test_fork(self):
        with await self.lock.acquire_timeout(0, "parent") as acquired:
            watcher = acquired.wanted()
            waiter = self.lock.acquire(-1)
            pid = os.fork()
            if pid == 0:
                status = 1
                try:
                    waiter.addErrback(lambda _: None).cancel()
                    watcher.addErrback(lambda _: None).cancel()
                    try:
                        self.lock.release()
                    except RuntimeError:
                        status = 0 if not acquired else 2
                finally:
                    os._exit(status)
            self.assertEqual(os.waitpid(pid, 0)[1], 0)
            self.assertEqual(tlock.status().waiters, 1)
            self.assert_job("parent")
            await watcher
        self.assertTrue(await waiter)
        self.lock.release()

    async def test_storm(self):
        """Deferreds that are cancelled anywhere"""
        other = self.agent()
        choose = random.Random(1)
        other.begin("[lock.acquire(-1) and [time.sleep(i % 5 / 2000), "
                    "lock.release()] for i in range(600)]")
        inside = []

        async def use():
            with await self.lock.acquire_timeout(
                    choose.choice([0, 0.002, -1, -1])) as acquired:
                while acquired:
                    inside.append(acquired)
                    try:
                        await self.sleep(choose.choice([0, 0, 0.001]))
                        self.assertEqual(inside, [acquired])
                    finally:
                        inside.remove(acquired)
                    if choose.random() < 0.3:
                        await acquired.wanted()
                    await acquired.release_and_acquire(
                        choose.choice([0, 0.002, -1]))

        for _ in range(150):
            flows = [ensureDeferred(use()) for _ in range(3)]
            for flow in flows:
                await self.sleep(choose.random() / 100)
                flow.cancel()
                try:
                    await flow
                except CancelledError:
                    pass
            self.assertLessEqual(set(states()), {"idle"})
        other.result()

    async def test_dropped_object(self):
        lock = TimeoutLock(path="tlock")
        await lock.acquire(0)
        del lock
        await self.sleep()
        gc.collect()
        self.assert_free()


class AsyncioFlows(Flows):
    """The lock for asyncio, on Twisted's reactor for that"""

    async def test_aio(self):
        other = self.agent()
        lock = aio.TimeoutLock(path="tlock")

        async def agent():
            async with lock.acquire_timeout(-1, "aio") as acquired:
                self.assert_job("aio")
                await asyncio.sleep(0.01)
                await acquired.wanted()
                self.assertTrue(await lock.release_and_acquire(-1))

        other.do("lock.acquire(0)")
        flow = Deferred.fromFuture(asyncio.ensure_future(agent()))
        cancelled = Deferred.fromFuture(asyncio.ensure_future(agent()))
        await self.until_waiters(2)
        cancelled.cancel()
        await self.fails(cancelled, asyncio.CancelledError)
        await self.until_waiters(1)
        other.do("lock.release()")
        waiter = self.lock.acquire(-1)
        self.assertTrue(await waiter)
        self.lock.release()
        await flow
        self.assert_free()


def flows_of(name):
    flows = AsyncioFlows if name == "asyncio" else Flows
    return flows, unittest.defaultTestLoader.getTestCaseNames(flows)


def run_flows(name, *selected):
    """Runs in a process of its own: flows on a reactor.

    Prints a line for each, and leaves two that wait when the reactor stops.
    """
    installReactor(name)
    from twisted.internet import reactor
    flows, names = flows_of(name)
    names = [name for name in names
             if not selected or any(part in name for part in selected)]

    async def run_all():
        idle = len(reactor.getReaders() + reactor.getWriters())
        for name in names:
            test = flows(name)
            result = "ok"
            try:
                test.setUp()
                await getattr(test, name)()
                left = len(reactor.getReaders() + reactor.getWriters()) - idle
                test.assertEqual(left, 0, "the reactor watches files")
                del test.lock
            except BaseException:  # pylint: disable=broad-except
                result = traceback.format_exc()
            test.doCleanups()
            print(repr((name, result)), flush=True)

    def stop(_):
        lock = TimeoutLock(path="tlock")
        kinds = []
        # The watcher does not notice the waiter
        _event.Acquisition._is_wanted = lambda _: False

        async def wait():
            with await lock.acquire_timeout(0) as acquired:
                for waits in lock.acquire(-1), acquired.wanted():
                    waits.addErrback(lambda failure: kinds.append(failure.type))
                reactor.callLater(0, reactor.stop)
                reactor.addSystemEventTrigger(
                    "after", "shutdown", lambda: print(repr((
                        "stop", "ok" if kinds == [ConnectionLost] * 2 and
                        tlock.status().waiters == 0 else repr(kinds)))))
                await Deferred()

        # Kept, so that nobody wonders about a coroutine that is dropped
        stop.flow = ensureDeferred(wait())

    reactor.callWhenRunning(
        lambda: ensureDeferred(run_all()).addCallback(stop))
    reactor.run()


class OnReactor(unittest.TestCase):
    """Reports what the processes find."""


def add_tests(name):
    results = {}

    def result_of(self, flow):
        if not results:
            done = subprocess.run(
                [sys.executable, __file__, "reactor", name], env=environment(),
                stdout=subprocess.PIPE, universal_newlines=True)
            results["exit"] = ("ok" if done.returncode == 0
                               else str(done.returncode))
            results.update(map(eval, done.stdout.splitlines()))
        self.assertEqual(results.get(flow, "it did not run"), "ok",
                         results.get(flow))

    for flow in ["exit", "stop"] + list(flows_of(name)[1]):
        setattr(OnReactor, "test_%s_%s" % (name, flow.replace("test_", "")),
                lambda self, flow=flow: result_of(self, flow))


if __name__ == "__main__":
    if sys.argv[1:2] == ["reactor"]:
        run_flows(*sys.argv[2:])
    else:
        for reactor_name in REACTORS:
            add_tests(reactor_name)
        # These run in the other processes
        del Flows, AsyncioFlows
        ktap.main()
