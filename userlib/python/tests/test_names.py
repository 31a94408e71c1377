#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""Which lock a name, a path or TLOCK in the environment means."""
import errno
import os
import subprocess
import sys
from unittest import mock

import ktap  # first: finds this tree's package
import tlock
from tlock import TimeoutLock
from tlock._device import default_paths, device_path
from helper import TestCase, environment, table, write

# Programs begin with this
_BEGIN = """
import copy, os, pickle, sys, threading, warnings
sys.path.insert(0, %r)
from tlock import TimeoutLock
def name(lock): return lock.path[len("/dev/tlock-"):]
""" % ktap.PYTHON_DIR


class Names(TestCase):
    def test_table(self):
        """As libtlock's tlock_path()"""
        count = 0
        for lock, path in table("names"):
            lock = os.fsdecode(lock)
            path = os.fsdecode(path)
            count += 1
            with self.subTest(lock):
                if path == "ENAMETOOLONG":
                    for function in (lambda: TimeoutLock(path=lock),
                                     self.default(lock)):
                        with self.assertRaises(OSError) as caught:
                            function()
                        self.assertEqual(caught.exception.strerror,
                                         "the name is too long: a device's name "
                                         "has at most 127 bytes")
                    continue
                self.assertEqual(device_path(lock), path)
                self.assertEqual(self.default(lock)(), [path])
                self.assertEqual(self.default(lock + ",psu," + lock)(),
                                 [path, "/dev/tlock-psu", path])
        self.assertGreater(count, 15)

    def default(self, value):
        """default_paths() with this TLOCK"""
        return mock.patch.dict(os.environ, TLOCK=value)(default_paths)

    def test_empty(self):
        with self.assertRaises(ValueError):
            TimeoutLock(path="")
        self.assertEqual(self.default("")(), ["/dev/tlock"])
        for value in ",", "a,", ",a", "a,,b":
            with self.assertRaises(ValueError) as caught:
                self.default(value)()
            self.assertIn("TLOCK=" + value, str(caught.exception))

    def test_locks_of_two_names(self):
        self.new_lock("psu", "stage")
        psu, stage = TimeoutLock(path="psu"), TimeoutLock(path="tlock-stage")
        self.assertTrue(psu.acquire(0, "ramp"))
        self.assertTrue(stage.acquire(0, "move"))
        self.assertTrue(TimeoutLock(path="tlock").acquire(0, "first"))
        self.assertFalse(TimeoutLock(path="/dev/tlock-psu").acquire(0))
        self.assertEqual(tlock.status("psu").holder.job, "ramp")
        self.assertEqual(tlock.status("/dev/tlock-stage").holder.job, "move")
        psu.release()
        self.assertIsNone(tlock.status("psu").holder)
        self.assertEqual(stage.job, "move")
        stage.release()

    def test_lock_that_is_open_is_not_deleted(self):
        self.new_lock("psu")
        psu = TimeoutLock(path="psu")
        with self.assertRaises(OSError) as caught:
            write("/sys/class/tlock/delete_lock", "psu")
        self.assertEqual(caught.exception.errno, errno.EBUSY)
        self.assertTrue(psu.acquire(0))
        psu.release()


