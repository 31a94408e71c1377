#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""The errors: what is wrong (module, device or permission) and what to do."""
import ctypes
import errno
import os
import stat
import struct
import subprocess
import tempfile
import traceback
import unittest

import ktap  # first: finds this tree's package
import tlock
from tlock import TimeoutLock
from helper import Call, TestCase, write


TABLE = os.path.join(os.path.dirname(ktap.PYTHON_DIR), "tests", "errors")

# (ioctl, openat)
CALLS = {"x86_64": (16, 257), "aarch64": (29, 56)}

libc = ctypes.CDLL(None, use_errno=True)


def call(function, *args):
    if function(*args):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def unshare_mounts():
    call(libc.unshare, 0x20000)                             # CLONE_NEWNS
    # MS_REC | MS_PRIVATE
    call(libc.mount, None, b"/", None, 0x44000, None)


def hide(directory):
    os.makedirs(directory, exist_ok=True)
    call(libc.mount, b"none", directory.encode(), b"tmpfs", 0, b"mode=755")


def deny(name, error):
    """Makes "ioctl", or "open" with O_RDWR, fail from now on."""
    number = CALLS[os.uname().machine][name == "open"]
    flags = (os.O_ACCMODE, os.O_RDWR) if name == "open" else (0, 0)
    program = ((0x20, 0, 0, 0),                             # the call
               (0x15, 0, 4, number),
               (0x20, 0, 0, 32),                            # its third argument
               (0x54, 0, 0, flags[0]),
               (0x15, 0, 1, flags[1]),
               (0x06, 0, 0, 0x50000 | getattr(errno, error)),
               (0x06, 0, 0, 0x7fff0000))                    # allow
    code = ctypes.create_string_buffer(
        b"".join(struct.pack("HBBI", *line) for line in program))
    header = ctypes.create_string_buffer(
        struct.pack("HP", len(program), ctypes.addressof(code)))
    call(libc.prctl, 38, 1, 0, 0, 0)                        # NO_NEW_PRIVS
    call(libc.prctl, 22, 2, header)                         # SECCOMP


def become(uid, gid):
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)


def read_line(path):
    with open(path) as file:
        return file.readline().rstrip("\n")


def read_table():
    """Returns {name: [(word, rest)]}, with the common lines in each case."""
    common = []
    cases = {}
    lines = common
    with open(TABLE) as file:
        for line in file:
            word, _, rest = line.rstrip("\n").partition(" ")
            if word == "case":
                lines = cases[rest] = list(common)
            elif word and not word.startswith("#"):
                lines.append((word, rest))
    return cases


class Errors(TestCase):
    def assert_explains(self, kind, text, path=tlock.DEFAULT_PATH,
                        calls=(TimeoutLock, tlock.status)):
        for function in calls:
            with self.assertRaises(kind) as caught:
                function(path=path)
            self.assertIn(text, str(caught.exception))
            self.assertEqual(caught.exception.filename, path)

    def in_child(self, function):
        """Runs function() in a forked child, where it must not raise."""
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                function()
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        self.assertEqual(os.waitpid(pid, 0)[1], 0)

    def run_case(self, lines):
        """In a child: sets up what the lines say, and checks the text."""
        lock = tlock.DEFAULT_PATH
        number = 0
        values = {"$DEV": read_line("/sys/class/tlock/tlock/dev"),
                  "$VERSION": read_line("/sys/module/tlock/version")}
        unshare_mounts()
        for word, rest in lines:
            if word == "hide":
                hide(rest)
            elif word == "sh":
                subprocess.check_call(["/bin/bash", "-ec", rest],
                                      env=dict(os.environ,
                                               DEV=values["$DEV"]))
            elif word == "deny":
                deny(*rest.split())
            elif word == "make":
                write("/sys/class/tlock/new_lock", rest)
            elif word == "as":
                become(*map(int, rest.split()))
            elif word == "lock":
                lock = rest
            elif word == "errno":
                number = getattr(errno, rest)
                if number == errno.ENXIO:
                    number = errno.ENOENT
            else:
                self.assertEqual(word, "text")
                for name, value in values.items():
                    rest = rest.replace(name, value)
                path = lock if "/" in lock else "/dev/tlock-" + lock
                with self.assertRaises(type(OSError(number, ""))) as caught:
                    TimeoutLock(path=lock)
                error = caught.exception
                self.assertEqual((error.strerror, error.errno, error.filename),
                                 (rest, number, path))
                self.assertEqual(str(error), "[Errno %d] %s: %r" %
                                 (number, rest, path))
                return
        self.fail("a case without a text")

    def test_table(self):
        cases = read_table()
        self.assertGreater(len(cases), 40)
        for name, lines in cases.items():
            with self.subTest(name):
                self.in_child(lambda lines=lines: self.run_case(lines))
                for word, rest in lines:
                    if word == "make":
                        write("/sys/class/tlock/delete_lock", rest)

    def test_not_a_lock(self):
        for path in "/dev/null", "/dev/urandom", "/dev", __file__:
            self.assert_explains(OSError, "not a tlock", path)

    def test_fifo_is_not_opened(self):
        folder = tempfile.mkdtemp()
        self.addCleanup(os.rmdir, folder)
        path = folder + "/fifo"
        os.mkfifo(path)
        self.addCleanup(os.unlink, path)
        # An open for reading would let this thread go on
        other = Call(os.open, path, os.O_WRONLY)
        self.assert_explains(OSError, "not a tlock", path)
        self.assertTrue(other.is_alive())
        os.close(os.open(path, os.O_RDONLY))
        os.close(other.result())

    def test_terminal_does_not_become_ours(self):
        main, side = os.openpty()
        self.addCleanup(os.close, main)
        self.addCleanup(os.close, side)

        def child():
            os.setsid()
            self.assert_explains(OSError, "not a tlock",
                                 os.ttyname(side))
            # There is no controlling terminal
            with self.assertRaises(OSError):
                os.open("/dev/tty", os.O_RDWR)

        self.in_child(child)

    def test_looking_needs_no_permission(self):
        def child():
            become(65534, 65534)
            self.assert_explains(PermissionError, "permission denied",
                                 calls=[TimeoutLock])
            tlock.status()

        self.in_child(child)

    def test_alias(self):
        """A symbolic link may have any name; a device file may not"""
        def child():
            unshare_mounts()
            device = os.stat("/dev/tlock").st_rdev
            hide("/dev")
            for path in "/dev/tlock-psu", "/dev/psu":
                os.mknod(path, stat.S_IFCHR | 0o600, device)
            os.symlink("psu", "/dev/tlock-stage")
            self.assert_explains(FileNotFoundError, "leads to another lock",
                                 "/dev/tlock-psu")
            tlock.status("stage")
            tlock.status("/dev/psu")

        self.in_child(child)

    @unittest.skipUnless(os.environ.get("TLOCK_KO"), "needs TLOCK_KO")
    def test_module_not_loaded(self):
        subprocess.check_call(["/sbin/rmmod", "tlock"])
        try:
            self.assert_explains(FileNotFoundError, "not loaded")
        finally:
            subprocess.check_call(["/sbin/insmod", os.environ["TLOCK_KO"]])


if __name__ == "__main__":
    ktap.main()
