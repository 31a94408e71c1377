#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""What is wrong, and what to do: module, device or permission."""
import os
import subprocess
import unittest

import ktap  # first: finds this tree's package
import tlock
from tlock import TimeoutLock
from helper import TestCase


class Errors(TestCase):
    def assert_explains(self, kind, text, path=tlock.DEFAULT_PATH,
                        calls=(TimeoutLock, tlock.status)):
        for call in calls:
            with self.assertRaises(kind) as caught:
                call(path=path)
            self.assertIn(text, str(caught.exception))
            self.assertEqual(caught.exception.filename, path)

    def test_no_such_lock(self):
        self.assert_explains(FileNotFoundError, "it has tlock",
                             "/dev/tlock-nowhere")

    def test_not_a_lock(self):
        self.assert_explains(OSError, "not a tlock device", "/dev/null")
        self.assert_explains(OSError, "not a tlock device", "/dev")

    def test_device_missing(self):
        os.rename("/dev/tlock", "/dev/tlock.away")
        try:
            self.assert_explains(FileNotFoundError, "the device is missing")
        finally:
            os.rename("/dev/tlock.away", "/dev/tlock")

    def test_permission_lacking(self):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
                self.assert_explains(PermissionError, "permission is lacking",
                                     calls=[TimeoutLock])
                # Looking needs none
                tlock.status()
                status = 0
            finally:
                os._exit(status)
        self.assertEqual(os.waitpid(pid, 0)[1], 0)

    @unittest.skipUnless(os.environ.get("TLOCK_KO"), "needs TLOCK_KO")
    def test_module_not_loaded(self):
        subprocess.check_call(["/sbin/rmmod", "tlock"])
        try:
            self.assert_explains(FileNotFoundError, "not loaded")
            self.assert_explains(FileNotFoundError, "modprobe tlock")
        finally:
            subprocess.check_call(["/sbin/insmod", os.environ["TLOCK_KO"]])


if __name__ == "__main__":
    ktap.main()
