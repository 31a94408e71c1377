#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""The benchmark of hand-overs measures something."""
import os
import subprocess
import sys

import ktap  # first: finds this tree's package
from helper import PYTHON_DIR, TestCase, environment

PROGRAM = os.path.join(PYTHON_DIR, "../../selftests/bench/latency.py")


class Latency(TestCase):
    def test_prints_both_and_their_ratio(self):
        text = subprocess.run([sys.executable, PROGRAM, "10"],
                              env=environment(), stdout=subprocess.PIPE,
                              universal_newlines=True, check=True).stdout
        names, values = zip(*map(str.split, text.splitlines()))
        self.assertEqual([name.split("/")[1:] for name in names], [
            ["handover", "tlock"], ["handover", "tlock.aio"],
            ["handover", "ratio"]])
        thread, loop, ratio = map(float, values)
        self.assertGreater(thread, 0)
        self.assertAlmostEqual(ratio, loop / thread, delta=ratio / 100)


if __name__ == "__main__":
    ktap.main()
