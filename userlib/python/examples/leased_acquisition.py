#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A long acquisition that does not keep the lock if it hangs.

usage: leased_acquisition.py [SAMPLES]

SAMPLES is how many it takes, ten in a second; 50 if not given. The acquisition
has a lease: it promises to call the lock again within 30 seconds. If it hangs,
because somebody stops it, or in a read that never returns, it loses the lock to
the first one who wants it after that time, and learns of that from its next
call. To see it, stop it by Ctrl-Z, and run "tlock run -w 60 true" in another
terminal.
"""
import sys
import time

from tlock import Revoked, TimeoutLock


def acquisition(lock: TimeoutLock, samples: int) -> bool:
    with lock.acquire_timeout(timeout=3, job="acq", lease=30) as acquired:
        if not acquired:
            print("Lock could not be acquired because it is held by "
                  f"{lock.job}")
            return False

        if acquired.abandoned or acquired.revoked:
            print("Resetting the instrument", flush=True)
        for _ in range(samples):
            print("Acquiring data", flush=True)
            time.sleep(0.1)
            # Lets in those who wait, and renews the lease
            if not lock.release_and_acquire(timeout=10):
                print("Could not re-acquire lock now held by "
                      f"{lock.job}.", flush=True)
                return False

        # This takes longer, and nobody must interrupt it
        lock.renew(lease=120)
        print("Reading out", flush=True)
    return True


def main() -> bool:
    samples = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    try:
        return acquisition(TimeoutLock(), samples)
    except Revoked as error:
        # Somebody else may have used the instrument during the last sample
        print(f"The last sample is not valid: {error.strerror}")
        return False


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
