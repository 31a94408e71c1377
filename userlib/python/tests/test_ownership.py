#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""Who owns an acquisition: threads, asyncio tasks, copies of a context."""
import asyncio
import contextvars
import functools
import gc
import os
import resource
import threading
import time
import weakref

import ktap  # first: finds this tree's package
import tlock
from tlock import TimeoutLock
from helper import LONG, Call, TestCase


def to_thread(function, *args):
    """Does what asyncio.to_thread() does, which Python 3.8 lacks."""
    context = contextvars.copy_context()
    return asyncio.get_running_loop().run_in_executor(
        None, functools.partial(context.run, function, *args))


def in_thread(function, *args):
    """The same without a context."""
    return asyncio.get_running_loop().run_in_executor(None, function, *args)


class OwnershipTestCase(TestCase):
    def setUp(self):
        super().setUp()
        self.lock = TimeoutLock(path="tlock")

    def lose(self, call, agent, timeout=0):
        """Makes call(), a release_and_acquire, lose the lock to an agent."""
        agent.begin("lock.acquire(-1, 'x')")
        self.wait_for_waiters(1)
        self.assertIs(call(timeout), False)
        self.assertIs(agent.result(), True)


class Tasks(OwnershipTestCase):
    """Coroutines of one thread, in an order set by events"""

    def test_lost_then_another_task_acquires(self):
        lock, x = self.lock, self.agent()

        async def a(lost, acquired):
            lock.acquire(0, "a")
            self.lose(lock.release_and_acquire, x)
            lost.set()
            await acquired.wait()
            self.assertIs(lock.release_and_acquire(0.05), False)
            with self.assertRaises(RuntimeError):
                lock.release()
            self.assert_job("b")

        async def b(lost, acquired):
            await lost.wait()
            x.do("lock.release()")
            self.assertTrue(lock.acquire(0, "b"))
            acquired.set()

        async def main():
            events = asyncio.Event(), asyncio.Event()
            await asyncio.gather(a(*events), b(*events))
            self.assert_job("b")
            lock.release()

        asyncio.run(main())

    def test_refused_block_of_another_task(self):
        """Another task releases and acquires in its own block meanwhile."""
        lock = self.lock

        async def a(entered, refused, left):
            with lock.acquire_timeout(0, "a") as acquired:
                entered.set()
                await refused.wait()
                lock.release()
                await asyncio.sleep(0.01)
                self.assertTrue(lock.acquire(0, "a again"))
                self.assertTrue(acquired)
                left.set()
                await asyncio.sleep(0.01)
                self.assert_job("a again")
            self.assert_free()

        async def b(entered, refused, left):
            await entered.wait()
            with lock.acquire_timeout(0, "b") as acquired:
                self.assertFalse(acquired)
                refused.set()
                await left.wait()
            self.assert_job("a again")

        async def main():
            events = asyncio.Event(), asyncio.Event(), asyncio.Event()
            await asyncio.gather(a(*events), b(*events))

        asyncio.run(main())
        self.assert_free()

    def test_block_that_released_early_spares_another_task(self):
        lock = self.lock

        async def a(released, acquired):
            await released.wait()
            self.assertTrue(lock.acquire(0, "a"))
            acquired.set()

        async def b(released, acquired):
            with lock.acquire_timeout(0, "b"):
                lock.release()
                released.set()
                await acquired.wait()
                # Its own block no longer holds the lock, and it knows that
                for call in lock.release, lock.release_and_acquire:
                    with self.assertRaises(RuntimeError):
                        call()
            self.assert_job("a")

        async def main():
            events = asyncio.Event(), asyncio.Event()
            await asyncio.gather(a(*events), b(*events))
            self.assert_job("a")
            lock.release()

        asyncio.run(main())

    def test_child_task_is_not_its_parent(self):
        lock, x = self.lock, self.agent()

        async def child():
            # It has its parent's context, but has lost nothing itself
            with self.assertRaises(RuntimeError):
                lock.release_and_acquire(-1)
            with self.assertRaises(RuntimeError):
                lock.release()
            x.do("lock.release()")
            # This is not its parent's either, whose block ends meanwhile
            self.assertTrue(lock.acquire(-1, "child"))

        async def main():
            with lock.acquire_timeout(0, "parent") as acquired:
                self.lose(lock.release_and_acquire, x)
                await asyncio.ensure_future(child())
                self.assertFalse(acquired)
            self.assert_job("child")
            lock.release()

        asyncio.run(main())

    def test_child_task_that_waits_is_no_deadlock(self):
        """A task may wait for ever for its parent: no error."""
        lock = self.lock

        async def child():
            return await to_thread(lock.acquire, -1, "child")

        async def main():
            with lock.acquire_timeout(0, "parent"):
                task = asyncio.ensure_future(child())
                while tlock.status().waiters == 0:
                    await asyncio.sleep(0.01)
            self.assertTrue(await task)
            lock.release()

        asyncio.run(main())

    def test_child_task_releases_what_its_parent_holds(self):
        """As in OCS, since the child has acquired nothing."""
        lock = self.lock

        async def child():
            self.assertTrue(lock.release_and_acquire(0))
            lock.release()

        async def main():
            lock.acquire(0, "parent")
            await asyncio.ensure_future(child())
            self.assert_free()
            with self.assertRaises(RuntimeError):
                lock.release()

        asyncio.run(main())

    def test_worker_threads_act_for_their_task(self):
        """Threads that carry its context, one after another."""
        lock = self.lock

        async def main():
            self.assertTrue(lock.acquire(0, "a"))
            b = Call(TimeoutLock(path="tlock").acquire, -1, "b")
            while tlock.status().waiters == 0:
                await asyncio.sleep(0.01)
            self.assertFalse(await to_thread(lock.release_and_acquire, 0))
            self.assertTrue(b.result())
            with self.assertRaises(RuntimeError):
                await to_thread(lock.release)
            self.assert_job("b")

        asyncio.run(main())
        gc.collect()

    def test_worker_thread_spares_another_task(self):
        lock = self.lock

        async def a(acquired, lost, done):
            lock.acquire(0, "a")
            acquired.set()
            while tlock.status().waiters == 0:
                await asyncio.sleep(0.01)
            self.assertFalse(await to_thread(lock.release_and_acquire, 0))
            lost.set()
            # Once more: it waits, and takes the lock from nobody
            self.assertFalse(await to_thread(lock.release_and_acquire, 0.05))
            with self.assertRaises(RuntimeError):
                await to_thread(lock.release)
            self.assert_job("b")
            done.set()

        async def b(acquired, lost, done):
            await acquired.wait()
            self.assertTrue(await to_thread(lock.acquire, -1, "b"))
            await lost.wait()
            await done.wait()
            # It does not see that its worker acquired, so OCS's rule applies
            lock.release()

        async def main():
            events = asyncio.Event(), asyncio.Event(), asyncio.Event()
            await asyncio.gather(a(*events), b(*events))

        asyncio.run(main())
        self.assert_free()

    def test_worker_thread_takes_back_what_its_task_has_lost(self):
        lock, x = self.lock, self.agent()

        async def main():
            with lock.acquire_timeout(0, "a") as acquired:
                self.lose(lock.release_and_acquire, x)
                x.do("lock.release()")
                self.assertTrue(await to_thread(lock.release_and_acquire, 0))
                self.assertTrue(acquired)
                self.assert_job("a")
            self.assert_free()

        asyncio.run(main())

    def test_threads_without_a_context(self):
        """By OCS's rule, they act for whatever the object holds."""
        lock = self.lock

        async def main():
            self.assertTrue(await in_thread(lock.acquire, 0, "thread"))
            self.assertTrue(lock.release_and_acquire(0))
            await in_thread(lock.release)
            self.assert_free()

        asyncio.run(main())

    def test_tasks_do_not_outlive_their_use(self):
        lock = self.lock
        tasks = []

        async def use():
            tasks.append(weakref.ref(asyncio.current_task()))
            with lock.acquire_timeout(0):
                pass
            lock.acquire(0)
            lock.release()

        async def main():
            for _ in range(3):
                await asyncio.ensure_future(use())
            # The event that woke this task may refer to the last one
            await asyncio.sleep(0)
            gc.collect()
            self.assertEqual([task() for task in tasks], [None] * 3)

        asyncio.run(main())


