#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""TimeoutLock: what OCS's does, and what it should do."""
import copy
import gc
import inspect
import math
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
import time

import ktap  # first: finds this tree's package
import tlock
from tlock import TimeoutLock
from helper import LONG, Call, TestCase, environment
from ktap import PYTHON_DIR


def open_files():
    return len(os.listdir("/proc/self/fd"))


class AsInOcs(TestCase):
    def test_names_arguments_and_defaults(self):
        def arguments(function):
            return [(p.name, p.default) for p in
                    inspect.signature(function).parameters.values()
                    if p.kind is not p.KEYWORD_ONLY]

        lock = TimeoutLock()
        self.assertEqual(arguments(TimeoutLock), [("default_timeout", 0)])
        self.assertEqual(arguments(lock.acquire),
                         [("timeout", None), ("job", None)])
        self.assertEqual(arguments(lock.release), [])
        self.assertEqual(arguments(lock.release_and_acquire),
                         [("timeout", None)])
        self.assertEqual(arguments(lock.acquire_timeout),
                         [("timeout", None), ("job", "unnamed")])

    def test_take_and_give_back(self):
        lock = TimeoutLock()
        self.assertIsNone(lock.job)
        self.assertIs(lock.acquire(job="acq"), True)
        self.assertEqual(lock.job, "acq")
        self.assertIsNone(lock.release())
        self.assertIsNone(lock.job)
        with lock.acquire_timeout() as acquired:
            self.assertIs(bool(acquired), True)
            self.assertEqual(lock.job, "unnamed")
        self.assert_free()

    def test_default_timeout_tries(self):
        other = self.agent()
        other.do("lock.acquire(0, 'other')")
        for lock in TimeoutLock(), TimeoutLock(None), TimeoutLock(0.0):
            self.assertIs(lock.acquire(), False)
            with lock.acquire_timeout() as acquired:
                self.assertIs(bool(acquired), False)
        self.assertEqual(tlock.status().waiters, 0)

    def test_default_timeout_waits(self):
        other = self.agent()
        other.do("lock.acquire(0, 'other')")
        lock = TimeoutLock(default_timeout=0.2)
        begin = time.monotonic()
        self.assertFalse(lock.acquire())
        self.assertGreaterEqual(time.monotonic() - begin, 0.2)
        # 0 is a timeout, and does not mean the default
        lock = TimeoutLock(default_timeout=-1)
        self.assertFalse(lock.acquire(0))

    def test_default_timeout_of_release_and_acquire(self):
        lock = TimeoutLock(default_timeout=-1)
        other = self.agent()
        with lock.acquire_timeout():
            other.begin("lock.acquire(-1) and [time.sleep(0.1), "
                        "lock.release()]")
            self.wait_for_waiters(1)
            self.assertTrue(lock.release_and_acquire())
            other.result()

    def test_any_thread_may_release(self):
        lock = TimeoutLock()
        self.assertTrue(Call(lock.acquire, 0, "thread").result())
        self.assertEqual(lock.job, "thread")
        self.assertTrue(lock.release_and_acquire(0))
        Call(lock.release).result()
        self.assert_free()

    def test_object_excludes_its_own_threads(self):
        lock = TimeoutLock()
        with lock.acquire_timeout(job="first"):
            self.assertFalse(Call(lock.acquire, 0, "second").result())
            self.assertFalse(lock.acquire(0.05, "third"))
            self.assert_job("first")

    def test_released_after_an_exception(self):
        lock = TimeoutLock()
        with self.assertRaises(KeyError):
            with lock.acquire_timeout():
                raise KeyError
        self.assert_free()

    def test_released_and_acquired_by_hand_in_a_block(self):
        lock = TimeoutLock()
        with lock.acquire_timeout(0, "acq"):
            for _ in range(2):
                lock.release()
                self.assert_free()
                self.assertTrue(lock.acquire(0, "again"))
                self.assert_job("again")
        self.assert_free()

    def test_acquired_by_hand_after_a_failed_block(self):
        other = self.agent()
        lock = TimeoutLock()
        with lock.acquire_timeout(0):
            pass
        other.do("lock.acquire(0, 'other')")
        with lock.acquire_timeout(0) as acquired:
            self.assertFalse(acquired)
            other.do("lock.release()")
            self.assertTrue(lock.acquire(0, "by hand"))
        self.assert_job("by hand")
        lock.release()


