#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""What is wrong, and what to do: module, device or permission."""
import ctypes
import os
import stat
import subprocess
import tempfile
import unittest

import ktap  # first: finds this tree's package
import tlock
from tlock import TimeoutLock
from helper import Call, TestCase


class Errors(TestCase):
    def assert_explains(self, kind, text, path=tlock.DEFAULT_PATH,
                        calls=(TimeoutLock, tlock.status)):
        for call in calls:
            with self.assertRaises(kind) as caught:
                call(path=path)
            self.assertIn(text, str(caught.exception))
            self.assertEqual(caught.exception.filename, path)

    def in_child(self, function):
        """Runs function() in a forked child, where it must not raise"""
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                function()
                status = 0
            finally:
                os._exit(status)
        self.assertEqual(os.waitpid(pid, 0)[1], 0)

    def test_no_such_lock(self):
        self.assert_explains(FileNotFoundError, "it has tlock",
                             "/dev/tlock-nowhere")
        # Nor is there one behind a device file that was left
        device = os.stat("/dev/tlock").st_rdev
        stale = os.makedev(os.major(device), os.minor(device) + 1000)
        os.mknod("/dev/tlock-stale", stat.S_IFCHR | 0o600, stale)
        self.addCleanup(os.unlink, "/dev/tlock-stale")
        self.assert_explains(FileNotFoundError, "it has tlock",
                             "/dev/tlock-stale")

    def test_not_a_lock(self):
        for path in "/dev/null", "/dev/urandom", "/dev", __file__:
            self.assert_explains(OSError, "not a tlock device", path)

    def test_fifo_is_not_opened(self):
        folder = tempfile.mkdtemp()
        self.addCleanup(os.rmdir, folder)
        path = folder + "/fifo"
        os.mkfifo(path)
        self.addCleanup(os.unlink, path)
        # That would let this one go on
        other = Call(os.open, path, os.O_WRONLY)
        self.assert_explains(OSError, "not a tlock device", path)
        self.assertTrue(other.is_alive())
        os.close(os.open(path, os.O_RDONLY))
        os.close(other.result())

    def test_terminal_does_not_become_ours(self):
        main, side = os.openpty()
        self.addCleanup(os.close, main)
        self.addCleanup(os.close, side)

        def child():
            os.setsid()
            self.assert_explains(OSError, "not a tlock device",
                                 os.ttyname(side))
            # There is none
            with self.assertRaises(OSError):
                os.open("/dev/tty", os.O_RDWR)

        self.in_child(child)

    def test_device_missing(self):
        os.rename("/dev/tlock", "/dev/tlock.away")
        try:
            self.assert_explains(FileNotFoundError, "the device is missing")
        finally:
            os.rename("/dev/tlock.away", "/dev/tlock")

    def test_permission_lacking(self):
        def child():
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            self.assert_explains(PermissionError, "permission is lacking",
                                 calls=[TimeoutLock])
            # Looking needs none
            tlock.status()

        self.in_child(child)

    def test_module_unloading(self):
        """The device file goes before the rest"""
        def child():
            libc = ctypes.CDLL(None)
            self.assertEqual(libc.unshare(0x20000), 0)      # CLONE_NEWNS
            # MS_REC | MS_PRIVATE
            self.assertEqual(libc.mount(None, b"/", None, 0x44000, None), 0)
            for path in b"/sys", b"/dev":
                self.assertEqual(
                    libc.mount(b"none", path, b"tmpfs", 0, None), 0)
            os.makedirs("/sys/class/tlock/tlock")
            os.makedirs("/sys/module/tlock")
            for state, says in (("live", "the device is missing here"),
                                ("going", "not loaded")):
                with open("/sys/module/tlock/initstate", "w") as file:
                    file.write(state + "\n")
                self.assert_explains(FileNotFoundError, says)

        self.in_child(child)

    @unittest.skipUnless(os.environ.get("TLOCK_KO"), "needs TLOCK_KO")
    def test_module_not_loaded(self):
        subprocess.check_call(["/sbin/rmmod", "tlock"])
        try:
            self.assert_explains(FileNotFoundError, "not loaded")
            self.assert_explains(FileNotFoundError, "insmod tlock.ko")
        finally:
            subprocess.check_call(["/sbin/insmod", os.environ["TLOCK_KO"]])


if __name__ == "__main__":
    ktap.main()
