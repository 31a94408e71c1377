# SPDX-License-Identifier: LGPL-2.1-or-later
"""A timed, fair lock between processes, named after the job that holds it.

TimeoutLock is the lock for an agent, with the names, arguments and results of
the TimeoutLock of OCS; "python3 -m tlock.ocs" runs an agent of OCS with it,
unchanged. tlock.aio and tlock.twisted have a TimeoutLock for event loops.
status() and waiters() look at a lock without taking it. A Monitor, here or in
tlock.aio, returns what happens to it. revoke() takes it from a holder that
hangs, whose next call then raises Revoked. Several hosts can share a lock;
Holder.host says which of them has it.

All need the kernel module tlock. If a class or a function cannot open a
lock's device, it raises an OSError that says why and what to do:
FileNotFoundError if the module is not loaded, or the device is missing or leads
to another lock; PermissionError if permission is denied.
"""
from ._device import DEFAULT_PATH, Holder, Revoked, Status, revoke, status
from ._lock import Acquisition, TimeoutLock
from ._watch import Event, Monitor, Waiter, waiters

# Must match the file VERSION, which a package built by pip cannot reach
__version__ = "0.3"

__all__ = ["Acquisition", "DEFAULT_PATH", "Event", "Holder", "Monitor", "Revoked",
           "Status", "TimeoutLock", "Waiter", "revoke", "status", "waiters"]
