#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""Leases and revocation, in threads and in asyncio programs.

test_twisted.py tests them in Twisted programs.
"""
import asyncio
import errno
import gc
import math
import os
import pickle
import selectors
import signal
import time
import unittest

import ktap  # first: finds this tree's package
import tlock
from tlock import Revoked, TimeoutLock, aio
from helper import LONG, Call, LoopTestCase, TestCase

SHORT = 0.05


def seconds(ns):
    return round(ns * 1e9)


class Revocation(TestCase):
    """What the tests of all kinds of locks share"""

    def setUp(self):
        super().setUp()
        self.other = TimeoutLock(path="tlock")

    def revoke(self, **more):
        """Revokes the present grant."""
        self.assertTrue(tlock.revoke(tlock.status().holder.token, **more))

    def expire(self):
        """Waits until the lease of the present grant has ended."""
        expires = tlock.status().holder.expires_ns
        self.wait_for(lambda: time.monotonic_ns() > expires, "expiry")

    def assert_leased(self, lease, since=None):
        """Asserts that there is a lease, which began at since, in nanoseconds,
        or with the grant."""
        holder = tlock.status().holder
        self.assertTrue(holder.leased)
        self.assertFalse(holder.revoking)
        began = holder.expires_ns - seconds(lease)
        if since is None:
            self.assertEqual(began, holder.since_ns)
        else:
            self.assertLessEqual(since, began)
            self.assertLessEqual(began, time.monotonic_ns())

    def assert_not_leased(self):
        self.assertEqual(tlock.status().holder[-4:-1], (False, False, None))

    def assert_revoked_flag(self, lock):
        """Asserts that the next grant of another lock, and only that, says that
        the lock was taken from its holder."""
        for expected in True, False:
            with lock.acquire_timeout(0) as acquired:
                self.assertIs(acquired.revoked, expected)
                self.assertIs(acquired.abandoned, False)
                self.assertIs(lock.revoked, expected)


class Errors(unittest.TestCase):
    def test_kinds(self):
        error = pickle.loads(pickle.dumps(Revoked(errno.ESTALE, "text", "path")))
        self.assertIs(type(error), Revoked)
        self.assertIsInstance(error, OSError)
        self.assertIsInstance(error, RuntimeError)
        self.assertEqual((error.errno, error.strerror, error.filename),
                         (errno.ESTALE, "text", "path"))


class Leases(Revocation):
    def setUp(self):
        super().setUp()
        self.lock = TimeoutLock(path="tlock")

    def test_fields(self):
        self.assertEqual(tlock.Holder._fields[-4:],
                         ("leased", "revoking", "expires_ns", "host"))
        with self.lock.acquire_timeout(0):
            self.assert_not_leased()
        for lease in 30, 0.5, 1e-9, 1e6:
            with self.subTest(lease):
                with self.lock.acquire_timeout(0, lease=lease):
                    self.assert_leased(lease)
                self.assertTrue(self.lock.acquire(0, lease=lease))
                self.assert_leased(lease)
                self.lock.release()
        # Also for who could not have it
        with self.lock.acquire_timeout(0, lease=30):
            self.assertFalse(self.other.acquire(0))
            self.assertEqual(self.other.blocker, self.lock.holder)

    def test_very_long_leases(self):
        for lease in 2**63 / 1e9, 1e300, math.inf, 10**18:
            with self.subTest(lease):
                with self.lock.acquire_timeout(0, lease=lease):
                    self.assertEqual(tlock.status().holder[-4:-1],
                                     (True, False, None))

    def test_bad_leases(self):
        for bad, kind in ((0, ValueError), (-1, ValueError), (-0.5, ValueError),
                          (math.nan, ValueError), (-math.inf, ValueError),
                          ("30", TypeError), ([], TypeError)):
            with self.subTest(bad):
                for call in self.lock.acquire, self.lock.acquire_timeout:
                    with self.assertRaises(kind) as caught:
                        call(0, lease=bad)
                    self.assertIn("lease" if bad != [] else "list",
                                  str(caught.exception))
                self.assert_free()
                with self.lock.acquire_timeout(0, lease=30) as acquired:
                    for call in self.lock.renew, acquired.renew:
                        with self.assertRaises(kind):
                            call(lease=bad)
                    self.assert_leased(30)
        with self.assertRaises(TypeError):
            self.lock.acquire(0, "acq", 30)
        with self.assertRaises(TypeError):
            self.lock.acquire_timeout(0, "acq", 30)

    def test_is_of_one_acquisition(self):
        """A file that is used again has no lease of an earlier acquisition."""
        for lease in 30, None, 20, None:
            self.assertTrue(self.lock.acquire(0, "acq", lease=lease))
            if lease is None:
                self.assert_not_leased()
            else:
                self.assert_leased(lease)
            self.lock.release()
        with self.lock.acquire_timeout(0, "acq", lease=30):
            self.lock.release()
            self.assertTrue(self.lock.acquire(0, "acq"))
            self.assert_not_leased()
            self.lock.release()
            self.assertTrue(self.lock.acquire(0, "acq", lease=20))
            self.assert_leased(20)

    def test_ends_when_somebody_waits(self):
        before = tlock.status().revoked
        with self.assertRaises(Revoked) as caught:
            with self.lock.acquire_timeout(0, "acq", lease=SHORT) as acquired:
                since = tlock.status().holder.since_ns
                self.assertTrue(self.other.acquire(LONG))
                self.assertGreaterEqual(time.monotonic_ns(),
                                        since + seconds(SHORT))
                self.assertTrue(self.other.revoked)
                self.assertFalse(self.other.abandoned)
                self.assertEqual(tlock.status().revoked, before + 1)
                # As far as its calls have returned
                self.assertTrue(acquired)
        self.assertFalse(acquired)
        self.assertEqual((caught.exception.errno, caught.exception.filename),
                         (errno.ESTALE, "/dev/tlock"))
        self.assertIn("'acq'", str(caught.exception))
        self.assertGreater(self.other.token, acquired.token)
        self.other.release()
        # Nothing is left of it
        with self.lock.acquire_timeout(0) as acquired:
            self.assertFalse(acquired.revoked)

    def test_ends_when_somebody_tries(self):
        with self.assertRaises(Revoked):
            with self.lock.acquire_timeout(0, lease=SHORT):
                self.assertFalse(TimeoutLock(path="tlock").acquire(0))
                self.expire()
                self.assert_revoked_flag(self.other)

    def test_lasts_while_nobody_wants_the_lock(self):
        before = tlock.status().revoked
        for end in (self.lock.release, self.lock.renew,
                    lambda: self.lock.release_and_acquire(0)):
            with self.subTest(end):
                with self.lock.acquire_timeout(0, lease=SHORT):
                    self.expire()
                    end()
                with self.lock.acquire_timeout(0, lease=SHORT) as acquired:
                    self.assertFalse(acquired.revoked)
                    self.expire()
        self.assertEqual(tlock.status().revoked, before)

    def test_release_and_acquire_renews(self):
        with self.lock.acquire_timeout(0, lease=30) as acquired:
            for again in (self.lock.release_and_acquire,
                          acquired.release_and_acquire):
                now = time.monotonic_ns()
                self.assertTrue(again(0))
                self.assert_leased(30, now)
            # Also the grant after a waiter's
            call = Call(self.other.acquire, -1)
            self.wait_for_waiters(1)
            again = Call(acquired.release_and_acquire, LONG)
            self.assertTrue(call.result())
            self.wait_for_waiters(1)
            self.assert_not_leased()
            self.other.release()
            self.assertTrue(again.result())
            self.assert_leased(30)

    def test_renew(self):
        with self.lock.acquire_timeout(0, "acq", lease=30) as acquired:
            call = Call(self.other.acquire, -1)
            self.wait_for_waiters(1)
            token = acquired.token
            for renew in self.lock.renew, acquired.renew:
                now = time.monotonic_ns()
                self.assertIsNone(renew())
                self.assert_leased(30, now)
            # What is given here lasts
            now = time.monotonic_ns()
            self.lock.renew(lease=60)
            self.assert_leased(60, now)
            now = time.monotonic_ns()
            acquired.renew()
            self.assert_leased(60, now)
            self.assertEqual(tlock.status().holder.token, token)
            self.assertEqual(tlock.status().waiters, 1)
            self.assert_job("acq")
            self.assertTrue(acquired)
            again = Call(acquired.release_and_acquire, LONG)
            self.assertTrue(call.result())
            self.wait_for_waiters(1)
            self.other.release()
            self.assertTrue(again.result())
            self.assert_leased(60)
            now = time.monotonic_ns()
            self.assertTrue(acquired.release_and_acquire(0))
            self.assert_leased(60, now)
        # And not longer
        with self.lock.acquire_timeout(0, "acq", lease=30) as acquired:
            self.assert_leased(30)

    def test_renew_without_a_lease(self):
        with self.lock.acquire_timeout(0) as acquired:
            self.lock.renew()
            self.assert_not_leased()
            now = time.monotonic_ns()
            acquired.renew(lease=30)
            self.assert_leased(30, now)

    def test_renew_of_what_is_not_held(self):
        def assert_refused(renew):
            with self.assertRaises(RuntimeError) as caught:
                renew()
            self.assertNotIsInstance(caught.exception, Revoked)

        assert_refused(self.lock.renew)
        with self.lock.acquire_timeout(0, lease=30) as acquired:
            call = Call(self.other.acquire, -1)
            self.wait_for_waiters(1)
            again = Call(acquired.release_and_acquire, LONG)
            self.assertTrue(call.result())
            self.wait_for_waiters(1)
            assert_refused(self.lock.renew)
            assert_refused(acquired.renew)
            # That did not disturb it
            self.other.release()
            self.assertTrue(again.result())
            acquired.release()
            assert_refused(self.lock.renew)
            assert_refused(acquired.renew)
        assert_refused(acquired.renew)

    def test_renew_by_another_thread(self):
        self.assertTrue(self.lock.acquire(0, lease=30))
        now = time.monotonic_ns()
        Call(self.lock.renew).result()
        self.assert_leased(30, now)
        self.lock.release()

    def test_forked_child_cannot_renew(self):
        with self.lock.acquire_timeout(0, lease=30) as acquired:
            child = os.fork()
            if child == 0:
                for renew in self.lock.renew, acquired.renew:
                    try:
                        renew()
                        os._exit(1)
                    except RuntimeError:
                        pass
                os._exit(0)
            self.assertEqual(os.waitpid(child, 0)[1], 0)
            self.assert_leased(30)

    def test_stopped_holder(self):
        holder = self.agent()
        holder.do("lock.acquire(0, 'hangs', lease=%r)" % SHORT)
        os.kill(holder.pid, signal.SIGSTOP)
        try:
            with self.lock.acquire_timeout(LONG) as acquired:
                self.assertTrue(acquired)
                self.assertTrue(acquired.revoked)
        finally:
            os.kill(holder.pid, signal.SIGCONT)
        self.assertEqual(holder.do("lock.renew()"), "Revoked")

    def test_unchanged_agent_is_told(self):
        """Code that knows nothing of leases, like OCS's, handles RuntimeError
        or lets its operation fail."""
        self.assertTrue(self.lock.acquire(0))
        self.revoke()
        with self.assertRaises(RuntimeError):
            self.lock.release()


class Losing(Revocation):
    """What the old holder sees, once"""

    def setUp(self):
        super().setUp()
        self.lock = TimeoutLock(path="tlock")

    def test_by_each_call(self):
        def calls(one):
            return (one.release, one.renew, lambda: one.renew(lease=1),
                    lambda: one.release_and_acquire(0),
                    lambda: one.release_and_acquire(-1))

        for number in range(5):
            for of_the_lock in True, False:
                for lease in None, 30:
                    with self.subTest((number, of_the_lock, lease)):
                        with self.lock.acquire_timeout(
                                0, "acq", lease=lease) as acquired:
                            call = calls(self.lock if of_the_lock
                                         else acquired)[number]
                            self.revoke()
                            with self.assertRaises(Revoked) as caught:
                                call()
                            self.assertIn("'acq'", str(caught.exception))
                            self.assertFalse(acquired)
                            self.assert_idle()
                            for again in self.lock.release, self.lock.renew:
                                with self.assertRaises(RuntimeError) as caught:
                                    again()
                                self.assertNotIsInstance(caught.exception,
                                                         Revoked)
                        self.assert_revoked_flag(self.other)

    def test_acquired_again_after_the_loss(self):
        with self.lock.acquire_timeout(0, "acq", lease=30) as acquired:
            token = acquired.token
            self.revoke()
            with self.assertRaises(Revoked):
                acquired.release_and_acquire(0)
            self.assertTrue(acquired.release_and_acquire(0))
            self.assertGreater(acquired.token, token)
            self.assertTrue(acquired.revoked)
            self.assert_job("acq")
            self.assert_leased(30)
            self.revoke()
            with self.assertRaises(Revoked):
                self.lock.release()
            self.assertTrue(self.lock.acquire(0, "by hand"))
            self.assertTrue(acquired)
            self.assertTrue(acquired.revoked)
            self.assertTrue(self.lock.release_and_acquire(0))
            self.assertFalse(acquired.revoked)
            self.assertFalse(self.lock.revoked)
        self.assert_free()

    def test_exception_goes_on(self):
        for kind in KeyError, KeyboardInterrupt, RuntimeError:
            with self.subTest(kind):
                with self.assertRaises(kind) as caught:
                    with self.lock.acquire_timeout(0):
                        self.revoke()
                        raise kind
                self.assertIs(type(caught.exception), kind)
                with self.assertRaises(kind) as caught:
                    with self.lock:
                        self.revoke()
                        raise kind
                self.assertIs(type(caught.exception), kind)
                self.assert_revoked_flag(self.other)

    def test_with_lock(self):
        with self.assertRaises(Revoked):
            with self.lock:
                self.revoke()
        self.assert_revoked_flag(self.other)
        with self.lock:
            self.assertFalse(self.lock.revoked)

    def test_block_may_be_used_again(self):
        block = self.lock.acquire_timeout(0)
        with self.assertRaises(Revoked):
            with block:
                self.revoke()
        with block as acquired:
            self.assertTrue(acquired.revoked)

    def test_loser_spares_another_thread(self):
        """A thread that has lost the lock releases nobody else's."""
        for lose in (self.lock.renew,
                     lambda: self.lock.release_and_acquire(0)):
            with self.subTest(lose):
                self.assertTrue(self.lock.acquire(0))
                self.revoke()
                self.assertTrue(Call(self.lock.acquire, 0, "winner").result())
                with self.assertRaises(Revoked):
                    lose()
                with self.assertRaises(RuntimeError) as caught:
                    self.lock.release()
                self.assertNotIsInstance(caught.exception, Revoked)
                self.assert_job("winner")
                Call(self.lock.release).result()

    def test_another_thread_is_told(self):
        """Who ends an acquisition learns that it was over."""
        with self.lock.acquire_timeout(0) as acquired:
            self.revoke()
            with self.assertRaises(Revoked):
                Call(acquired.release).result()
            with self.assertRaises(RuntimeError) as caught:
                acquired.release()
            self.assertNotIsInstance(caught.exception, Revoked)

    def test_closed_or_dropped_without_a_call(self):
        """That is no abandonment: the lock was lost before."""
        before = tlock.status().abandoned
        holder = self.agent()
        holder.do("lock.acquire(0)")
        self.revoke()
        holder.kill()
        lock = TimeoutLock(path="tlock")
        self.assert_revoked_flag(self.other)
        self.assertTrue(lock.acquire(0))
        self.revoke()
        del lock
        self.assert_revoked_flag(self.other)
        self.assertEqual(tlock.status().abandoned, before)

    def test_next_holder_that_dies(self):
        self.assertTrue(self.other.acquire(0))
        self.revoke()
        holder = self.agent()
        self.assertTrue(holder.do("lock.acquire(0) and lock.revoked"))
        with self.assertRaises(Revoked):
            self.other.release()
        holder.kill()
        self.wait_for(lambda: tlock.status().holder is None, "free lock")
        with self.lock.acquire_timeout(0) as acquired:
            self.assertEqual((acquired.abandoned, acquired.revoked),
                             (True, False))

    def test_cancel_of_a_call_that_has_lost(self):
        """A cancel() neither hides the loss nor waits for ever."""
        with self.lock.acquire_timeout(0) as acquired:
            self.revoke()
            self.assertFalse(self.lock.cancel())
            with self.assertRaises(Revoked):
                acquired.release_and_acquire(0)


