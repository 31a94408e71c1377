#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""An agent of two operations that share an instrument: as threads.

The acquisition takes data all the time, in a thread of its own. A short
action gets in between: it waits at most 3 seconds, while the acquisition lets
others in about every second.
"""
import threading
import time

from tlock import TimeoutLock


class SimpleAgent:
    def __init__(self) -> None:
        self.lock = TimeoutLock()
        self.run_acq = True

    def short_action(self) -> bool:
        """Does something quick with the instrument."""
        with self.lock.acquire_timeout(timeout=3,
                                       job="short_action") as acquired:
            if not acquired:
                print("Lock could not be acquired because it is held by "
                      f"{self.lock.job}", flush=True)
                return False

            print("Short action begins", flush=True)
            time.sleep(0.5)
            print("Short action ends", flush=True)
        return True

    def start_acquisition(self) -> bool:
        """Takes data until stop_acquisition() is called."""
        with self.lock.acquire_timeout(timeout=0, job="acq") as acquired:
            if not acquired:
                print("Lock could not be acquired because it is held by "
                      f"{self.lock.job}", flush=True)
                return False

            last_release = time.monotonic()
            while self.run_acq:
                # About every second. It costs so little if nobody waits that
                # it could be done for each sample; then nobody waits long.
                if time.monotonic() - last_release > 1.0:
                    last_release = time.monotonic()
                    if not self.lock.release_and_acquire(timeout=10):
                        print("Could not re-acquire lock now held by "
                              f"{self.lock.job}.", flush=True)
                        return False

                print("Acquiring data", flush=True)
                time.sleep(0.1)
        return True

    def stop_acquisition(self) -> None:
        self.run_acq = False


def main() -> None:
    agent = SimpleAgent()
    acquisition = threading.Thread(target=agent.start_acquisition)
    acquisition.start()
    try:
        for _ in range(2):
            time.sleep(0.5)
            agent.short_action()
    finally:
        agent.stop_acquisition()
        acquisition.join()


if __name__ == "__main__":
    main()
