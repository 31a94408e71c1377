#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The agent of simple_agent.py, as a Twisted program, on any reactor.

No operation waits in a thread: while one of them waits for the lock, the
reactor runs the others. A short action whose Deferred is cancelled neither
keeps the lock nor waits for it.
"""
import time
from typing import Any, Generator

from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.task import deferLater, react

from tlock.twisted import TimeoutLock


class SimpleAgent:
    def __init__(self, reactor: Any) -> None:
        self.reactor = reactor
        self.lock = TimeoutLock()
        self.run_acq = True

    def sleep(self, seconds: float) -> "Deferred[None]":
        return deferLater(self.reactor, seconds)

    @inlineCallbacks
    def short_action(self) -> Generator["Deferred[Any]", Any, bool]:
        """Does something quick with the instrument."""
        with (yield self.lock.acquire_timeout(timeout=3,
                                              job="short_action")) as acquired:
            if not acquired:
                print("Lock could not be acquired because it is held by "
                      f"{acquired.blocker.job}", flush=True)
                return False

            print("Short action begins", flush=True)
            yield self.sleep(0.5)
            print("Short action ends", flush=True)
        return True

    @inlineCallbacks
    def start_acquisition(self) -> Generator["Deferred[Any]", Any, bool]:
        """Takes data until stop_acquisition() is called."""
        with (yield self.lock.acquire_timeout(timeout=0,
                                              job="acq")) as acquired:
            if not acquired:
                print("Lock could not be acquired because it is held by "
                      f"{acquired.blocker.job}", flush=True)
                return False

            last_release = time.monotonic()
            while self.run_acq:
                # About every second. It costs so little if nobody waits that
                # it could be done for each sample; then nobody waits long.
                if time.monotonic() - last_release > 1.0:
                    last_release = time.monotonic()
                    if not (yield acquired.release_and_acquire(timeout=10)):
                        print("Could not re-acquire lock now held by "
                              f"{acquired.blocker.job}.", flush=True)
                        return False

                print("Acquiring data", flush=True)
                yield self.sleep(0.1)
        return True

    def stop_acquisition(self) -> None:
        self.run_acq = False


@inlineCallbacks
def main(reactor: Any) -> Generator["Deferred[Any]", Any, None]:
    agent = SimpleAgent(reactor)
    acquisition = agent.start_acquisition()
    try:
        for _ in range(2):
            yield agent.sleep(0.5)
            yield agent.short_action()
    finally:
        agent.stop_acquisition()
        yield acquisition


if __name__ == "__main__":
    react(main)