class Contexts(OwnershipTestCase):
    """Flows of one thread with contexts but no tasks, as in Twisted"""

    def test_flows_in_turns(self):
        lock, x = self.lock, self.agent()
        a, b = contextvars.copy_context(), contextvars.copy_context()
        self.assertTrue(a.run(lock.acquire, 0, "a"))
        self.lose(functools.partial(a.run, lock.release_and_acquire), x)
        x.do("lock.release()")
        self.assertTrue(b.run(lock.acquire, 0, "b"))
        self.assertFalse(a.run(lock.release_and_acquire, 0))
        with self.assertRaises(RuntimeError):
            a.run(lock.release)
        self.assert_job("b")
        b.run(lock.release)
        self.assert_free()

    def test_nested_flow_acts_for_its_block(self):
        """The flow releases and acquires again, in a context of its own."""
        lock = self.lock

        def nested():
            lock.release()
            self.assertTrue(lock.acquire(0, "again"))

        with lock.acquire_timeout(0):
            contextvars.copy_context().run(nested)
            self.assert_job("again")
        self.assert_free()

    def test_context_does_not_keep_the_lock(self):
        lock = TimeoutLock(path="tlock")
        context = contextvars.copy_context()
        context.run(lock.acquire, 0)
        del lock
        gc.collect()
        self.assert_free()