class Revoking(Revocation):
    def setUp(self):
        super().setUp()
        self.lock = TimeoutLock(path="tlock")

    def test_at_once(self):
        before = tlock.status().revoked
        with self.assertRaises(Revoked):
            with self.lock.acquire_timeout(0) as acquired:
                self.assertIs(tlock.revoke(acquired.token), True)
                self.assert_free()
                self.assertEqual(tlock.status().revoked, before + 1)
                # It is another grant by now
                self.assertIs(tlock.revoke(acquired.token), False)
                with self.other.acquire_timeout(0):
                    self.assertIs(tlock.revoke(acquired.token), False)
        self.assertEqual(tlock.status().revoked, before + 1)

    def test_nothing_newer(self):
        with self.lock.acquire_timeout(0) as acquired:
            for token in (0, 1, acquired.token - 1, acquired.token + 1, -1,
                          2**64 - 1, acquired.token + 2**64,
                          acquired.token - 2**64):
                with self.subTest(token):
                    self.assertIs(tlock.revoke(token), False)
            self.lock.renew()

    def test_grace(self):
        with self.assertRaises(Revoked):
            with self.lock.acquire_timeout(0) as acquired:
                now = time.monotonic_ns()
                self.assertIs(tlock.revoke(acquired.token, 20), True)
                holder = tlock.status().holder
                self.assertEqual((holder.leased, holder.revoking),
                                 (False, True))
                self.assertLessEqual(now, holder.expires_ns - seconds(20))
                self.assertLessEqual(holder.expires_ns - seconds(20),
                                     time.monotonic_ns())
                # It can only become shorter
                self.assertIs(tlock.revoke(acquired.token, grace=30), True)
                self.assertEqual(tlock.status().holder, holder)
                self.lock.renew(lease=40)
                self.assertEqual(tlock.status().holder,
                                 holder._replace(leased=True))
                self.assertIs(tlock.revoke(acquired.token, grace=SHORT), True)
                self.assertLess(tlock.status().holder.expires_ns,
                                holder.expires_ns)
                self.expire()
                self.lock.renew()
                self.assertTrue(self.other.acquire(0))
        self.assertTrue(self.other.revoked)
        self.other.release()

    def test_grace_for_ever(self):
        with self.lock.acquire_timeout(0) as acquired:
            self.assertTrue(tlock.revoke(acquired.token, math.inf))
            self.assertEqual(tlock.status().holder[-4:-1], (False, True, None))

    def test_holder_lets_others_in_during_the_grace(self):
        before = tlock.status().revoked
        with self.lock.acquire_timeout(0) as acquired:
            self.assertTrue(tlock.revoke(acquired.token, LONG))
            call = Call(self.other.acquire, -1)
            self.wait_for_waiters(1)
            again = Call(acquired.release_and_acquire, -1)
            self.assertTrue(call.result())
            self.assertFalse(self.other.revoked)
            self.other.release()
            self.assertTrue(again.result())
            # The revocation was of the grant before
            self.assert_not_leased()
        self.assertEqual(tlock.status().revoked, before)

    def test_bad_arguments(self):
        with self.lock.acquire_timeout(0) as acquired:
            for bad in -1, -0.5, math.nan:
                with self.assertRaises(ValueError):
                    tlock.revoke(acquired.token, bad)
            for bad in (acquired.token, "1"), ("token",), (None,), (1.5,):
                with self.assertRaises(TypeError):
                    tlock.revoke(*bad)
            self.lock.renew()

    def test_which_lock(self):
        self.new_lock("psu")
        psu = TimeoutLock(path="psu")
        with self.lock.acquire_timeout(0) as one:
            with self.assertRaises(Revoked):
                with psu.acquire_timeout(0) as two:
                    self.assertFalse(tlock.revoke(two.token))
                    self.assertFalse(tlock.revoke(one.token, path="psu"))
                    self.assertTrue(tlock.revoke(two.token, path=psu.path))
        with self.assertRaises(FileNotFoundError):
            tlock.revoke(1, path="stage")

    def test_permission(self):
        mode = os.stat("/dev/tlock").st_mode & 0o777
        self.addCleanup(os.chmod, "/dev/tlock", mode)
        os.chmod("/dev/tlock", 0o666)
        stranger = self.agent()
        # Not for another test
        self.addCleanup(stranger.kill)
        stranger.do("os.setuid(65534)")
        with self.lock.acquire_timeout(0) as acquired:
            self.assertEqual(
                stranger.do("tlock.revoke(%d)" % acquired.token),
                "PermissionError")
            # Which grant it is comes first
            self.assertIs(stranger.do("tlock.revoke(1)"), False)
            self.lock.renew()
            os.chmod("/dev/tlock", 0o444)
            self.assertEqual(
                stranger.do("tlock.revoke(%d)" % acquired.token),
                "PermissionError")
            os.chmod("/dev/tlock", 0o666)
        # One's own, and root's right
        stranger.do("lock.acquire(0)")
        token = tlock.status().holder.token
        self.assertIs(stranger.do("tlock.revoke(%d)" % token), True)
        self.assertEqual(stranger.do("lock.release()"), "Revoked")
        stranger.do("lock.acquire(0)")
        self.revoke()
        self.assertEqual(stranger.do("lock.release()"), "Revoked")

    def test_no_file_stays_open(self):
        with self.lock.acquire_timeout(0) as acquired:
            before = len(os.listdir("/proc/self/fd"))
            for token in 1, acquired.token:
                tlock.revoke(token, LONG)
            self.assertEqual(len(os.listdir("/proc/self/fd")), before)

    def test_events(self):
        with tlock.Monitor() as events:
            with self.assertRaises(Revoked):
                with self.lock.acquire_timeout(0, "acq", lease=SHORT) as first:
                    self.assertTrue(self.other.acquire(LONG, "other"))
                    second = self.other.token
                    self.revoke()
            with self.assertRaises(Revoked):
                self.other.release()
            with self.lock.acquire_timeout(0, "acq", lease=SHORT) as third:
                tlock.revoke(third.token, SHORT)
                self.expire()
                with self.other.acquire_timeout(0):
                    pass
                with self.assertRaises(Revoked):
                    self.lock.release()
            seen = []
            while not seen or seen[-1].kind != "released":
                seen.append(next(events))
        self.assertEqual(
            [(event.kind, event.token, event.job, event.revoking)
             for event in seen if event.token],
            [("acquired", first.token, "acq", False),
             ("revoked", first.token, "acq", False),
             ("acquired", second, "other", False),
             ("revoked", second, "other", True),
             ("acquired", third.token, "acq", False),
             ("revoked", third.token, "acq", True),
             ("acquired", third.token + 1, "unnamed", False),
             ("released", third.token + 1, "unnamed", False)])


