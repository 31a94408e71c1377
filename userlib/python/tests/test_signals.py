#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""Signals during a wait, and KeyboardInterrupt anywhere at all."""
import contextlib
import os
import signal
import sys
import time

import ktap  # first: finds this tree's package
import tlock
from tlock import TimeoutLock
from helper import Call, TestCase


class SignalTestCase(TestCase):
    def setUp(self):
        super().setUp()
        for number in signal.SIGINT, signal.SIGALRM:
            self.addCleanup(signal.signal, number, signal.getsignal(number))
        self.addCleanup(signal.setitimer, signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def signal_the_waiter(self, number, waiters):
        """Signals this process as soon as there are so many waiters"""
        def run():
            self.wait_for_waiters(waiters)
            os.kill(os.getpid(), number)
        return Call(run)


class HandlerReturns(SignalTestCase):
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
            # The other one has got it by then, and we wait
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
        for timeout in -1, 1000:
            signaller = self.signal_the_waiter(signal.SIGINT, 1)
            with self.assertRaises(KeyboardInterrupt):
                with lock.acquire_timeout(timeout):
                    self.fail("the block runs")
            signaller.result()
            self.assertEqual(tlock.status().waiters, 0)
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
        self.assert_job("other")
        other.do("lock.release()")
        self.assert_free()


class InterruptEverywhere(SignalTestCase):
    """KeyboardInterrupt before each instruction of the package, in turn"""

    FILES = (os.path.dirname(tlock.__file__), contextlib.__file__)

    def interrupt(self, scenario, instruction):
        """Returns whether the scenario was so long that it was interrupted."""
        count = 0

        def trace(frame, event, _):
            nonlocal count
            if not frame.f_code.co_filename.startswith(self.FILES):
                return None
            frame.f_trace_opcodes = True
            if event == "opcode":
                count += 1
                if count == instruction:
                    sys.settrace(None)
                    raise KeyboardInterrupt
            return trace

        try:
            sys.settrace(trace)
            scenario()
        except KeyboardInterrupt:
            return True
        finally:
            sys.settrace(None)
        return False

    def interrupt_everywhere(self, scenario, prepare=lambda lock: None,
                             held_is_fine=False):
        instruction = 0
        interrupted = True
        while interrupted:
            instruction += 1
            lock = TimeoutLock()
            prepare(lock)
            interrupted = self.interrupt(lambda: scenario(lock), instruction)
            if held_is_fine:
                # As a finally clause does: it is held still, or was lost
                with contextlib.suppress(RuntimeError):
                    lock.release()
            self.assertIsNone(tlock.status().holder,
                              "held after instruction %d" % instruction)
            # It is as good as new
            with lock.acquire_timeout(0) as acquired:
                self.assertTrue(acquired)
                self.assertTrue(lock.release_and_acquire(0))
            self.assert_free()
        self.assertGreater(instruction, 50)

    def test_block(self):
        def scenario(lock):
            with lock.acquire_timeout(0):
                pass

        self.interrupt_everywhere(scenario)

    def test_block_with_an_exception(self):
        def scenario(lock):
            with contextlib.suppress(KeyError):
                with lock.acquire_timeout(0):
                    raise KeyError

        self.interrupt_everywhere(scenario)

    def test_release_and_acquire_in_a_block(self):
        def scenario(lock):
            with lock.acquire_timeout(0):
                lock.release_and_acquire(0)

        self.interrupt_everywhere(scenario)

    def test_acquire(self):
        # On the way back to its caller it may be held
        self.interrupt_everywhere(lambda lock: lock.acquire(0) and
                                  lock.release(), held_is_fine=True)

    def test_release_and_acquire(self):
        self.interrupt_everywhere(lambda lock: lock.release_and_acquire(0),
                                  lambda lock: lock.acquire(0), True)

    def test_release(self):
        self.interrupt_everywhere(lambda lock: lock.release(),
                                  lambda lock: lock.acquire(0), True)


if __name__ == "__main__":
    ktap.main()
