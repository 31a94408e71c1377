#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""Signals during a wait."""
import contextlib
import hashlib
import os
import signal
import threading
import time

import ktap  # first: finds this tree's package
import tlock
from tlock import TimeoutLock
from helper import LONG, Call, SignalTestCase, TestCase, states


class NoHandler(TestCase):
    """A stop and a continue, in which no handler runs"""

    def waiter(self, again, timeout):
        """Returns an agent that waits, the agent that holds the lock, and
        the time before the wait.

        The first agent's result is what its call returned, and its token.
        """
        waiter, holder = self.agent(), self.agent()
        if again:
            waiter.do("lock.acquire(0, 'acq')")
            holder.begin("lock.acquire(-1, 'other')")
            self.wait_for_waiters(1)
            call = "lock.release_and_acquire(%r)"
        else:
            holder.do("lock.acquire(0, 'other')")
            call = "lock.acquire(%r, 'acq')"
        begin = time.monotonic()
        waiter.begin("[%s, lock.token]" % (call % timeout))
        if again:
            holder.result()
        self.wait_for_waiters(1)
        return waiter, holder, begin

    def stop(self, agent):
        os.kill(agent.pid, signal.SIGSTOP)
        self.wait_for(lambda: "away" in states(agent.pid), "stopped waiter")

    def check_place(self, again):
        waiter, holder, _ = self.waiter(again, -1)
        behind = self.agent()
        behind.begin("lock.acquire(-1) and lock.token")
        self.wait_for_waiters(2)
        for _ in range(3):
            self.stop(waiter)
            self.assertEqual(tlock.status().waiters, 1)
            os.kill(waiter.pid, signal.SIGCONT)
            self.wait_for_waiters(2)
        token = holder.do("lock.token")
        holder.do("lock.release()")
        self.assertEqual(waiter.result(), [True, token + 1])
        self.assert_job("acq")
        waiter.do("lock.release()")
        self.assertEqual(behind.result(), token + 2)

    def test_acquire_keeps_its_place(self):
        self.check_place(False)

    def test_release_and_acquire_keeps_its_place(self):
        self.check_place(True)

    def check_deadline(self, again):
        waiter, _, begin = self.waiter(again, 4)
        self.stop(waiter)
        # It has most of its time left
        self.assertLess(time.monotonic() - begin, 2)
        time.sleep(begin + 5 - time.monotonic())
        os.kill(waiter.pid, signal.SIGCONT)
        self.assertFalse(waiter.result()[0])
        self.assertLess(time.monotonic() - begin, 7)
        self.assertEqual(waiter.do("lock.blocker.job"), "other")

    def test_acquire_keeps_its_deadline(self):
        self.check_deadline(False)

    def test_release_and_acquire_keeps_its_deadline(self):
        self.check_deadline(True)