class Arguments(TestCase):
    def test_timeouts(self):
        for bad in math.nan, -0.5, -2, -math.inf, -1.0000001:
            with self.subTest(bad):
                with self.assertRaises(ValueError):
                    TimeoutLock(default_timeout=bad)
                lock = TimeoutLock()
                with self.assertRaises(ValueError):
                    lock.acquire(bad)
                with lock.acquire_timeout():
                    with self.assertRaises(ValueError):
                        lock.release_and_acquire(bad)
                    self.assert_job("unnamed")
                self.assert_free()

    def test_very_long_timeouts(self):
        lock = TimeoutLock()
        for timeout in 2**63 / 1e9, 1e300, math.inf, 10**18:
            with self.subTest(timeout):
                with lock.acquire_timeout(0):
                    call = Call(lock.acquire, timeout, "long")
                    self.wait_for_waiters(1)
                self.assertTrue(call.result())
                lock.release()

    def test_jobs(self):
        lock = TimeoutLock()
        for good in ("x" * 63, "\u00e9" * 31, "\u00a0", "\u03bb = 3 mm", ""):
            with self.subTest(good):
                with lock.acquire_timeout(0, job=good):
                    self.assertEqual(lock.job, good)
        with lock.acquire_timeout(0, job=None):
            self.assertEqual(lock.job, "")

    def test_a_lock_is_named_by_name_or_path(self):
        self.assertEqual(tlock.DEFAULT_PATH, "/dev/tlock")
        self.assertEqual(TimeoutLock().path, "/dev/tlock")
        self.assertEqual(TimeoutLock(path="tlock").path, "/dev/tlock")
        self.assertEqual(TimeoutLock(path="/dev/../dev/tlock").path,
                         "/dev/../dev/tlock")
        with self.assertRaises(FileNotFoundError) as caught:
            TimeoutLock(path="stage")
        self.assertEqual(caught.exception.filename, "/dev/tlock-stage")
        with self.assertRaises(ValueError):
            TimeoutLock(path="")


