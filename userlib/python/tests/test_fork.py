#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""A child does not share what its parent holds."""
import os

import ktap  # first: finds this tree's package
import tlock
from tlock import TimeoutLock
from helper import TestCase


class Fork(TestCase):
    def in_child(self, function):
        """Runs function() in a forked child, where it must return True."""
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                status = 0 if function() is True else 2
            finally:
                os._exit(status)
        self.assertEqual(os.waitpid(pid, 0)[1], 0)

    def test_child_holds_nothing(self):
        lock = TimeoutLock()
        parent = os.getpid()

        def child():
            for call in lock.release, lock.release_and_acquire:
                try:
                    call()
                except RuntimeError:
                    continue
                return False
            return (not lock.acquire(0) and lock.job == "parent"
                    and lock.blocker.pid == parent)

        for enter in lock.acquire, None:
            if enter:
                enter(0, "parent")
                self.in_child(child)
                lock.release()
            else:
                with lock.acquire_timeout(0, "parent"):
                    self.in_child(child)
                    self.assert_job("parent")
        self.assert_free()

    def test_child_leaves_its_parents_block(self):
        lock = TimeoutLock()
        with lock.acquire_timeout(0, "parent"):
            pid = os.fork()
        if pid == 0:
            # It has just left the block
            status = 1
            try:
                status = 0 if lock.acquire(-1, "child") else 2
                lock.release()
            finally:
                os._exit(status)
        self.assertEqual(os.waitpid(pid, 0)[1], 0)
        self.assert_free()

    def test_child_competes(self):
        lock = TimeoutLock()

        def child():
            with lock.acquire_timeout(0, "child") as acquired:
                return acquired and lock.job == "child"

        self.in_child(child)
        with lock.acquire_timeout(0):
            pass

    def child_outlives_its_parent(self, start_child):
        parent = self.agent()
        parent.do("lock.acquire(0, 'parent')")
        child = parent.do(start_child)
        try:
            parent.kill()
            self.wait_for(lambda: tlock.status().holder is None, "free lock")
            os.kill(child, 0)
            lock = TimeoutLock()
            with lock.acquire_timeout(0):
                self.assertTrue(lock.abandoned)
        finally:
            os.kill(child, 9)

    def test_forked_child_outlives_its_parent(self):
        self.child_outlives_its_parent(
            "os.fork() or [time.sleep(1000), os._exit(0)]")

    def test_executed_child_outlives_its_parent(self):
        self.child_outlives_its_parent(
            "subprocess.Popen(['sleep', '1000'], close_fds=False).pid")


if __name__ == "__main__":
    ktap.main()
