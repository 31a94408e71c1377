# SPDX-License-Identifier: GPL-2.0-only
"""A stand-in for an agent that never releases its locks during an acquisition.

usage: acquire.py JOB NUMBER

Takes the locks of NUMBER instruments, acquires until standard input ends, and
reports each step.
"""
import contextlib
import sys

from ocs import ocs_agent, site_config
from ocs.ocs_twisted import TimeoutLock


def say(text):
    print(text, flush=True)


def main():
    job, number = site_config.parse_args()
    locks = [ocs_agent.OCSAgent().lock]
    locks += [TimeoutLock(default_timeout=0) for _ in range(number - 1)]
    with contextlib.ExitStack() as stack:
        for lock in locks:
            if not stack.enter_context(
                    lock.acquire_timeout(timeout=0, job=job)):
                say("held by " + lock.job)
                return 1
        say("acquiring")
        sys.stdin.read()
    say("done")
    return 0


if __name__ == "__main__":
    sys.exit(main())