class Environment(TestCase):
    def setUp(self):
        super().setUp()
        self.new_lock("a", "b", "c")

    def run_python(self, value, program, *options, args=()):
        """Runs a program, and returns what it prints."""
        done = subprocess.run(
            [sys.executable, *options, "-c", _BEGIN + program, *args],
            env=environment(TLOCK=value), stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, universal_newlines=True)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return done.stdout.split()

    def test_one_name_is_for_all(self):
        for value in "a", "tlock-a", "/dev/tlock-a":
            self.assertEqual(self.run_python(value, """
warnings.simplefilter("ignore")
locks = TimeoutLock(), TimeoutLock(5), TimeoutLock()
print(*map(name, locks))
print(locks[0].acquire(0, "job"), locks[1].acquire(0))
"""), ["a", "a", "a", "True", "False"])

    def test_one_name_for_two_objects_is_worth_a_warning(self):
        program = """
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    locks = [TimeoutLock() for i in range(2)]
print(len(caught))
print(*("TLOCK=psu,stage" in str(warning.message) for warning in caught))
"""
        self.assertEqual(self.run_python("a", program), ["1", "True"])
        self.assertEqual(self.run_python("a,a", program), ["1", "True"])
        self.assertEqual(self.run_python("a,b", program), ["0"])

    def test_list_is_in_order_of_construction(self):
        self.assertEqual(self.run_python("c,tlock,tlock-a", """
print(*(TimeoutLock().path for i in range(3)))
"""), ["/dev/tlock-c", "/dev/tlock", "/dev/tlock-a"])

    def test_more_objects_than_names(self):
        self.assertEqual(self.run_python("a,b", """
a, b = TimeoutLock(), TimeoutLock()
for i in range(2):
    try:
        TimeoutLock()
    except ValueError as error:
        print("TLOCK=a,b names 2 locks" in str(error))
TimeoutLock(path="c")
"""), ["True", "True"])

    def test_explicit_locks_win_and_do_not_count(self):
        self.assertEqual(self.run_python("a,b", """
c, a = TimeoutLock(path="c"), TimeoutLock()
d = copy.copy(a), copy.deepcopy(a), pickle.loads(pickle.dumps(a))
print(*map(name, (c, a, *d, TimeoutLock())))
"""), ["c", "a", "a", "a", "a", "b"])

    def test_failed_constructor_does_not_count(self):
        self.assertEqual(self.run_python("a,nosuch,b", """
print(name(TimeoutLock()))
for timeout in -5, 0, 0:
    try:
        TimeoutLock(timeout)
    except (OSError, ValueError) as error:
        print(getattr(error, "filename", "bad"))
os.environ["TLOCK"] = "a,c,b"
print(name(TimeoutLock()), name(TimeoutLock()))
"""), ["a", "bad", "/dev/tlock-nosuch", "/dev/tlock-nosuch", "c", "b"])

    def test_threads_that_construct_at_once(self):
        names = ["n%d" % i for i in range(20)]
        self.new_lock(*names)
        self.assertEqual(self.run_python(",".join(names), """
import time
from tlock import _device
locks = []
opens = _device.open_contender
def slowly(path):
    time.sleep(0.01)
    return opens(path)
# If others could run between the choice of a name and the end, they would
_device.open_contender = slowly
barrier = threading.Barrier(20)
def construct():
    barrier.wait()
    locks.append(TimeoutLock())
threads = [threading.Thread(target=construct) for i in range(20)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(*sorted(map(name, locks)))
"""), sorted(names))

    def test_forked_child_goes_on(self):
        self.assertEqual(self.run_python("a,b,c", """
a = TimeoutLock()
if os.fork() == 0:
    print(name(a), name(TimeoutLock()), name(TimeoutLock()), flush=True)
    os._exit(0)
os.wait()
print(name(TimeoutLock()), name(TimeoutLock()))
"""), ["a", "b", "c", "b", "c"])

    def test_classes_for_event_loops(self):
        """All classes share the order, and the default."""
        program = """
import tlock.aio, tlock.twisted
warnings.simplefilter("error")
kinds = {"b": TimeoutLock, "a": tlock.aio.TimeoutLock,
         "t": tlock.twisted.TimeoutLock}
for order in "bat", "tba", "atb", "aaa", "ttt":
    for value in "b,a,c", "b,a", "c":
        if os.fork() == 0:
            os.environ["TLOCK"] = value
            locks = []
            for letter in order:
                try:
                    locks.append(kinds[letter]())
                    print(name(locks[-1]))
                except (RuntimeWarning, ValueError) as error:
                    print(type(error).__name__)
            print(*(name(kinds[letter](path="a")) for letter in order),
                  flush=True)
            os._exit(0)
        os.wait()
"""
        # A default is worth one warning, for the second object
        self.assertEqual(self.run_python("", program), 5 * [
            "b", "a", "c", "a", "a", "a",
            "b", "a", "ValueError", "a", "a", "a",
            "c", "RuntimeWarning", "c", "a", "a", "a"])

    def test_classes_for_event_loops_in_a_forked_child(self):
        self.assertEqual(self.run_python("a,b,c", """
import tlock.aio, tlock.twisted
a = tlock.aio.TimeoutLock()
b = copy.copy(a), pickle.loads(pickle.dumps(a))
if os.fork() == 0:
    print(name(a), name(tlock.twisted.TimeoutLock()), name(TimeoutLock()),
          flush=True)
    os._exit(0)
os.wait()
try:
    tlock.twisted.TimeoutLock(-5)
except ValueError:
    print(*map(name, b), name(tlock.twisted.TimeoutLock()))
"""), ["a", "b", "c", "a", "a", "b"])

    def test_isolated_mode(self):
        for option in "-E", "-I":
            self.assertEqual(self.run_python("a", "print(name(TimeoutLock()))",
                                             option), ["a"])

    def test_status_ignores_it(self):
        with mock.patch.dict(os.environ, TLOCK="a"):
            with TimeoutLock().acquire_timeout(0, "job"):
                self.assertIsNone(tlock.status().holder)
                self.assertEqual(tlock.status("a").holder.job, "job")


if __name__ == "__main__":
    ktap.main()
