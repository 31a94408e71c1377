#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The agent of simple_agent.py, as an asyncio program.

No operation waits in a thread: while one of them waits for the lock, the loop
runs the others. A short action that is cancelled neither keeps the lock nor
waits for it.
"""
import asyncio
import time

from tlock.aio import TimeoutLock


class SimpleAgent:
    def __init__(self) -> None:
        self.lock = TimeoutLock()
        self.run_acq = True

    async def short_action(self) -> bool:
        """Does something quick with the instrument."""
        async with self.lock.acquire_timeout(timeout=3,
                                             job="short_action") as acquired:
            if not acquired:
                print("Lock could not be acquired because it is held by "
                      f"{self.lock.job}", flush=True)
                return False

            print("Short action begins", flush=True)
            await asyncio.sleep(0.5)
            print("Short action ends", flush=True)
        return True

    async def start_acquisition(self) -> bool:
        """Takes data until stop_acquisition() is called."""
        async with self.lock.acquire_timeout(timeout=0, job="acq") as acquired:
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
                    if not await self.lock.release_and_acquire(timeout=10):
                        print("Could not re-acquire lock now held by "
                              f"{self.lock.job}.", flush=True)
                        return False

                print("Acquiring data", flush=True)
                await asyncio.sleep(0.1)
        return True

    def stop_acquisition(self) -> None:
        self.run_acq = False


async def main() -> None:
    agent = SimpleAgent()
    acquisition = asyncio.ensure_future(agent.start_acquisition())
    try:
        for _ in range(2):
            await asyncio.sleep(0.5)
            await agent.short_action()
    finally:
        agent.stop_acquisition()
        await acquisition


if __name__ == "__main__":
    asyncio.run(main())