class HandlerReturns(SignalTestCase):
    def check_place(self, call, handler=lambda lock: None):
        """A wait that a handler interrupts stays ahead of later ones."""
        lock = TimeoutLock()
        again = call == "release_and_acquire"
        other, behind = self.agent(), self.agent()
        handled = threading.Event()
        waiters = []

        def on_alarm(*_):
            waiters.append(tlock.status().waiters)
            handler(lock)
            handled.set()

        def interrupt():
            if again:
                other.result()
            self.wait_for_waiters(1)
            behind.begin("lock.acquire(-1) and lock.token")
            self.wait_for_waiters(2)
            os.kill(os.getpid(), signal.SIGALRM)
            self.assertTrue(handled.wait(LONG))
            self.wait_for_waiters(2)
            other.do("lock.release()")

        signal.signal(signal.SIGALRM, on_alarm)
        with contextlib.ExitStack() as stack:
            if call != "acquire_timeout":
                stack.enter_context(lock.acquire_timeout(0, "mine"))
            if again:
                other.begin("lock.acquire(-1)")
                self.wait_for_waiters(1)
            else:
                if call == "acquire":
                    lock.release()
                other.do("lock.acquire(0)")
            interrupter = Call(interrupt)
            if again:
                taken = lock.release_and_acquire(-1)
            elif call == "acquire":
                taken = lock.acquire(-1, "mine")
            else:
                taken = stack.enter_context(lock.acquire_timeout(-1, "mine"))
            self.assertTrue(taken)
            interrupter.result()
            self.assert_job("mine")
            token = lock.token
        # The request was away while the handler ran
        self.assertEqual(waiters, [1])
        self.assertEqual(behind.result(), token + 1)
        behind.do("lock.release()")
        self.assert_idle()

    def test_block_keeps_its_place(self):
        self.check_place("acquire_timeout")

    def test_acquire_keeps_its_place(self):
        self.check_place("acquire")

    def test_release_and_acquire_keeps_its_place(self):
        self.check_place("release_and_acquire")

    def use(self, lock):
        """Calls that a handler may make: they fail, and change nothing."""
        for call in lock.release, lock.release_and_acquire:
            with self.assertRaises(RuntimeError):
                call()
        with lock.acquire_timeout(0.01) as acquired:
            self.assertFalse(acquired)
        self.assertFalse(lock.acquire(0))

    def test_handler_uses_the_lock_of_a_block(self):
        self.check_place("acquire_timeout", self.use)

    def test_handler_uses_the_lock_during_an_acquire(self):
        self.check_place("acquire", self.use)

    def test_handler_uses_the_lock_during_a_release_and_acquire(self):
        self.check_place("release_and_acquire", self.use)

    def check_profiler(self, timer, number):
        """Others take turns: an interrupted waiter gets its turn, too."""
        lock = TimeoutLock()
        others = [self.agent(), self.agent()]
        ticks = []
        signal.signal(number, lambda *_: ticks.append(1))
        for other in others:
            other.begin("[(lock.acquire(-1), time.sleep(0.1), lock.release()) "
                        "for _ in range(1000)] and None")
        interrupted = tlock.status().interrupted
        signal.setitimer(timer, 0.02, 0.02)
        while len(ticks) < 10:
            self.wait_for_waiters(1)
            before = tlock.status().acquired
            self.assertTrue(lock.acquire(LONG))
            # If it is in the handler when its turn comes, it gets the next one
            self.assertLessEqual(tlock.status().acquired - before, 8)
            lock.release()
        signal.setitimer(timer, 0)
        self.assertGreater(tlock.status().interrupted, interrupted)

    def test_timer(self):
        self.check_profiler(signal.ITIMER_REAL, signal.SIGALRM)

    def test_profiler(self):
        # This timer's clock runs only while the process does: another thread
        # keeps running, and blocks the signal so that this thread gets it
        done = threading.Event()

        def work():
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGPROF])
            while not done.is_set():
                hashlib.pbkdf2_hmac("sha256", b"", b"", 1000)

        worker = Call(work)
        try:
            self.check_profiler(signal.ITIMER_PROF, signal.SIGPROF)
        finally:
            done.set()
            worker.result()

    def test_acquire_goes_on(self):
        lock = TimeoutLock()
        other = self.agent()
        other.do("lock.acquire(0, 'other')")
        count = []
        signal.signal(signal.SIGALRM, lambda *_: count.append(1))
        signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
        begin = time.monotonic()
        self.assertFalse(lock.acquire(1))
        elapsed = time.monotonic() - begin
        signal.setitimer(signal.ITIMER_REAL, 0)
        self.assertGreater(len(count), 2)
        self.assertGreaterEqual(elapsed, 1)
        self.assertLess(elapsed, 2)
        self.assertEqual(lock.job, "other")

    def test_acquire_for_ever_goes_on(self):
        lock = TimeoutLock()
        other = self.agent()
        other.do("lock.acquire(0, 'other')")

        def handler(*_):
            count.append(1)
            if len(count) == 5:
                signal.setitimer(signal.ITIMER_REAL, 0)
                other.do("lock.release()")

        count = []
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
        self.assertTrue(lock.acquire(-1, "mine"))
        self.assert_job("mine")
        lock.release()

    def test_time_in_the_handler_counts(self):
        lock = TimeoutLock()
        other = self.agent()
        other.do("lock.acquire(0, 'other')")
        signal.signal(signal.SIGALRM, lambda *_: time.sleep(2))
        signaller = self.signal_the_waiter(signal.SIGALRM, 1)
        begin = time.monotonic()
        self.assertFalse(lock.acquire(2))
        # With the time that was left when the signal came: nearly 4 seconds
        self.assertLess(time.monotonic() - begin, 3.5)
        self.assertEqual(lock.job, "other")
        signaller.result()

    def test_release_and_acquire_goes_on(self):
        lock = TimeoutLock()
        other = self.agent()
        with lock.acquire_timeout(0, "acq"):
            other.begin("lock.acquire(-1, 'other')")
            self.wait_for_waiters(1)

            def handler(*_):
                other.begin("lock.release()")

            signal.signal(signal.SIGALRM, handler)
            # By then the other one holds the lock, and we wait
            def run():
                other.result()
                self.wait_for_waiters(1)
                os.kill(os.getpid(), signal.SIGALRM)
            signaller = Call(run)
            self.assertTrue(lock.release_and_acquire(-1))
            self.assert_job("acq")
            signaller.result()
            other.result()
        self.assert_free()

    def test_release_and_acquire_ends_in_time(self):
        lock = TimeoutLock()
        other = self.agent()
        signal.signal(signal.SIGALRM, lambda *_: None)
        with lock.acquire_timeout(0, "acq"):
            other.begin("lock.acquire(-1, 'other')")
            self.wait_for_waiters(1)
            signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
            begin = time.monotonic()
            self.assertFalse(lock.release_and_acquire(0.5))
            elapsed = time.monotonic() - begin
            signal.setitimer(signal.ITIMER_REAL, 0)
            self.assertGreaterEqual(elapsed, 0.5)
            self.assertLess(elapsed, 1.5)
            self.assertEqual(lock.job, "other")
            self.assertTrue(other.result())
        self.assert_job("other")


