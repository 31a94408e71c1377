#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""How long a hand-over takes to an agent in Python that waits.

From just before another process releases the lock until the agent's own code
runs on: an agent that waits in a thread, in tlock.TimeoutLock, and one that
waits in an event loop, in tlock.aio. The medians of many hand-overs, in
nanoseconds, and the ratio of the second to the first. In a guest with --icount,
a nanosecond is an executed instruction, of either process.
"""
import argparse
import asyncio
import mmap
import os
import statistics
import struct
import sys
import time

TREE = os.path.dirname(os.path.abspath(__file__)) + "/../.."
sys.path.insert(0, TREE + "/userlib/python")

import tlock  # noqa: E402
import tlock.aio  # noqa: E402


def wait_for(condition):
    while not condition():
        time.sleep(0.0005)


def hand_over(memory, rounds):
    """Runs in the other process, which notes when it releases the lock."""
    lock = tlock.TimeoutLock(path="tlock")
    for _ in range(rounds):
        lock.acquire(-1, "other")
        wait_for(lambda: tlock.status().waiters)
        # The agent rests by now
        time.sleep(0.002)
        memory[:] = struct.pack("q", time.perf_counter_ns())
        lock.release()


def await_turn(pid):
    """Waits until the other process has the lock again."""
    wait_for(lambda: (tlock.status().holder or (0,) * 3)[2] == pid)


def since(memory):
    return time.perf_counter_ns() - struct.unpack("q", memory)[0]


def in_thread(memory, rounds, pid):
    lock = tlock.TimeoutLock(path="tlock")
    for _ in range(rounds):
        await_turn(pid)
        lock.acquire(-1)
        yield since(memory)
        lock.release()


def in_loop(memory, rounds, pid):
    async def agent():
        lock = tlock.aio.TimeoutLock(path="tlock")
        for _ in range(rounds):
            await_turn(pid)
            await lock.acquire(-1)
            times.append(since(memory))
            lock.release()

    times = []
    asyncio.run(agent())
    return times


def median(agent, rounds):
    memory = mmap.mmap(-1, 8)
    pid = os.fork()
    if pid == 0:
        hand_over(memory, rounds)
        os._exit(0)
    times = list(agent(memory, rounds, pid))
    os.waitpid(pid, 0)
    # Whatever is slow the first time
    return statistics.median(times[rounds // 10:])


def main():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rounds", nargs="?", type=int, default=300,
                        help="hand-overs to each (300)")
    rounds = parser.parse_args().rounds
    thread = median(in_thread, rounds)
    loop = median(in_loop, rounds)
    for name, value in (("tlock", thread), ("tlock.aio", loop),
                        ("ratio", loop / thread)):
        print("python%d.%d/handover/%s %.6g" % (*sys.version_info[:2], name,
                                                value))


main()