def in_loop(test):
    """Makes a test of a coroutine."""
    def method(self):
        asyncio.run(asyncio.wait_for(test(self), 4 * LONG))
    method.__name__ = test.__name__
    method.__doc__ = test.__doc__
    return method


class Loops(Revocation, LoopTestCase):
    """The same in an event loop"""

    sleep = staticmethod(asyncio.sleep)

    def setUp(self):
        super().setUp()
        self.lock = aio.TimeoutLock(path="tlock")
        # The test's object lives on, and would keep the file
        self.addCleanup(gc.collect)
        self.addCleanup(vars(self).pop, "lock", None)

    async def assert_raises_once(self, acquired, call):
        """Asserts that a call of an acquisition that was revoked says so."""
        with self.assertRaises(Revoked) as caught:
            result = call()
            if asyncio.iscoroutine(result):
                await result
        self.assertEqual((caught.exception.errno, caught.exception.filename),
                         (errno.ESTALE, "/dev/tlock"))
        self.assertIn("'acq'", str(caught.exception))
        self.assertFalse(acquired)
        self.assert_idle()
        for again in self.lock.release, self.lock.renew:
            with self.assertRaises(RuntimeError) as caught:
                again()
            self.assertNotIsInstance(caught.exception, Revoked)

    @in_loop
    async def test_by_each_call(self):
        def calls(one):
            return (one.release, one.renew, lambda: one.renew(lease=1),
                    lambda: one.release_and_acquire(0),
                    lambda: one.release_and_acquire(-1), one.wanted)

        for number in range(6):
            for of_the_lock in True, False:
                with self.subTest((number, of_the_lock)):
                    async with self.lock.acquire_timeout(
                            0, "acq", lease=30) as acquired:
                        call = calls(self.lock if of_the_lock
                                     else acquired)[number]
                        self.revoke()
                        await self.assert_raises_once(acquired, call)
                    self.assert_revoked_flag(self.other)

    @in_loop
    async def test_leases(self):
        with self.assertRaises(Revoked):
            async with self.lock.acquire_timeout(0, lease=SHORT):
                self.assert_leased(SHORT)
                other = aio.TimeoutLock(path="tlock")
                self.assertTrue(await other.acquire(LONG))
                self.assertTrue(other.revoked)
                self.revoke()
        self.assertTrue(await self.lock.acquire(0, lease=30))
        self.assertTrue(self.lock.revoked)
        self.assert_leased(30)
        now = time.monotonic_ns()
        self.assertTrue(await self.lock.release_and_acquire(0))
        self.assertFalse(self.lock.revoked)
        self.assert_leased(30, now)
        call = Call(self.other.acquire, -1)
        self.wait_for_waiters(1)
        now = time.monotonic_ns()
        self.assertIsNone(self.lock.renew(lease=60))
        self.assert_leased(60, now)
        self.assertEqual(tlock.status().waiters, 1)
        again = asyncio.ensure_future(self.lock.release_and_acquire(LONG))
        await asyncio.sleep(0)
        self.assertTrue(call.result())
        with self.assertRaises(RuntimeError):
            self.lock.renew()
        now = time.monotonic_ns()
        self.other.release()
        self.assertTrue(await again)
        self.assert_leased(60, now)
        self.lock.release()
        with self.assertRaises(RuntimeError):
            self.lock.renew()
        self.assertTrue(await self.lock.acquire(0))
        self.assert_not_leased()
        self.lock.release()

    @in_loop
    async def test_bad_leases(self):
        for bad in 0, -1, math.nan:
            for call in self.lock.acquire, self.lock.acquire_timeout:
                with self.assertRaises(ValueError):
                    call(0, lease=bad)
            async with self.lock.acquire_timeout(0, lease=30):
                with self.assertRaises(ValueError):
                    self.lock.renew(lease=bad)
                self.assert_leased(30)

    @in_loop
    async def test_lease_of_a_fetched_grant(self):
        """A lease begins when the loop has noticed the grant."""
        self.assertTrue(self.other.acquire(0))
        task = asyncio.ensure_future(self.lock.acquire(LONG, lease=30))
        await self.until_waiters(1)
        self.other.release()
        self.granted_to_us()
        granted = tlock.status().holder
        self.wait_for(lambda: time.monotonic_ns() > granted.since_ns, "time")
        now = time.monotonic_ns()
        self.assertTrue(await task)
        self.assert_leased(30, now)
        self.lock.release()

    @in_loop
    async def test_grant_that_is_lost_before_it_is_fetched(self):
        for lease, lose in (
                (None, self.revoke),
                (SHORT, lambda: [self.expire(), self.other.acquire(0),
                                 self.other.release()])):
            with self.subTest(lease):
                self.assertTrue(self.other.acquire(0))
                task = asyncio.ensure_future(
                    self.lock.acquire(LONG, "acq", lease=lease))
                await self.until_waiters(1)
                self.other.release()
                # The loop is busy
                self.granted_to_us()
                lose()
                with self.assertRaises(Revoked):
                    await task
                self.assert_idle()
                with self.assertRaises(RuntimeError) as caught:
                    self.lock.release()
                self.assertNotIsInstance(caught.exception, Revoked)
                self.assertTrue(await self.lock.acquire(0))
                self.lock.release()

    @in_loop
    async def test_regrant_that_is_lost_before_it_is_fetched(self):
        async with self.lock.acquire_timeout(0, "acq", lease=30) as acquired:
            call = Call(self.other.acquire, -1)
            self.wait_for_waiters(1)
            task = asyncio.ensure_future(acquired.release_and_acquire(LONG))
            await asyncio.sleep(0)
            self.assertTrue(call.result())
            self.other.release()
            self.granted_to_us()
            self.revoke()
            with self.assertRaises(Revoked):
                await task
            self.assertFalse(acquired)
            self.assertTrue(await acquired.release_and_acquire(0))
            self.assertTrue(acquired.revoked)

    @in_loop
    async def test_cancelled_and_lost(self):
        """A task that is cancelled as its grant is lost ends by that."""
        self.assertTrue(self.other.acquire(0))
        task = asyncio.ensure_future(self.lock.acquire(LONG))
        await self.until_waiters(1)
        self.other.release()
        self.granted_to_us()
        self.revoke()
        task.cancel()
        with self.assertRaises(asyncio.CancelledError):
            await task
        self.assert_idle()
        # Fetched, but not returned yet
        async with self.lock.acquire_timeout(0) as acquired:
            call = Call(self.other.acquire, -1)
            self.wait_for_waiters(1)
            task = asyncio.ensure_future(acquired.release_and_acquire(LONG))
            await asyncio.sleep(0)
            self.assertTrue(call.result())
            self.other.release()
            self.granted_to_us()
            # What the loop would call now
            for key in list(asyncio.get_running_loop()._selector.get_map()
                            .values()):
                if key.data[1] is not None:
                    key.data[1]._run()
            self.revoke()
            task.cancel()
            with self.assertRaises(asyncio.CancelledError):
                await task
            self.assert_idle()
            # As after any wait that was cancelled
            self.assertTrue(await acquired.release_and_acquire(0))
            self.assertTrue(acquired.revoked)

    @in_loop
    async def test_both_flags(self):
        holder = self.agent()
        holder.do("lock.acquire(0)")
        task = asyncio.ensure_future(self.lock.acquire(LONG))
        await self.until_waiters(1)
        holder.kill()
        self.granted_to_us()
        self.revoke()
        with self.assertRaises(Revoked):
            await task
        async with self.lock.acquire_timeout(0) as acquired:
            self.assertTrue(acquired.abandoned)
            self.assertTrue(acquired.revoked)
            self.assertTrue(self.lock.abandoned)
            self.assertTrue(self.lock.revoked)

    @in_loop
    async def test_exception_goes_on(self):
        for kind in KeyError, asyncio.CancelledError:
            for block in (lambda: self.lock.acquire_timeout(0),
                          lambda: self.lock):
                with self.subTest((kind, block)):
                    with self.assertRaises(kind):
                        async with block():
                            self.revoke()
                            raise kind
                    self.assert_revoked_flag(self.other)

    @in_loop
    async def test_async_with_lock(self):
        with self.assertRaises(Revoked):
            async with self.lock:
                self.revoke()
        block = self.lock.acquire_timeout(0)
        with self.assertRaises(Revoked):
            async with block as acquired:
                self.assertTrue(acquired.revoked)
                self.revoke()
        async with block as acquired:
            self.assertTrue(acquired.revoked)
        self.assert_free()

    @in_loop
    async def test_loser_spares_another_task(self):
        async def win():
            self.assertTrue(await self.lock.acquire(0, "winner"))

        for lose in (self.lock.renew, self.lock.wanted,
                     lambda: self.lock.release_and_acquire(0)):
            with self.subTest(lose):
                self.assertTrue(await self.lock.acquire(0))
                self.revoke()
                await asyncio.ensure_future(win())
                with self.assertRaises(Revoked):
                    result = lose()
                    if asyncio.iscoroutine(result):
                        await result
                with self.assertRaises(RuntimeError) as caught:
                    self.lock.release()
                self.assertNotIsInstance(caught.exception, Revoked)
                self.assert_job("winner")
                # This task owns nothing any more, so this means the winner's
                self.lock.release()

    def test_watchers(self):
        """They learn of it at once, by whatever the loop uses."""
        async def watch():
            async with self.lock.acquire_timeout(0, "acq") as acquired:
                tasks = [asyncio.ensure_future(one.wanted())
                         for one in (acquired, self.lock, acquired)]
                await asyncio.sleep(0)
                self.revoke()
                used = time.process_time()
                for task in tasks:
                    with self.assertRaises(Revoked):
                        await task
                self.assertFalse(acquired)
                await asyncio.sleep(1)
                self.assertLess(time.process_time() - used, 0.5)
                self.assert_idle()
                # By a call that comes first
                self.assertTrue(await acquired.release_and_acquire(0))
                for call in (acquired.release, acquired.renew,
                             lambda: acquired.release_and_acquire(0)):
                    task = asyncio.ensure_future(acquired.wanted())
                    await asyncio.sleep(0)
                    self.revoke()
                    with self.assertRaises(Revoked):
                        result = call()
                        if asyncio.iscoroutine(result):
                            await result
                    with self.assertRaises(Revoked):
                        await task
                    self.assertTrue(await self.lock.acquire(0, "acq"))

        for kind in (selectors.EpollSelector, selectors.PollSelector,
                     selectors.SelectSelector):
            with self.subTest(kind):
                loop = asyncio.SelectorEventLoop(kind())
                loop.run_until_complete(watch())
                loop.close()
                self.assert_free()


if __name__ == "__main__":
    ktap.main()