class AsElsewhere(TestCase):
    """What users of threading.Lock, filelock or pickle try first"""

    def test_blocking(self):
        lock = TimeoutLock(5, path="tlock")
        other = self.agent()
        for free in {"blocking": False}, {"blocking": True}, {"timeout": True}:
            with self.subTest(free):
                self.assertTrue(lock.acquire(**free))
                lock.release()
        other.do("lock.acquire(0, 'other')")
        begin = time.monotonic()
        self.assertFalse(lock.acquire(blocking=False))
        self.assertFalse(lock.acquire(False))
        self.assertLess(time.monotonic() - begin, 4)
        call = Call(lambda: lock.acquire(blocking=True))
        self.wait_for_waiters(1)
        other.do("lock.release()")
        self.assertTrue(call.result())
        lock.release()
        with self.assertRaises(ValueError):
            lock.acquire(1, blocking=True)
        self.assert_free()

    def test_a_path_is_no_timeout(self):
        for bad in "psu", "/dev/tlock", ["psu"], b"psu":
            with self.subTest(bad):
                with self.assertRaises(TypeError) as caught:
                    TimeoutLock(bad)
                if not isinstance(bad, list):
                    self.assertIn("path=", str(caught.exception))
                with self.assertRaises(TypeError):
                    TimeoutLock(path="tlock").acquire(bad)

    def test_copies_and_pickles_are_the_same_lock(self):
        lock = TimeoutLock(0.25, path="tlock")
        lock.acquire(0, "original")
        for duplicate in (copy.copy, copy.deepcopy,
                          lambda lock: pickle.loads(pickle.dumps(lock))):
            other = duplicate(lock)
            self.assertIsNot(other, lock)
            self.assertEqual(other.path, lock.path)
            begin = time.monotonic()
            self.assertFalse(other.acquire())
            self.assertGreaterEqual(time.monotonic() - begin, 0.25)
            self.assertEqual(other.blocker.job, "original")
            with self.assertRaises(RuntimeError):
                other.release()
        self.assert_job("original")
        lock.release()

    def test_processes_of_multiprocessing(self):
        lock = TimeoutLock(path="tlock")
        for method in "fork", "spawn", "forkserver":
            with self.subTest(method):
                context = multiprocessing.get_context(method)
                with lock.acquire_timeout(0, "parent"):
                    process = context.Process(target=use_the_lock,
                                              args=(lock,))
                    process.start()
                    self.wait_for_waiters(1)
                process.join(LONG)
                self.assertEqual(process.exitcode, 0)

    def warnings_of(self, program):
        done = subprocess.run(
            [sys.executable, "-c", "from tlock import TimeoutLock\n" + program],
            env=environment(), stderr=subprocess.PIPE, universal_newlines=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stderr.count("RuntimeWarning")

    def test_two_objects_without_a_path(self):
        self.assertEqual(self.warnings_of("a = TimeoutLock()\n"
                                          "b = TimeoutLock()\n"
                                          "c = TimeoutLock()\n"), 1)
        for fine in ("a = TimeoutLock()\nb = TimeoutLock(path='tlock')\n",
                     "for _ in range(2): TimeoutLock()\n",
                     "import copy\na = TimeoutLock()\nb = copy.copy(a)\n",
                     "import os\na = TimeoutLock()\n"
                     "if os.fork(): os.wait()\nelse: b = TimeoutLock()\n"):
            self.assertEqual(self.warnings_of(fine), 0, fine)


def use_the_lock(lock):
    """Runs in another process."""
    if not lock.acquire(LONG, "child"):
        raise RuntimeError("it cannot be acquired")
    lock.release()


class BetterThanOcs(TestCase):
    def test_timeout_is_exact(self):
        # In OCS, the second waiter's timeout can take twice as long
        lock = TimeoutLock()
        other = self.agent()
        other.do("lock.acquire(0, 'other')")
        first = Call(lock.acquire, -1, "first")
        self.wait_for_waiters(1)
        for timeout, most in (0.001, 1), (0.3, 1.3), (1.5, 2.8):
            begin = time.monotonic()
            self.assertFalse(lock.acquire(timeout))
            elapsed = time.monotonic() - begin
            self.assertGreaterEqual(elapsed, timeout)
            self.assertLess(elapsed, most)
        other.do("lock.release()")
        self.assertTrue(first.result())
        lock.release()

    def test_first_come_first_served(self):
        lock = TimeoutLock()
        order = []

        def take(number):
            with lock.acquire_timeout(-1, str(number)):
                order.append(number)

        with lock.acquire_timeout(0):
            calls = []
            for number in range(5):
                calls.append(Call(take, number))
                self.wait_for_waiters(number + 1)
        for call in calls:
            call.result()
        self.assertEqual(order, list(range(5)))

    def test_release_and_acquire_lets_all_waiters_in(self):
        lock = TimeoutLock()
        others = [self.agent(), self.agent()]
        with lock.acquire_timeout(0, "acq"):
            token = lock.token
            for number, other in enumerate(others):
                other.begin("lock.acquire(-1) and "
                            "[lock.token, lock.release()]")
                self.wait_for_waiters(number + 1)
            self.assertTrue(lock.release_and_acquire(-1))
            self.assert_job("acq")
            self.assertEqual([other.result() for other in others],
                             [[token + 1, None], [token + 2, None]])
            self.assertEqual(lock.token, token + 3)

    def test_release_and_acquire_without_waiters(self):
        lock = TimeoutLock()
        with lock.acquire_timeout(0, "acq"):
            before = tlock.status()
            self.assertTrue(lock.release_and_acquire(0))
            self.assertEqual(tlock.status(), before)
            self.assertEqual(lock.token, before.holder.token)

    def test_failed_release_and_acquire_then_end_of_block(self):
        lock = TimeoutLock()
        other = self.agent()
        with lock.acquire_timeout(0, "acq"):
            other.begin("lock.acquire(-1, 'other')")
            self.wait_for_waiters(1)
            self.assertFalse(lock.release_and_acquire(0.05))
            self.assertEqual(lock.job, "other")
            self.assertTrue(other.result())
        self.assert_job("other")

    def test_failed_release_and_acquire_against_a_thread(self):
        # The same, where the other holder uses the same object
        lock = TimeoutLock()
        with lock.acquire_timeout(0, "acq"):
            call = Call(lock.acquire, -1, "thread")
            self.wait_for_waiters(1)
            self.assertFalse(lock.release_and_acquire(0))
            self.assertTrue(call.result())
            with self.assertRaises(RuntimeError):
                lock.release()
            self.assert_job("thread")
        self.assert_job("thread")
        Call(lock.release).result()

    def test_failed_release_and_acquire_then_another(self):
        # Agents "continue" their loop after a failed release_and_acquire(). In
        # OCS, the next one then releases what another thread holds.
        lock = TimeoutLock()
        done = threading.Event()

        def short_action():
            with lock.acquire_timeout(-1, "short"):
                done.wait()

        with lock.acquire_timeout(0, "acq"):
            call = Call(short_action)
            self.wait_for_waiters(1)
            for _ in range(3):
                self.assertFalse(lock.release_and_acquire(0.02))
                self.assert_job("short")
            done.set()
            self.assertTrue(lock.release_and_acquire(-1))
            self.assert_job("acq")
            call.result()
        self.assert_free()

    def test_failed_release_and_acquire_by_hand(self):
        lock = TimeoutLock()
        other = self.agent()
        lock.acquire(0, "acq")
        other.begin("lock.acquire(-1, 'other')")
        self.wait_for_waiters(1)
        self.assertFalse(lock.release_and_acquire(0))
        with self.assertRaises(RuntimeError):
            lock.release()
        with self.assertRaises(RuntimeError):
            lock.release_and_acquire()
        other.result()
        other.do("lock.release()")
        self.assertTrue(lock.acquire(0))
        lock.release()

    def test_not_holding(self):
        lock = TimeoutLock()
        other = self.agent()
        for _ in range(2):
            with self.assertRaises(RuntimeError):
                lock.release()
            with self.assertRaises(RuntimeError):
                lock.release_and_acquire()
            other.do("lock.acquire(0, 'other')")
        self.assert_job("other")

    def test_released_in_the_block(self):
        lock = TimeoutLock()
        with lock.acquire_timeout(0):
            lock.release()
            self.assertTrue(Call(lock.acquire, 0, "thread").result())
        self.assert_job("thread")
        lock.release()

    def test_nested_blocks(self):
        lock = TimeoutLock()
        other = self.agent()
        with lock.acquire_timeout(0, "outer"):
            with lock.acquire_timeout(0, "inner") as acquired:
                self.assertFalse(acquired)
                self.assertEqual(lock.job, "outer")
            self.assert_job("outer")
            other.begin("lock.acquire(-1, 'other')")
            self.wait_for_waiters(1)
            self.assertFalse(lock.release_and_acquire(0))
            self.assertTrue(other.result())
            other.do("lock.release()")
            with lock.acquire_timeout(0, "inner") as acquired:
                self.assertTrue(acquired)
            self.assertTrue(lock.release_and_acquire(0))
            self.assert_job("outer")
        self.assert_free()


class WhoHasIt(TestCase):
    def test_holder(self):
        lock = TimeoutLock()
        self.assertIsNone(lock.holder)
        other = self.agent()
        begin = time.monotonic_ns()
        other.do("open('/proc/self/comm', 'w').write('a\\nb')")
        other.do("lock.acquire(0, 'other')")
        holder = lock.holder
        self.assertEqual(holder.job, "other")
        self.assertEqual(holder.pid, other.pid)
        self.assertEqual(holder.uid, os.geteuid())
        self.assertEqual(holder.comm, "a?b")
        self.assertEqual(holder.token, other.do("lock.token"))
        self.assertLessEqual(begin, holder.since_ns)
        self.assertLessEqual(holder.since_ns, time.monotonic_ns())
        self.assertEqual(lock.job, "other")
        other.do("lock.release()")
        self.assertIsNone(lock.job)

    def fail_then_change_hands(self, lock, fail):
        """Makes fail() fail as job "a" holds the lock, and hands it to "b"."""
        a, b = self.agent(), self.agent()
        a.do("lock.acquire(0, 'a')")
        b.begin("lock.acquire(-1, 'b')")
        self.wait_for_waiters(1)
        self.assertFalse(fail())
        a.do("lock.release()")
        b.result()
        self.assert_job("b")
        return a, b

    def test_job_in_a_failed_block(self):
        lock = TimeoutLock()
        a, b = self.agent(), self.agent()
        a.do("lock.acquire(0, 'a')")
        b.begin("lock.acquire(-1, 'b')")
        self.wait_for_waiters(1)
        with lock.acquire_timeout(0.01) as acquired:
            self.assertFalse(acquired)
            a.do("lock.release()")
            b.result()
            self.assertEqual([lock.job, lock.job], ["a", "a"])
            self.assertEqual(Call(lambda: lock.job).result(), "b")
            self.assertEqual(lock.holder.job, "b")
        self.assertEqual(lock.job, "b")
        self.assertEqual((lock.blocker.job, lock.blocker.pid), ("a", a.pid))
        b.do("lock.release()")
        self.assertIsNone(lock.job)
        with lock.acquire_timeout(0):
            self.assertIsNone(lock.blocker)

    def test_job_after_a_failed_acquire(self):
        lock = TimeoutLock()
        a, b = self.fail_then_change_hands(lock, lambda: lock.acquire(0))
        self.assertEqual([lock.job, lock.job], ["a", "b"])
        self.assertEqual(lock.blocker.pid, a.pid)
        self.assertIsNone(Call(lambda: lock.blocker).result())
        self.assertFalse(lock.acquire(0))
        self.assertEqual(lock.job, "b")
        self.assertFalse(lock.acquire(0))
        b.do("lock.release()")
        self.assertTrue(lock.acquire(0, "c"))
        self.assertEqual(lock.job, "c")
        self.assertIsNone(lock.blocker)
        lock.release()
        self.assertIsNone(lock.job)

    def test_job_after_a_failed_release_and_acquire(self):
        lock = TimeoutLock()
        a, b = self.agent(), self.agent()
        with lock.acquire_timeout(0, "acq"):
            a.begin("lock.acquire(-1, 'a')")
            self.wait_for_waiters(1)
            b.begin("lock.acquire(-1, 'b')")
            self.wait_for_waiters(2)
            self.assertFalse(lock.release_and_acquire(0.01))
            a.result()
            a.do("lock.release()")
            b.result()
            self.assertEqual([lock.job, lock.job], ["a", "a"])
        self.assertEqual(lock.job, "b")

    def test_abandoned(self):
        lock = TimeoutLock()
        other = self.agent()
        before = tlock.status().abandoned
        with lock.acquire_timeout(0):
            self.assertFalse(lock.abandoned)
        other.do("lock.acquire(0, 'other')")
        call = Call(lock.acquire, -1)
        self.wait_for_waiters(1)
        other.kill()
        self.assertTrue(call.result())
        self.assertTrue(lock.abandoned)
        self.assertEqual(tlock.status().abandoned, before + 1)
        lock.release()
        with lock.acquire_timeout(0):
            self.assertFalse(lock.abandoned)

    def test_object_dropped_while_it_holds(self):
        dropped = TimeoutLock()
        dropped.acquire(0)
        del dropped
        gc.collect()
        lock = TimeoutLock()
        with lock.acquire_timeout(0):
            self.assertTrue(lock.abandoned)

    def test_status(self):
        lock = TimeoutLock()
        other = self.agent()
        before = tlock.status()
        with lock.acquire_timeout(0, "acq"):
            other.begin("lock.acquire(0.001)")
            self.assertFalse(other.result())
            other.begin("lock.acquire(-1) and lock.release()")
            self.wait_for_waiters(1)
            lock.release_and_acquire(-1)
            other.result()
            status = tlock.status()
            self.assertEqual(status.holder, lock.holder)
        self.assertEqual(status.waiters, 0)
        for name, grown in dict(acquired=3, contended=2, timed_out=1,
                                interrupted=0, abandoned=0, yielded=1).items():
            self.assertEqual(getattr(status, name),
                             getattr(before, name) + grown, name)
        self.assertGreater(status.wait_ns_total, before.wait_ns_total)
        self.assertGreaterEqual(status.wait_ns_max, 1000000)
        self.assertGreater(status.hold_ns_total, before.hold_ns_total)
        self.assertGreaterEqual(status.hold_ns_max, before.hold_ns_max)


class Package(TestCase):
    def test_version(self):
        with open(PYTHON_DIR + "/../../VERSION") as file:
            self.assertEqual(tlock.__version__ + "\n", file.read())


class Threads(TestCase):
    def test_exclusion_and_reuse_of_files(self):
        lock = TimeoutLock()
        before = open_files()
        inside = []
        rounds = []

        def work(number):
            for round_ in range(20):
                with lock.acquire_timeout(-1, "thread %d" % number):
                    inside.append(number)
                    if round_ % 2:
                        inside.remove(number)
                        lock.release_and_acquire(-1)
                        inside.append(number)
                    self.assertEqual(inside, [number])
                    rounds.append(number)
                    inside.remove(number)

        for call in [Call(work, number) for number in range(6)]:
            call.result()
        self.assertEqual(len(rounds), 120)
        # One was open from the start, and a few are kept open
        self.assertLessEqual(open_files(), before + 3)
        for _ in range(50):
            with lock.acquire_timeout(0):
                lock.acquire(0)
        self.assertLessEqual(open_files(), before + 3)
        del lock, call
        gc.collect()
        self.assertLess(open_files(), before)

    def test_others_run_during_a_wait(self):
        lock = TimeoutLock()
        with lock.acquire_timeout(0):
            call = Call(lock.acquire, -1)
            self.wait_for_waiters(1)
            lock.job
        call.result()
        lock.release()

    def test_release_spares_a_waiting_release_and_acquire(self):
        # Often enough that the contenders come in another order, too
        for _ in range(8):
            lock = TimeoutLock()
            lock.acquire(0, "acq")
            short = Call(lock.acquire, -1, "short")
            self.wait_for_waiters(1)
            again = Call(lock.release_and_acquire, -1)
            self.assertTrue(short.result())
            self.wait_for_waiters(1)
            # This thread lost its acquisition; one that never had any releases
            with self.assertRaises(RuntimeError):
                lock.release()
            Call(lock.release).result()
            self.assertTrue(again.result())
            self.assert_job("acq")
            lock.release()

    def test_nothing_to_release_during_a_release_and_acquire(self):
        lock = TimeoutLock()
        other = self.agent()
        lock.acquire(0, "acq")
        other.begin("lock.acquire(-1, 'other')")
        self.wait_for_waiters(1)
        again = Call(lock.release_and_acquire, -1)
        other.result()
        self.wait_for_waiters(1)
        for call in lock.release, lock.release_and_acquire:
            with self.assertRaises(RuntimeError):
                call()
        self.assertEqual(tlock.status().waiters, 1)
        other.do("lock.release()")
        self.assertTrue(again.result())
        lock.release()

    def test_release_during_release_and_acquires_that_need_not_wait(self):
        def work():
            while True:
                self.assertTrue(lock.release_and_acquire(0))

        for _ in range(20):
            lock = TimeoutLock()
            lock.acquire(0, "acq")
            worker = Call(work)
            time.sleep(0.001)
            lock.release()
            self.assert_free()
            with self.assertRaises(RuntimeError):
                worker.result()
            self.assert_idle()

    def test_block_ends_during_a_release_and_acquire(self):
        lock = TimeoutLock()
        other = self.agent()
        with lock.acquire_timeout(0, "acq") as acquired:
            other.begin("lock.acquire(-1, 'other')")
            self.wait_for_waiters(1)
            call = Call(acquired.release_and_acquire, -1)
            other.result()
            self.wait_for_waiters(1)
        with self.assertRaises(RuntimeError):
            call.result()
        self.assert_idle()
        self.assert_job("other")
        with self.assertRaises(RuntimeError):
            acquired.release_and_acquire(0)


if __name__ == "__main__":
    ktap.main()
