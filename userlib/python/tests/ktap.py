# SPDX-License-Identifier: GPL-2.0-only
"""Runs the tests of a file, and prints their results as KTAP."""
import faulthandler
import os
import sys
import traceback
import unittest

PYTHON_DIR = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, PYTHON_DIR)
# The tests choose their locks themselves
os.environ.pop("TLOCK", None)

# Less than what selftests/run allows
LIMIT = 300


def tests_of(suite):
    """Yields the single tests in a suite of suites."""
    for item in suite:
        if isinstance(item, unittest.TestSuite):
            yield from tests_of(item)
        else:
            yield item


class KtapResult(unittest.TestResult):
    """Prints a line for each test, after its messages."""

    def startTest(self, test):
        super().startTest(test)
        self.verdict = "ok"
        self.directive = ""

    def fault(self, text):
        self.verdict = "not ok"
        for line in text.splitlines():
            print("# " + line)

    def addError(self, test, err):
        super().addError(test, err)
        self.fault("".join(traceback.format_exception(*err)))

    addFailure = addError

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err is not None:
            self.fault("%s\n%s" % (subtest, "".join(
                traceback.format_exception(*err))))

    def addUnexpectedSuccess(self, test):
        super().addUnexpectedSuccess(test)
        self.fault("succeeds unexpectedly")

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self.directive = " # SKIP " + reason

    def stopTest(self, test):
        super().stopTest(test)
        name = ".".join(test.id().split(".")[-2:])
        print("%s %d %s%s" % (self.verdict, self.testsRun, name,
                              self.directive), flush=True)


def main():
    """Runs the tests of the program, and exits, with 0 if all passed.

    Arguments select the tests that have one of them in the name. A run that
    hangs prints where, and fails.
    """
    faulthandler.dump_traceback_later(LIMIT, exit=True)
    print("TAP version 13")
    suite = unittest.defaultTestLoader.loadTestsFromModule(
        sys.modules["__main__"])
    names = sys.argv[1:]
    tests = [test for test in tests_of(suite)
             if not names or any(name in test.id() for name in names)]
    print("1..%d" % len(tests), flush=True)
    result = KtapResult()
    unittest.TestSuite(tests).run(result)
    # wasSuccessful() also covers failures of a whole class or module
    sys.exit(0 if tests and result.wasSuccessful() else 1)