class Blocks(OwnershipTestCase):
    def test_refused_inner_block(self):
        lock = self.lock
        with lock.acquire_timeout(0, job="outer") as outer:
            with lock.acquire_timeout(0, job="inner") as inner:
                self.assertFalse(inner)
                lock.release()
                self.assertFalse(outer)
                self.assertTrue(lock.acquire(0, job="outer again"))
                self.assertTrue(outer)
                self.assertFalse(inner)
            self.assert_job("outer again")
        self.assert_free()

    def test_released_early_spares_another_thread(self):
        lock = self.lock
        with lock.acquire_timeout(0, "b"):
            lock.release()
            self.assertTrue(Call(lock.acquire, 0, "a").result())
            with self.assertRaises(RuntimeError):
                lock.release()
        self.assert_job("a")
        # After the block this thread has no acquisition of its own
        lock.release()

    def test_lost_twice_told(self):
        """An agent's own clean-up tries to release once more."""
        lock, x = self.lock, self.agent()
        with lock.acquire_timeout(0, "acq"):
            self.lose(lock.release_and_acquire, x)
            x.do("lock.release()")
            self.assertTrue(Call(lock.acquire, 0, "thread").result())
            for _ in range(3):
                with self.assertRaises(RuntimeError):
                    lock.release()
        self.assert_job("thread")
        Call(lock.release).result()

    def test_context_manager_may_be_used_again(self):
        block = self.lock.acquire_timeout(0, "acq")
        for _ in range(2):
            with block as acquired:
                self.assertTrue(acquired)
                with self.assertRaises(RuntimeError):
                    block.__enter__()
                self.assert_job("acq")
            self.assert_free()

    def test_lock_that_only_the_block_has(self):
        with TimeoutLock(path="tlock").acquire_timeout(0) as acquired:
            gc.collect()
            self.assertTrue(acquired.release_and_acquire(0))
            self.assert_job("unnamed")
        self.assert_free()

    def test_block_left_in_another_thread(self):
        block = self.lock.acquire_timeout(0)
        block.__enter__()
        Call(block.__exit__, None, None, None).result()
        self.assert_free()
        self.assertTrue(self.lock.acquire(-1))
        self.lock.release()

    def test_with_lock(self):
        lock = TimeoutLock(0.05, path="tlock")
        with lock as acquired:
            self.assertTrue(acquired)
            self.assert_job("unnamed")
            self.assertTrue(lock.locked())
            lock.release()
            self.assertTrue(lock.acquire(0))
        self.assert_free()
        self.assertFalse(lock.locked())
        x = self.agent()
        x.do("lock.acquire(0, 'x')")
        with self.assertRaisesRegex(TimeoutError, "held by job 'x' of pid"):
            with lock:
                self.fail("the block runs")
        x.do("lock.release()")
        with self.assertRaisesRegex(TimeoutError, "which is the caller itself"):
            with lock:
                with lock:
                    self.fail("the inner block runs")
        self.assert_free()
        with self.assertRaises(KeyError):
            with lock:
                raise KeyError
        self.assert_free()


