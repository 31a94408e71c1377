# SPDX-License-Identifier: GPL-2.0-only
"""What the tests share: other processes with a lock, and ways to wait."""
import ast
import os
import re
import signal
import subprocess
import sys
import threading
import time
import unittest

import tlock
from ktap import PYTHON_DIR

# How long to wait for what must happen: much longer than a slow machine takes
LONG = 30

_AGENT = """
import os, subprocess, sys, time
import tlock
lock = tlock.TimeoutLock(path="tlock")
print(flush=True)
for line in sys.stdin:
    try:
        result = eval(line)
    except Exception as error:
        result = type(error).__name__
    print(repr(result), flush=True)
"""


def environment(**more):
    return dict(os.environ, PYTHONPATH=PYTHON_DIR, PYTHONDONTWRITEBYTECODE="1",
                **more)


def table(name):
    """Yields the lines of a table that the tests of libtlock read, too, each as
    a list of its columns."""
    path = os.path.join(os.path.dirname(PYTHON_DIR), "tests", name)
    with open(path, "rb") as file:
        for line in file.read().splitlines():
            if line and not line.startswith(b"#"):
                yield line.split(b"\t")


def states(pid="self"):
    """Returns the state of each of a process's files of a lock."""
    folder = "/proc/%s/fdinfo/" % pid
    found = []
    for name in os.listdir(folder):
        try:
            with open(folder + name) as file:
                found += re.findall(r"^tlock-state:\t(.*)$", file.read(), re.M)
        except FileNotFoundError:
            continue    # closed by now, like the directory
    return found


def write(path, text):
    with open(path, "w") as file:
        file.write(text)


class Agent:
    """Another process, with an object `lock` of its own"""

    spare = []

    def __init__(self):
        self.process = subprocess.Popen(
            [sys.executable, "-c", _AGENT], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, universal_newlines=True, env=environment())
        self.process.stdout.readline()
        self.pid = self.process.pid
        self.pending = 0

    def begin(self, expression):
        self.process.stdin.write(expression + "\n")
        self.process.stdin.flush()
        self.pending += 1

    def result(self):
        result = ast.literal_eval(self.process.stdout.readline())
        self.pending -= 1
        return result

    def do(self, expression):
        self.begin(expression)
        return self.result()

    def kill(self):
        self.process.kill()
        self.process.wait()

    def close(self):
        """Ends its use. If it still responds, another test may reuse it."""
        if self.pending == 0 and self.process.poll() is None:
            self.do("lock.release()")
            self.do("globals().update(lock=tlock.TimeoutLock(path='tlock'))")
            self.spare.append(self)
            return
        self.kill()
        self.process.stdin.close()
        self.process.stdout.close()


class Call(threading.Thread):
    """A call in another thread, which starts at once"""

    def __init__(self, function, *args):
        super().__init__(daemon=True)
        self.call = lambda: function(*args)
        self.value = self.error = None
        self.start()

    def run(self):
        try:
            self.value = self.call()
        except BaseException as error:
            self.error = error

    def result(self):
        self.join(LONG)
        if self.is_alive():
            raise AssertionError("the call does not end")
        if self.error:
            raise self.error
        return self.value


class TestCase(unittest.TestCase):
    """A test that begins and ends with a free lock"""

    def setUp(self):
        self.assertIsNone(tlock.status().holder)
        # In case the last test has left it abandoned
        with tlock.TimeoutLock().acquire_timeout(0):
            pass
        self.addCleanup(self.wait_for, lambda: tlock.status()[:2] == (None, 0),
                        "a free lock")
        self.addCleanup(self.wait_for, lambda: set(states()) <= {"idle"},
                        "end of all requests")

    def new_lock(self, *names):
        """Makes locks, which are deleted at the end of the test."""
        for name in names:
            write("/sys/class/tlock/new_lock", name)
            self.addCleanup(write, "/sys/class/tlock/delete_lock", name)

    def agent(self):
        agent = Agent.spare.pop() if Agent.spare else Agent()
        self.addCleanup(agent.close)
        return agent

    def wait_for(self, condition, what):
        end = time.monotonic() + LONG
        while not condition():
            self.assertLess(time.monotonic(), end, "no " + what)
            time.sleep(0.005)

    def wait_for_waiters(self, number):
        self.wait_for(lambda: tlock.status().waiters == number,
                      "%d waiters" % number)

    def assert_free(self):
        self.assertIsNone(tlock.status().holder)

    def assert_idle(self):
        """Asserts that no file of this process holds or waits."""
        self.assertLessEqual(set(states()), {"idle"})

    def assert_job(self, job):
        """Asserts that the lock is held for this job."""
        self.assertEqual(tlock.status().holder.job, job)


class LoopTestCase(TestCase):
    """A test that runs in an event loop, in which its sleep() waits"""

    async def until(self, condition, what):
        end = time.monotonic() + LONG
        while not condition():
            self.assertLess(time.monotonic(), end, "no " + what)
            await self.sleep(0.005)

    async def until_waiters(self, number):
        await self.until(lambda: tlock.status().waiters == number,
                         "%d waiters" % number)

    def granted_to_us(self):
        """Waits, and the loop with it, until this process has the lock."""
        self.wait_for(lambda: (tlock.status().holder or (0,) * 3)[2] ==
                      os.getpid(), "grant")


class SignalTestCase(TestCase):
    def setUp(self):
        super().setUp()
        for number in signal.SIGINT, signal.SIGALRM, signal.SIGPROF:
            self.addCleanup(signal.signal, number, signal.getsignal(number))
        for timer in signal.ITIMER_REAL, signal.ITIMER_PROF:
            self.addCleanup(signal.setitimer, timer, 0)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def signal_the_waiter(self, number, waiters):
        """Signals this process as soon as there is this number of waiters."""
        def run():
            self.wait_for_waiters(waiters)
            os.kill(os.getpid(), number)
        return Call(run)
