#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""KeyboardInterrupt at any point."""
import contextlib
import os
import signal
import sys

import ktap  # first: finds this tree's package
import tlock
from tlock import TimeoutLock
from helper import SignalTestCase


class InterruptEverywhere(SignalTestCase):
    """KeyboardInterrupt before each instruction of the package, in turn.

    Where a turn takes long, only before each line.
    """

    FILES = (os.path.dirname(tlock.__file__),)

    def interrupt(self, scenario, step, steps):
        """Returns whether the scenario was long enough to be interrupted."""
        count = 0
        interrupted = False

        def trace(frame, event, _):
            nonlocal count, interrupted
            if not frame.f_code.co_filename.startswith(self.FILES):
                return None
            # Python 3.9 loses what a line event raises if there are opcode events
            frame.f_trace_opcodes = steps == "opcode"
            if event == steps:
                count += 1
                if count == step:
                    sys.settrace(None)
                    interrupted = True
                    raise KeyboardInterrupt
            return trace

        try:
            sys.settrace(trace)
            # Python drops a KeyboardInterrupt raised in a __del__()
            with contextlib.suppress(KeyboardInterrupt):
                scenario()
        finally:
            sys.settrace(None)
        return interrupted

    def interrupt_everywhere(self, scenario, prepare=lambda lock: None,
                             held_is_fine=False, finish=lambda: None,
                             steps="opcode"):
        step = 0
        interrupted = True
        # Print nothing for those raised in a __del__()
        self.addCleanup(setattr, sys, "unraisablehook", sys.unraisablehook)
        sys.unraisablehook = lambda _: None
        while interrupted:
            step += 1
            lock = TimeoutLock()
            prepare(lock)
            interrupted = self.interrupt(lambda: scenario(lock), step, steps)
            if held_is_fine:
                # As a finally clause does: the lock is still held, or was lost
                with contextlib.suppress(RuntimeError):
                    lock.release()
            finish()
            self.assertIsNone(tlock.status().holder,
                              "held after %s %d" % (steps, step))
            # The object still works as a new one does
            with lock.acquire_timeout(0) as acquired:
                self.assertTrue(acquired)
                self.assertTrue(lock.release_and_acquire(0))
            self.assert_free()
        self.assertGreater(step, 20 if steps == "line" else 50)

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
        # Interrupted on the way back to the caller, the lock may stay held
        self.interrupt_everywhere(lambda lock: lock.acquire(0) and
                                  lock.release(), held_is_fine=True)

    def test_release_and_acquire(self):
        self.interrupt_everywhere(lambda lock: lock.release_and_acquire(0),
                                  lambda lock: lock.acquire(0), True)

    def test_release(self):
        self.interrupt_everywhere(lambda lock: lock.release(),
                                  lambda lock: lock.acquire(0), True)

    def alarmed(self, call):
        """Runs call(timeout) while a handler interrupts the wait."""
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        try:
            self.assertFalse(call(0.05))
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def test_wait(self):
        other = self.agent()
        signal.signal(signal.SIGALRM, lambda *_: None)
        before = tlock.status().interrupted

        def finish():
            self.assert_idle()
            other.do("lock.release()")

        self.interrupt_everywhere(
            lambda lock: self.alarmed(lock.acquire),
            lambda lock: other.do("lock.acquire(0)"),
            finish=finish, steps="line")
        self.assertGreater(tlock.status().interrupted, before)

    def test_wait_in_release_and_acquire(self):
        other = self.agent()
        signal.signal(signal.SIGALRM, lambda *_: None)
        before = tlock.status().interrupted

        def prepare(lock):
            lock.acquire(0)
            other.begin("lock.acquire(-1)")
            self.wait_for_waiters(1)

        def finish():
            self.assert_idle()
            other.result()
            other.do("lock.release()")

        self.interrupt_everywhere(
            lambda lock: self.alarmed(lock.release_and_acquire), prepare,
            True, finish, "line")
        self.assertGreater(tlock.status().interrupted, before)


if __name__ == "__main__":
    ktap.main()
