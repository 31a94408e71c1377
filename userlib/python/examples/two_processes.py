#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The agent of simple_agent.py, as two processes.

usage: two_processes.py [acquisition | short_action]

Runs one of the two operations. Start the acquisition in one terminal, and
short actions in another, as often as you like; kill either of them in any way,
and the other one goes on. Without an argument, this does both: it starts the
acquisition as a process, and then two short actions.
"""
import signal
import subprocess
import sys
import time
from types import FrameType
from typing import Optional

from simple_agent import SimpleAgent


def acquisition(agent: SimpleAgent) -> bool:
    def stop(number: int, frame: Optional[FrameType]) -> None:
        agent.stop_acquisition()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    return agent.start_acquisition()


def both() -> bool:
    agent = SimpleAgent()
    process = subprocess.Popen([sys.executable, __file__, "acquisition"])
    try:
        while agent.lock.job != "acq" and process.poll() is None:
            time.sleep(0.1)
        return all([agent.short_action(), agent.short_action()])
    finally:
        process.terminate()
        process.wait()


def main() -> bool:
    operation = sys.argv[1] if len(sys.argv) > 1 else "both"
    if operation == "acquisition":
        return acquisition(SimpleAgent())
    if operation == "short_action":
        return SimpleAgent().short_action()
    return both()


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
