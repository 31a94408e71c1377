#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""TimeoutLock.cancel(): a thread ends the waits of others."""
import errno
import os
import signal
import threading
import time
import unittest

import ktap  # first: finds this tree's package
import tlock
from tlock import TimeoutLock
from helper import LONG, Call, TestCase, states


class Cancel(TestCase):
    def setUp(self):
        super().setUp()
        self.lock = TimeoutLock(path="tlock")
        self.other = TimeoutLock(path="tlock")

    def assert_canceled(self, call):
        with self.assertRaises(OSError) as caught:
            call.result()
        self.assertEqual(caught.exception.errno, errno.ECANCELED)
        self.assertEqual(caught.exception.filename, "/dev/tlock")
        self.assertEqual(tlock.status().waiters, 0)

    def test_nothing_to_cancel(self):
        self.assertFalse(self.lock.cancel())
        self.assertTrue(self.lock.acquire(0))
        self.assertFalse(self.lock.cancel())
        self.assertFalse(self.other.cancel())
        self.lock.release()

    def test_acquire(self):
        self.assertTrue(self.other.acquire(0, "holder"))
        call = Call(self.lock.acquire, -1, "waits")
        self.wait_for_waiters(1)
        self.assertTrue(self.lock.cancel())
        self.assert_canceled(call)
        self.assertEqual(tlock.status().holder.job, "holder")
        self.assertFalse(self.lock.cancel())
        self.other.release()
        # Both go on
        self.assertTrue(self.lock.acquire(0))
        self.lock.release()
        self.assertEqual(set(states()), {"idle"})

    def test_several_threads_and_only_this_object(self):
        with TimeoutLock(path="tlock").acquire_timeout(0):
            calls = [Call(self.lock.acquire, -1) for _ in range(5)]
            stays = Call(self.other.acquire, LONG)
            self.wait_for_waiters(6)
            while any(call.is_alive() for call in calls):
                self.lock.cancel()
                time.sleep(0.001)
            self.wait_for_waiters(1)
            for call in calls:
                self.assertEqual(call.error.errno, errno.ECANCELED)
            self.assertTrue(stays.is_alive())
        self.assertTrue(stays.result())
        self.assertIsNotNone(tlock.status().holder)
        self.other.release()

    def test_block(self):
        def block():
            with self.lock.acquire_timeout(-1):
                raise AssertionError("the block was entered")

        self.assertTrue(self.other.acquire(0))
        call = Call(block)
        self.wait_for_waiters(1)
        self.assertTrue(self.lock.cancel())
        self.assert_canceled(call)
        self.other.release()
        self.assertIsNone(tlock.status().holder)

    def test_release_and_acquire(self):
        def agent():
            self.assertTrue(self.lock.acquire(0, "agent"))
            ready.set()
            go.wait(LONG)
            try:
                self.lock.release_and_acquire(-1)
            except OSError as error:
                caught.append(error.errno)
            # It has lost the lock, and may ask for it again
            with self.assertRaises(RuntimeError):
                self.lock.release()
            with self.assertRaises(RuntimeError):
                self.lock.release_and_acquire(-1)

        ready, go, caught = threading.Event(), threading.Event(), []
        call = Call(agent)
        self.assertTrue(ready.wait(LONG))
        waiter = Call(self.other.acquire, LONG)
        self.wait_for_waiters(1)
        go.set()
        self.assertTrue(waiter.result())
        self.wait_for_waiters(1)
        self.assertTrue(self.lock.cancel())
        call.result()
        self.assertEqual(caught, [errno.ECANCELED])
        self.assertEqual(tlock.status().waiters, 0)
        self.other.release()

    def test_holders_keep_the_lock(self):
        """Calls that return in the meantime hold the lock, or raise."""
        inside = [0]
        counts = {"held": 0, "canceled": 0}
        wrong = []
        stop = threading.Event()

        def agent():
            while not stop.is_set():
                try:
                    with self.lock.acquire_timeout(-1) as acquired:
                        inside[0] += 1
                        if inside[0] != 1 or not acquired:
                            wrong.append("two are in")
                        for _ in range(3):
                            if tlock.status().holder.token != acquired.token:
                                wrong.append("lost while inside")
                        inside[0] -= 1
                        counts["held"] += 1
                except OSError as error:
                    if error.errno != errno.ECANCELED:
                        wrong.append(error)
                    counts["canceled"] += 1

        agents = [Call(agent) for _ in range(4)]
        end = time.monotonic() + LONG
        while (min(counts.values()) < 100 and not wrong
               and time.monotonic() < end):
            self.lock.cancel()
            time.sleep(0.0005)
        stop.set()
        for call in agents:
            while call.is_alive():
                self.lock.cancel()
                time.sleep(0.001)
            call.result()
        self.assertEqual(wrong, [])
        self.assertGreaterEqual(min(counts.values()), 100)
        self.assertIsNone(tlock.status().holder)
        self.assertEqual(tlock.status().waiters, 0)
        self.assertEqual(set(states()), {"idle"})
        self.assertLess(len(states()), 20)

    def test_own_call_in_a_signal_handler(self):
        """It is left alone, and the handler does not hang."""
        answers = []
        old = signal.signal(signal.SIGUSR1,
                            lambda *_: answers.append(self.lock.cancel()))
        self.addCleanup(signal.signal, signal.SIGUSR1, old)
        self.assertTrue(self.other.acquire(0))
        main = threading.main_thread().ident

        def interrupt():
            self.wait_for_waiters(1)
            signal.pthread_kill(main, signal.SIGUSR1)
            while not answers:
                time.sleep(0.001)
            self.wait_for_waiters(1)
            self.other.release()

        helper = Call(interrupt)
        self.assertTrue(self.lock.acquire(LONG))
        helper.result()
        self.assertEqual(answers, [False])
        self.lock.release()

    def test_in_a_forked_child(self):
        """The parent's calls are none of the child's."""
        self.assertTrue(self.other.acquire(0))
        call = Call(self.lock.acquire, LONG)
        self.wait_for_waiters(1)
        pid = os.fork()
        if pid == 0:
            os._exit(1 if self.lock.cancel() else 0)
        self.assertEqual(os.waitpid(pid, 0)[1], 0)
        # The child's SIGCHLD may have interrupted the thread: it comes back
        self.wait_for_waiters(1)
        self.other.release()
        self.assertTrue(call.result())
        # The thread that held it has ended; this is one of its object's
        self.lock.release()


if __name__ == "__main__":
    ktap.main()
