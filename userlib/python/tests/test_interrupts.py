#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""KeyboardInterrupt at any point."""
import asyncio
import contextlib
import gc
import os
import signal
import sys
import warnings

import ktap  # first: finds this tree's package
import tlock
from tlock import TimeoutLock, aio
from helper import SignalTestCase


class InterruptTestCase(SignalTestCase):
    """KeyboardInterrupt before each instruction of the package, in turn.

    Where a turn takes long, only before each line.
    """

    KIND = TimeoutLock
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
                    self.where = "%s, line %d" % (frame.f_code.co_name,
                                                  frame.f_lineno)
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
            lock = self.KIND(path="tlock")
            prepare(lock)
            interrupted = self.interrupt(lambda: scenario(lock), step, steps)
            if held_is_fine:
                # As a finally clause does: the lock is still held, or was lost
                with contextlib.suppress(RuntimeError):
                    lock.release()
            try:
                finish()
                self.assert_free()
                # The object still works as a new one does
                self.use(lock)
                self.assert_free()
            except Exception as error:
                raise AssertionError("interrupted in " + self.where) from error
        self.assertGreater(step, 20 if steps == "line" else 50)

    def use(self, lock):
        with lock.acquire_timeout(0) as acquired:
            self.assertTrue(acquired)
            self.assertTrue(lock.release_and_acquire(0))


class Blocking(InterruptTestCase):
    """tlock.TimeoutLock"""

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


class Asyncio(InterruptTestCase):
    """tlock.aio.TimeoutLock"""

    KIND = aio.TimeoutLock

    def setUp(self):
        super().setUp()
        self.holder = TimeoutLock(path="tlock")
        # So that each collection takes less time
        gc.freeze()
        self.addCleanup(gc.unfreeze)
        # Interrupted between the call of a coroutine and its await
        catcher = warnings.catch_warnings()
        catcher.__enter__()
        self.addCleanup(catcher.__exit__, None, None, None)
        warnings.filterwarnings("ignore", "coroutine .* was never awaited")

    def run_loop(self, main):
        """Runs the coroutine that main() returns."""
        self.loop = asyncio.SelectorEventLoop()
        # Nobody asks what became of the tasks
        self.loop.set_exception_handler(lambda *_: None)
        self.loop.run_until_complete(main())

    def end_loop(self):
        """Ends all tasks, as asyncio.run() does after an exception.

        By then the exception is forgotten, and what it referred to.
        """
        loop = self.loop
        for task in asyncio.all_tasks(loop):
            task.cancel()
            del task
        loop.run_until_complete(asyncio.sleep(0))
        self.assertEqual(asyncio.all_tasks(loop), set())
        gc.collect()
        # Only its own file
        self.assertEqual(len(loop._selector.get_map()), 1)
        loop.close()

    def use(self, lock):
        async def use():
            async with lock.acquire_timeout(0) as acquired:
                self.assertTrue(acquired)
                self.assertTrue(await lock.release_and_acquire(0))
        self.run_loop(use)
        self.loop.close()

    def finish(self):
        self.end_loop()
        self.assert_idle()
        self.assertEqual(tlock.status().waiters, 0)

    def test_block(self):
        async def block(lock):
            async with lock.acquire_timeout(0) as acquired:
                await acquired.release_and_acquire(0)

        self.interrupt_everywhere(
            lambda lock: self.run_loop(lambda: block(lock)),
            finish=self.finish, steps="line")

    def hold(self, lock):
        self.holder.acquire(0)

    def drop(self):
        with contextlib.suppress(RuntimeError):
            self.holder.release()
        self.finish()

    async def wait(self, lock):
        asyncio.get_running_loop().call_later(0.002, self.holder.release)
        self.assertTrue(await lock.acquire(-1))

    def test_wait(self):
        self.interrupt_everywhere(
            lambda lock: self.run_loop(lambda: self.wait(lock)),
            self.hold, True, self.drop, "line")

    def test_wait_for_a_block(self):
        async def block(lock):
            asyncio.get_running_loop().call_later(0.002, self.holder.release)
            async with lock.acquire_timeout(-1):
                pass

        self.interrupt_everywhere(
            lambda lock: self.run_loop(lambda: block(lock)), self.hold,
            finish=self.drop, steps="line")

    def test_refused(self):
        self.interrupt_everywhere(
            lambda lock: self.run_loop(lambda: lock.acquire(0.002)), self.hold,
            finish=self.drop, steps="line")

    def test_cancelled(self):
        async def cancel(lock):
            task = asyncio.ensure_future(lock.acquire(-1))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])

        self.interrupt_everywhere(
            lambda lock: self.run_loop(lambda: cancel(lock)),
            self.hold, finish=self.drop, steps="line")

    def test_wanted(self):
        async def watch(lock):
            async with lock.acquire_timeout(0) as acquired:
                task = asyncio.ensure_future(lock.acquire(-1))
                await acquired.wanted()
                acquired.release()
                self.assertTrue(await task)
                lock.release()

        self.interrupt_everywhere(
            lambda lock: self.run_loop(lambda: watch(lock)),
            held_is_fine=True, finish=self.finish, steps="line")


if __name__ == "__main__":
    ktap.main()