class Acquisitions(OwnershipTestCase):
    """The object that a block gets"""

    def test_its_own_methods_from_anywhere(self):
        lock, x = self.lock, self.agent()
        with lock.acquire_timeout(0, "a") as acquired:
            self.assertEqual(acquired.token, lock.token)
            self.assertIs(acquired.abandoned, False)
            self.assertIsNone(acquired.blocker)
            self.assertTrue(Call(acquired.release_and_acquire, 0).result())
            self.lose(acquired.release_and_acquire, x)
            self.assertFalse(acquired)
            self.assertEqual(acquired.blocker.job, "x")
            with self.assertRaises(RuntimeError):
                acquired.release()
            token = x.do("lock.token")
            x.do("lock.release()")
            self.assertTrue(Call(acquired.release_and_acquire, 0).result())
            self.assertEqual(acquired.token, token + 1)
            self.assertIsNone(acquired.blocker)
            Call(acquired.release).result()
            self.assert_free()
            # It was released, not lost
            with self.assertRaises(RuntimeError):
                acquired.release_and_acquire(0)
            self.assertTrue(lock.acquire(0, "thread"))
            self.assertTrue(acquired)
        for call in acquired.release, acquired.release_and_acquire:
            with self.assertRaises(RuntimeError):
                call()

    def test_spares_others(self):
        """The object of a block that has ended, or that was refused."""
        lock = self.lock
        with lock.acquire_timeout(0) as ended:
            with lock.acquire_timeout(0) as refused:
                for call in refused.release, refused.release_and_acquire:
                    with self.assertRaises(RuntimeError):
                        call()
        lock.acquire(0, "other")
        for acquisition in ended, refused:
            for call in acquisition.release, acquisition.release_and_acquire:
                with self.assertRaises(RuntimeError):
                    call()
        self.assert_job("other")
        lock.release()

    def test_lost_is_over_with_its_block(self):
        lock, x = self.lock, self.agent()
        with lock.acquire_timeout(0, "a") as acquired:
            self.lose(acquired.release_and_acquire, x)
        x.do("lock.release()")
        with self.assertRaises(RuntimeError):
            acquired.release_and_acquire(0)
        self.assert_free()

    def test_default_timeout(self):
        lock, x = TimeoutLock(0.3, path="tlock"), self.agent()
        with lock.acquire_timeout(0, "a") as acquired:
            self.lose(lambda _: acquired.release_and_acquire(), x)
            begin = time.monotonic()
            self.assertFalse(acquired.release_and_acquire())
            self.assertGreaterEqual(time.monotonic() - begin, 0.3)

    def test_abandoned(self):
        lock, x = self.lock, self.agent()
        x.do("lock.acquire(0)")
        x.kill()
        with lock.acquire_timeout(-1) as acquired:
            self.assertIs(acquired.abandoned, True)
            acquired.release_and_acquire()
            self.assertIs(acquired.abandoned, False)

    def test_repr(self):
        lock, x = self.lock, self.agent()
        self.assertEqual(repr(lock), "<tlock.TimeoutLock /dev/tlock: free>")
        with lock.acquire_timeout(0, "\u03bb") as acquired:
            self.assertRegex(repr(acquired), "job '\u03bb': holds the lock, token")
            self.assertRegex(repr(lock), "held by job '\u03bb' of pid %d" %
                             os.getpid())
            with lock.acquire_timeout(0) as own:
                self.assertIn("the caller itself", repr(own))
            self.lose(acquired.release_and_acquire, x)
            self.assertRegex(repr(acquired), r"could not be acquired: held by "
                             r"job 'x' of pid \d+ \(python3.*\)>")