class HandlerRaises(SignalTestCase):
    def test_interrupted_acquire(self):
        lock = TimeoutLock()
        other = self.agent()
        other.do("lock.acquire(0, 'other')")

        def block(timeout):
            with lock.acquire_timeout(timeout):
                self.fail("the block runs")

        for call in block, lock.acquire:
            for timeout in -1, 1000:
                signaller = self.signal_the_waiter(signal.SIGINT, 1)
                with self.assertRaises(KeyboardInterrupt):
                    call(timeout)
                signaller.result()
                self.assertEqual(tlock.status().waiters, 0)
                self.assert_idle()
                self.assert_job("other")
        other.do("lock.release()")
        self.assert_free()
        with self.assertRaises(RuntimeError):
            lock.release()

    def test_interrupted_release_and_acquire(self):
        lock = TimeoutLock()
        other = self.agent()
        with self.assertRaises(KeyboardInterrupt):
            with lock.acquire_timeout(0, "acq"):
                other.begin("lock.acquire(-1, 'other')")
                self.wait_for_waiters(1)

                def run():
                    other.result()
                    self.wait_for_waiters(1)
                    os.kill(os.getpid(), signal.SIGINT)
                signaller = Call(run)
                lock.release_and_acquire(-1)
        signaller.result()
        self.assertEqual(tlock.status().waiters, 0)
        self.assert_idle()
        self.assert_job("other")
        other.do("lock.release()")
        self.assert_free()

    def test_interrupted_wait_lost_its_place(self):
        # The same contender then asks anew, at the end of the queue
        lock = TimeoutLock()
        other, behind = self.agent(), self.agent()
        other.do("lock.acquire(0)")

        def interrupt():
            self.wait_for_waiters(1)
            behind.begin("lock.acquire(-1) and lock.token")
            self.wait_for_waiters(2)
            os.kill(os.getpid(), signal.SIGINT)

        interrupter = Call(interrupt)
        with self.assertRaises(KeyboardInterrupt):
            lock.acquire(-1)
        interrupter.result()
        call = Call(lock.acquire, -1)
        self.wait_for_waiters(2)
        other.do("lock.release()")
        token = behind.result()
        behind.do("lock.release()")
        self.assertTrue(call.result())
        self.assertEqual(lock.token, token + 1)
        lock.release()


if __name__ == "__main__":
    ktap.main()
