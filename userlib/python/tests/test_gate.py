#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""Locks that several hosts share: what their contenders see."""
import asyncio
import errno
import gc
import os
import subprocess
import sys

import ktap  # first: finds this tree's package
import tlock
import tlock.aio
from tlock import TimeoutLock
from helper import Call, TestCase, environment, write

CLASS = "/sys/class/tlock/"
FAKE = os.path.join(os.path.dirname(ktap.PYTHON_DIR), "tests", "fake-tlockd")


class Daemon:
    """The daemon of the lock "shared", which obeys do()"""

    def __init__(self):
        self.process = subprocess.Popen(
            [sys.executable, FAKE, "shared"], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, universal_newlines=True, env=environment())
        assert self.process.stdout.readline() == "ready\n"

    def do(self, command):
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer == "ok\n", answer

    def close(self):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()


class Gates(TestCase):
    def setUp(self):
        super().setUp()
        write(CLASS + "new_gated_lock", "shared")
        self.addCleanup(self.wait_for, self.delete, "end of its files")
        self.lock = TimeoutLock(0, path="shared")
        self.addCleanup(delattr, self, "lock")

    @staticmethod
    def delete():
        # An event loop leaves garbage with references to locks
        gc.collect()
        try:
            write(CLASS + "delete_lock", "shared")
        except OSError as error:
            assert error.errno == errno.EBUSY
            return False
        return True

    def daemon(self, command=""):
        daemon = Daemon()
        self.addCleanup(daemon.close)
        if command:
            daemon.do(command)
        return daemon

    def assert_raises(self, text):
        with self.assertRaisesRegex(TimeoutError, text):
            with self.lock:
                self.fail("the lock was acquired")

    def test_without_a_gate(self):
        self.assertIsNone(tlock.status().gate)
        with TimeoutLock(0, path="tlock") as acquired:
            self.assertTrue(acquired)
            self.assertIsNone(tlock.status().holder.host)

    def test_no_daemon(self):
        status = tlock.status("shared")
        self.assertEqual(status.gate, "unserved")
        self.assertEqual(status.holder[:6], (0, 0, 0, 0, "", ""))
        self.assertEqual(status.holder.host, "")
        self.assertTrue(self.lock.locked())
        self.assertEqual(self.lock.job, "")
        self.assertFalse(self.lock.acquire(0))
        self.assertEqual(self.lock.blocker, status.holder)
        self.assert_raises("it is shut, as no tlockd runs on this host: as "
                           "root, run 'systemctl start tlockd'")
        self.assertRegex(repr(self.lock), "shared: shut, as no tlockd runs")

    def test_no_cluster(self):
        daemon = self.daemon()
        self.assertEqual(tlock.status("shared").gate, "shut")
        self.assert_raises("it is shut, as tlockd waits for the cluster")
        daemon.do("shut lab2")
        self.assertEqual(tlock.status("shared").holder.host, "lab2")
        self.assert_raises("it is shut, as host lab2 has it")

    def test_holder_on_another_host(self):
        self.daemon("shut lab2 7 'acq \u03bb' python3")
        status = tlock.status("shared")
        self.assertEqual(status.gate, "shut")
        holder = status.holder
        self.assertEqual(holder._replace(since_ns=0), tlock.Holder(
            7, 0, 0, 0, "python3", "acq \u03bb", False, False, None, "lab2"))
        text = r"held by job 'acq \u03bb' on host lab2 \(python3\)"
        self.assert_raises("it is " + text)
        self.assertRegex(repr(self.lock), text)
        with self.lock.acquire_timeout(0.01) as acquired:
            self.assertFalse(acquired)
            self.assertEqual(acquired.blocker, holder)
            self.assertEqual(self.lock.job, holder.job)
            self.assertRegex(repr(acquired), text)
        with self.assertRaises(OSError) as caught:
            tlock.revoke(7, path="shared")
        self.assertEqual(caught.exception.errno, errno.EREMOTE)
        self.assertEqual(caught.exception.filename, "/dev/tlock-shared")

    def test_in_an_event_loop(self):
        self.daemon("shut lab2 7 acq python3")

        async def main():
            lock = tlock.aio.TimeoutLock(0, path="shared")
            with self.assertRaisesRegex(TimeoutError, "on host lab2"):
                async with lock:
                    self.fail("the lock was acquired")
            self.assertFalse(await lock.acquire(0.01))
            self.assertEqual(lock.blocker.host, "lab2")
            self.assertRegex(repr(lock), "on host lab2")

        asyncio.run(main())

    def test_the_gate_opens(self):
        daemon = self.daemon("shut lab2 7 acq python3")
        call = Call(self.lock.acquire, -1)
        self.wait_for(lambda: tlock.status("shared").waiters == 1, "waiter")
        daemon.do("open 100")
        self.assertTrue(call.result())
        status = tlock.status("shared")
        self.assertEqual(status.gate, "open")
        self.assertEqual(status.holder.pid, os.getpid())
        self.assertIsNone(status.holder.host)
        self.assertGreater(status.holder.token, 7)
        self.lock.release()

    def test_the_gate_ends_a_grant(self):
        daemon = self.daemon("open 100")
        with tlock.Monitor("shared") as events:
            with self.assertRaises(tlock.Revoked):
                with self.lock:
                    daemon.do("shut lab2")
            found = [next(events) for _ in range(2)]
        self.assertEqual([(event.kind, event.revoking, event.by_gate)
                          for event in found],
                         [("acquired", False, False), ("revoked", False, True)])


if __name__ == "__main__":
    ktap.main()