class Deadlocks(OwnershipTestCase):
    def test_waiting_for_oneself(self):
        lock = self.lock
        for forever in {"timeout": -1}, {"blocking": True}, {"timeout": True}:
            lock.acquire(0, "mine")
            with self.assertRaisesRegex(RuntimeError, "itself, for job 'mine'"):
                lock.acquire(**forever)
            lock.release()
        with lock.acquire_timeout(0, "mine"):
            with self.assertRaisesRegex(RuntimeError, "itself, for job 'mine'"):
                with lock.acquire_timeout(-1):
                    self.fail("the block runs")
            self.assert_job("mine")
            # A wait with a timeout is no deadlock. (Nor is one for another
            # object's acquisition an error, as its owner is not known.)
            self.assertFalse(lock.acquire(0.01))
        self.assert_idle()

    def test_another_thread_may_wait(self):
        lock = self.lock
        lock.acquire(0)
        call = Call(lock.acquire, -1)
        self.wait_for_waiters(1)
        lock.release()
        self.assertTrue(call.result())
        lock.release()

    def test_a_copy_of_the_context_may_wait(self):
        lock = self.lock
        lock.acquire(0)
        context = contextvars.copy_context()
        call = Call(context.run, lock.acquire, -1)
        self.wait_for_waiters(1)
        lock.release()
        self.assertTrue(call.result())
        Call(lock.release).result()


class Files(OwnershipTestCase):
    def contenders(self):
        return len([name for name in os.listdir("/proc/self/fd")
                    if os.path.exists("/proc/self/fd/" + name)
                    and os.readlink("/proc/self/fd/" + name) == "/dev/tlock"])

    def burst(self, number, timeout=0.5):
        """Lets this number wait at once; returns how many got an OSError."""
        calls = [Call(self.lock.acquire, timeout) for _ in range(number)]
        failed = 0
        for call in calls:
            try:
                self.assertFalse(call.result())
            except OSError:
                failed += 1
        return failed

    def hold(self):
        with self.lock.acquire_timeout(LONG) as acquired:
            self.assertTrue(acquired)

    def test_idle_contenders_are_closed(self):
        x = self.agent()
        x.do("lock.acquire(0)")
        before = self.contenders()
        self.assertEqual(self.burst(60), 0)
        self.assertLessEqual(self.contenders(), before + 3)

    def test_contenders_that_held_are_closed(self):
        before = self.contenders()
        with self.lock.acquire_timeout(0):
            calls = [Call(self.hold) for _ in range(20)]
            self.wait_for_waiters(20)
        for call in calls:
            call.result()
        self.assertLessEqual(self.contenders(), before + 3)

    def test_limit_of_files(self):
        x = self.agent()
        x.do("lock.acquire(0)")
        self.assertEqual(self.burst(60), 0)
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        highest = max(int(name) for name in os.listdir("/proc/self/fd"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 20, limits[1]))
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, limits)
        # One finds no file left, as the others still wait then; the object goes
        # on working
        calls = [Call(self.hold)]
        while not calls[-1].error:
            self.assertLess(len(calls), 60)
            # The agent has a file left to ask with
            self.wait_for(lambda: calls[-1].error or len(calls) ==
                          x.do("tlock.status().waiters"), "answer to the call")
            if not calls[-1].error:
                calls.append(Call(self.hold))
        self.assertRaises(OSError, calls.pop().result)
        self.assertEqual(x.do("tlock.status().waiters"), len(calls))
        x.do("lock.release()")
        for call in calls:
            call.result()
        x.do("lock.acquire(0)")
        # The exceptions keep files open, too
        gc.collect()
        self.assertEqual(self.burst(5), 0)
        x.do("lock.release()")
        with self.lock.acquire_timeout(0) as acquired:
            self.assertTrue(acquired)


class Races(OwnershipTestCase):
    def test_release_by_two_threads(self):
        """One of them succeeds, and a third thread's acquisition stays."""
        lock = self.lock
        for _ in range(100):
            with lock.acquire_timeout(0) as acquired:
                start = threading.Barrier(3)

                def release():
                    start.wait(LONG)
                    try:
                        acquired.release()
                    except RuntimeError:
                        return 0
                    return 1

                def take():
                    start.wait(LONG)
                    return lock.acquire(-1, "third")

                calls = [Call(release), Call(release), Call(take)]
                self.assertTrue(calls[2].result())
                self.assertEqual(calls[0].result() + calls[1].result(), 1)
            self.assert_job("third")
            lock.release()


if __name__ == "__main__":
    ktap.main()
