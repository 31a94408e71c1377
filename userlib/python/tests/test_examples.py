#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""The example programs, as a user runs them."""
import re
import subprocess
import sys
import time

import ktap  # first: finds this tree's package
import tlock
from tlock import TimeoutLock
from helper import LONG, PYTHON_DIR, TestCase, environment


class Examples(TestCase):
    def start(self, name, *args):
        process = subprocess.Popen(
            [sys.executable, "%s/examples/%s" % (PYTHON_DIR, name), *args],
            stdout=subprocess.PIPE, universal_newlines=True,
            env=environment())
        self.addCleanup(process.wait)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.kill)
        return process

    def run_example(self, name, *args):
        """Returns the example's exit status and output."""
        process = self.start(name, *args)
        # Twisted alone may take long to load
        output = process.communicate(timeout=4 * LONG)[0]
        return process.returncode, output

    def test_acquire_timeout(self):
        self.assertEqual(self.run_example("acquire_timeout.py", "0"),
                         (0, "Lock acquired!\n"))

    def test_acquire_timeout_of_a_held_lock(self):
        lock = TimeoutLock()
        with lock.acquire_timeout(0, "calibration"):
            begin = time.monotonic()
            self.assertEqual(
                self.run_example("acquire_timeout.py"),
                (1, "Lock could not be acquired because it is held by "
                    "calibration\n"))
            self.assertGreaterEqual(time.monotonic() - begin, 3)

    def test_leased_acquisition(self):
        self.assertEqual(self.run_example("leased_acquisition.py", "2"),
                         (0, "Acquiring data\n" * 2 + "Reading out\n"))

    def test_leased_acquisition_that_is_revoked(self):
        process = self.start("leased_acquisition.py", "100000")
        self.assertEqual(process.stdout.readline(), "Acquiring data\n")
        holder = tlock.status().holder
        self.assertTrue(holder.leased)
        self.assertTrue(tlock.revoke(holder.token))
        self.assertRegex(process.communicate(timeout=LONG)[0],
                         r"^(Acquiring data\n)*The last sample is not valid: "
                         r"job 'acq' has lost the lock.*\n$")
        self.assertEqual(process.returncode, 1)
        # The next one knows
        self.assertEqual(self.run_example("leased_acquisition.py", "0"),
                         (0, "Resetting the instrument\nReading out\n"))

    def check_agent(self, name):
        status, output = self.run_example(name)
        self.assertEqual(status, 0, output)
        data = "(Acquiring data\n)+"
        short = "Short action begins\nShort action ends\n"
        self.assertTrue(re.match("^%s%s%s%s" % (data, short, data, short),
                                 output), output)

    def test_agent_of_threads(self):
        self.check_agent("simple_agent.py")

    def test_agent_for_asyncio(self):
        self.check_agent("aio_agent.py")

    def test_agent_for_twisted(self):
        self.check_agent("twisted_agent.py")

    def test_agent_of_two_processes(self):
        self.check_agent("two_processes.py")

    def test_two_processes_one_by_one(self):
        acquisition = self.start("two_processes.py", "acquisition")
        for _ in range(3):
            self.assertEqual(acquisition.stdout.readline(), "Acquiring data\n")
        short = self.start("two_processes.py", "short_action")
        self.assertEqual(short.communicate(timeout=LONG)[0],
                         "Short action begins\nShort action ends\n")
        self.assertEqual(acquisition.stdout.readline(), "Acquiring data\n")
        # A second acquisition cannot start, nor does it disturb the first
        self.assertEqual(
            self.run_example("two_processes.py", "acquisition"),
            (1, "Lock could not be acquired because it is held by acq\n"))
        # The first one dies, and short actions still run
        acquisition.kill()
        self.assertEqual(self.run_example("two_processes.py", "short_action"),
                         (0, "Short action begins\nShort action ends\n"))


if __name__ == "__main__":
    ktap.main()
