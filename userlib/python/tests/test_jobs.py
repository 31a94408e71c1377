#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""Anything becomes a job, by the rules of libtlock's tlock_make_job()."""
import enum
import os
import unittest

import ktap  # first: finds this tree's package
from tlock._device import make_terms
from helper import table


def make_job(job):
    return make_terms(job, None).job


def unescape(text):
    return text.decode("unicode_escape").encode("latin-1")


class Jobs(unittest.TestCase):
    def test_table(self):
        count = 0
        for columns in table("jobs"):
            text, job = map(unescape, columns)
            count += 1
            with self.subTest(text):
                self.assertEqual(make_job(text), job)
                # As in arguments and file names
                self.assertEqual(make_job(os.fsdecode(text)), job)
                self.assertEqual(make_job(job), job)
        self.assertGreater(count, 20)

    def test_what_c_has_not(self):
        self.assertEqual(make_job(None), b"")
        self.assertEqual(make_job(""), b"")
        self.assertEqual(make_job(b""), b"")
        self.assertEqual(make_job("a\0b"), b"a?b")
        self.assertEqual(make_job(b"a\0b"), b"a?b")
        self.assertEqual(make_job("\ud83d and \udd2d"), b"? and ?")
        self.assertEqual(make_job("\udcff" * 64), b"?" * 60 + "…".encode())

    def test_no_text(self):
        class Odd(enum.Enum):
            ONE = 1

        class Failing:
            def __str__(self):
                raise ValueError

        class NoText:
            def __str__(self):
                return 1

        self.assertEqual(make_job(42), b"42")
        self.assertEqual(make_job(False), b"False")
        self.assertEqual(make_job(Odd.ONE), b"Odd.ONE")
        self.assertEqual(make_job(["a", 1]), b"['a', 1]")
        self.assertEqual(make_job(Failing()), b"<Failing>")
        self.assertEqual(make_job(NoText()), b"<NoText>")
        self.assertEqual(make_job(list(range(1000))),
                         str(list(range(1000)))[:60].encode() + "…".encode())


if __name__ == "__main__":
    ktap.main()
