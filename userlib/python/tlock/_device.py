# SPDX-License-Identifier: LGPL-2.1-or-later
"""The lock's device: linux/tlock.h in Python, and the open files of devices."""
import ctypes
import errno
import functools
import os
import re
import stat
import sys
import threading
import weakref
from errno import EINVAL, ENOTTY, EPERM, ESTALE
from fcntl import ioctl
from math import ceil
from typing import (Any, Callable, List, NamedTuple, Optional, TypeVar,
                    Union)

from ._explain import check_device, explain

# The first lock, which always exists
DEFAULT_PATH = "/dev/tlock"

JOB_SIZE = 64
COMM_SIZE = 16
NAME_SIZE = 128
HOST_SIZE = 64
# In the flags of a holder and an event
LEASED = 0x2
REVOKING = 0x4
REMOTE = 0x8
# In the flags of a status
GATED = 0x1
SHUT = 0x2
SERVED = 0x4
# In the result of ACQUIRE and REACQUIRE
ABANDONED = 0x1
REVOKED = 0x2
# In their flags
ASYNC = 0x1
RENEW = 0x2

# The longest time of the kernel, about 292 years. As the end of a grant, it
# means never.
MAX_NS = 2**63 - 1

# How a caller names a lock: see device_path()
PathLike = Union[str, "os.PathLike[str]"]

_CONTROL = re.compile("[\0-\x1f\x7f-\x9f]")
_CUT_OFF = "\u2026".encode()


class HolderStruct(ctypes.Structure):
    """struct tlock_holder"""

    _fields_ = [
        ("token", ctypes.c_uint64),
        ("since_ns", ctypes.c_int64),
        ("pid", ctypes.c_int32),
        ("uid", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
        ("expires_ns", ctypes.c_int64),
        ("comm", ctypes.c_char * COMM_SIZE),
        ("job", ctypes.c_char * JOB_SIZE),
    ]


class AcquireStruct(ctypes.Structure):
    """struct tlock_acquire"""

    _fields_ = [
        ("timeout_ns", ctypes.c_int64),
        ("flags", ctypes.c_uint32),
        ("result", ctypes.c_uint32),
        ("token", ctypes.c_uint64),
        ("ticket", ctypes.c_uint64),
        ("lease_ns", ctypes.c_uint64),
        ("reserved", ctypes.c_uint64 * 4),
        ("job", ctypes.c_char * JOB_SIZE),
        ("holder", HolderStruct),
        # From Python 3.14 on, ioctl() copies small buffers, and does not copy
        # them back if the call fails: the blocker or ticket would be lost
        ("padding", ctypes.c_char * (1024 if sys.version_info >= (3, 14)
                                     else 0)),
    ]


class StatusStruct(ctypes.Structure):
    """struct tlock_status"""

    _fields_ = [
        ("holder", HolderStruct),
        ("waiters", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("acquired", ctypes.c_uint64),
        ("contended", ctypes.c_uint64),
        ("timed_out", ctypes.c_uint64),
        ("interrupted", ctypes.c_uint64),
        ("abandoned", ctypes.c_uint64),
        ("revoked", ctypes.c_uint64),
        ("yielded", ctypes.c_uint64),
        ("wait_ns_total", ctypes.c_uint64),
        ("wait_ns_max", ctypes.c_uint64),
        ("hold_ns_total", ctypes.c_uint64),
        ("hold_ns_max", ctypes.c_uint64),
        ("reserved", ctypes.c_uint64 * 5),
        ("name", ctypes.c_char * NAME_SIZE),
    ]


class WaiterStruct(ctypes.Structure):
    """struct tlock_waiter"""

    _fields_ = [
        ("ticket", ctypes.c_uint64),
        ("since_ns", ctypes.c_int64),
        ("timeout_ns", ctypes.c_int64),
        ("pid", ctypes.c_int32),
        ("uid", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32 * 5),
        ("comm", ctypes.c_char * COMM_SIZE),
        ("job", ctypes.c_char * JOB_SIZE),
    ]


class EventStruct(ctypes.Structure):
    """struct tlock_event"""

    _fields_ = [
        ("size", ctypes.c_uint32),
        ("kind", ctypes.c_uint32),
        ("seq", ctypes.c_uint64),
        ("time_ns", ctypes.c_int64),
        ("token", ctypes.c_uint64),
        ("ticket", ctypes.c_uint64),
        ("pid", ctypes.c_int32),
        ("uid", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("lost", ctypes.c_uint32),
        ("reserved", ctypes.c_uint64 * 3),
        ("comm", ctypes.c_char * COMM_SIZE),
        ("job", ctypes.c_char * JOB_SIZE),
    ]


class RevokeStruct(ctypes.Structure):
    """struct tlock_revoke"""

    _fields_ = [
        ("token", ctypes.c_uint64),
        ("grace_ns", ctypes.c_uint64),
        ("flags", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32 * 3),
    ]


class GateStruct(ctypes.Structure):
    """struct tlock_gate"""

    _fields_ = [
        ("op", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("state", ctypes.c_uint32),
        ("waiters", ctypes.c_uint32),
        ("opening", ctypes.c_uint64),
        ("until_ns", ctypes.c_int64),
        ("grace_ns", ctypes.c_uint64),
        ("first_token", ctypes.c_uint64),
        ("last_token", ctypes.c_uint64),
        ("token", ctypes.c_uint64),
        ("result", ctypes.c_uint32),
        ("reserved0", ctypes.c_uint32),
        ("holder", HolderStruct),
        ("host", ctypes.c_char * HOST_SIZE),
        ("reserved", ctypes.c_uint64 * 4),
    ]


def _ioc(direction: int, number: int, size: int) -> int:
    """A command number, computed as in asm-generic/ioctl.h"""
    return direction << 30 | size << 16 | 0xBC << 8 | number


ACQUIRE = _ioc(3, 0x00, AcquireStruct.padding.offset)
RELEASE = _ioc(0, 0x01, 0)
REACQUIRE = _ioc(3, 0x02, AcquireStruct.padding.offset)
STATUS = _ioc(2, 0x03, ctypes.sizeof(StatusStruct))
WAITER = _ioc(3, 0x04, ctypes.sizeof(WaiterStruct))
REVOKE = _ioc(1, 0x05, ctypes.sizeof(RevokeStruct))
MONITOR = _ioc(0, 0x06, 0)
GATE = _ioc(3, 0x07, ctypes.sizeof(GateStruct))


class Revoked(OSError, RuntimeError):
    """The lock was taken from its holder, which does not hold it any more.

    Either its lease ended and somebody else wanted the lock, or somebody
    revoked the grant; or, if several hosts share the lock, this host lost touch
    with the others. The next call that concerns the acquisition, or the end
    of its block, raises this, once; errno is ESTALE. Somebody else may be
    talking to the instrument by now, perhaps since before this program's last
    command.
    """


class Terms(NamedTuple):
    """What a request asks for besides its timeout, converted for the kernel"""

    job: bytes
    lease_ns: int
    """0: no lease"""

    def with_lease(self, lease: Optional[float]) -> "Terms":
        """The same with another lease; None keeps the lease.

        Raises ValueError or TypeError for a bad lease.
        """
        if lease is None:
            return self
        return self._replace(lease_ns=_lease_ns(lease))


class Holder(NamedTuple):
    """Who holds a lock, or held it when somebody gave up.

    Text is printable: control characters of a command name are shown as "?",
    bytes that are not UTF-8 as "\\xNN".
    """

    token: int
    """the grant's number: each grant of a lock has a larger one; 0 if the
    holder is not known, as the lock's gate is shut"""
    since_ns: int
    """when it was granted, in nanoseconds of time.monotonic_ns(); negative if
    that clock, in a container, had not started yet"""
    pid: int
    """the process; 0 if it has ended or is not visible in this container, or is
    on another host"""
    uid: int
    """its effective user; 0 if it is on another host"""
    comm: str
    """its command name"""
    job: str
    """what it says it is doing; empty if it gave no job"""
    leased: bool
    """whether it has a lease"""
    revoking: bool
    """whether revoke() has given it a grace"""
    expires_ns: Optional[int]
    """when its lease or its grace ends, whichever is earlier, in nanoseconds of
    time.monotonic_ns(); None: never. After that, it loses the lock as soon as
    somebody else wants it."""
    host: Optional[str] = None
    """the other host that has the lock, if several hosts share it; empty if
    that host is not known; None: this host has it"""


class Status(NamedTuple):
    """A lock at one instant; the counters count from its creation."""

    holder: Optional[Holder]
    """None: the lock is free. If the lock's gate is shut, there is a holder,
    known or not."""
    waiters: int
    """contenders that wait for it, without those that are stopped or in a
    signal handler"""
    acquired: int
    """grants"""
    contended: int
    """acquires that found it held"""
    timed_out: int
    """acquires and reacquires that ran out of time"""
    interrupted: int
    """acquires and reacquires whose wait a signal, a stop or the like
    interrupted"""
    abandoned: int
    """holders that ended without a release"""
    revoked: int
    """holders that lost the lock to a revocation"""
    yielded: int
    """reacquires that let a waiter in"""
    wait_ns_total: int
    """nanoseconds spent waiting"""
    wait_ns_max: int
    """the longest wait"""
    hold_ns_total: int
    """nanoseconds the lock was held, over all grants that have ended"""
    hold_ns_max: int
    """the longest of these times"""
    gate: Optional[str] = None
    """of a lock that several hosts share: "open" if contenders of this host can
    get it; "shut" if not, as another host has it or this host waits for it;
    "unserved" if no daemon (tlockd) runs, so that it stays shut. None: the lock
    has no gate."""


def make_text(raw: bytes) -> str:
    """A command name or a job, which becomes printable"""
    return _CONTROL.sub("?", raw.decode("utf-8", "backslashreplace"))


def make_holder(raw: HolderStruct, fd: int) -> Optional[Holder]:
    """The holder that the kernel returned; None: the lock is free.

    fd: a descriptor of the lock, with which to ask for the holder's host
    """
    host = _host_of(raw, fd) if raw.flags & REMOTE else None
    if not raw.token and host is None:
        return None
    leased = raw.flags & LEASED != 0
    revoking = raw.flags & REVOKING != 0
    expires = (leased or revoking) and raw.expires_ns != MAX_NS
    return Holder(raw.token, raw.since_ns, raw.pid, raw.uid,
                  make_text(raw.comm), make_text(raw.job), leased, revoking,
                  raw.expires_ns if expires else None, host)


def _host_of(raw: HolderStruct, fd: int) -> str:
    """The host of a holder on another host; empty if it is not known, or the
    lock has passed on since"""
    gate = GateStruct()
    try:
        ioctl(fd, GATE, gate)
    except (OSError, ValueError):
        return ""
    return make_text(gate.host) if gate.holder.token == raw.token else ""


def describe(holder: Holder, path: str) -> str:
    """What keeps a caller from the lock at path, for a message"""
    if holder.host is None:
        return "held by job %r of pid %d (%s)" % (holder.job, holder.pid,
                                                  holder.comm)
    host = "host " + holder.host if holder.host else "another host"
    if holder.token:
        return "held by job %r on %s (%s)" % (holder.job, host, holder.comm)
    try:
        served = status(path).gate != "unserved"
    except (OSError, ValueError):
        served = True
    if not served:
        return ("shut, as no tlockd runs on this host: as root, run 'systemctl "
                "start tlockd'")
    if holder.host:
        return "shut, as %s has it" % host
    return ("shut, as tlockd waits for the cluster: see 'systemctl status "
            "tlockd'")


def nanoseconds(seconds: float, what: str) -> int:
    """A duration for the kernel: rounded up, at most MAX_NS.

    what: describes it, with its range, for an error
    """
    try:
        # NaN is not
        if seconds >= 0:
            ns = ceil(seconds * 1e9)
            return ns if ns < MAX_NS else MAX_NS
    except OverflowError:
        return MAX_NS
    except TypeError:
        raise TypeError("%s, not %r" % (what, seconds)) from None
    raise ValueError("%s, not %r" % (what, seconds))


@functools.lru_cache(maxsize=64)
def _lease_ns(lease: float) -> int:
    what = "a lease is a number of seconds, more than 0"
    ns = nanoseconds(lease, what)
    if ns == 0:
        raise ValueError("%s, not %r" % (what, lease))
    return ns


@functools.lru_cache(maxsize=64)
def _make_terms(job: str, lease_ns: int) -> Terms:
    # A lone surrogate, such as one that represents a byte, becomes "?"
    data = _CONTROL.sub("?", job).encode("utf-8", "replace")
    if len(data) >= JOB_SIZE:
        # Cut at a character boundary, with room for the ellipsis
        data = data[:JOB_SIZE - 1 - len(_CUT_OFF)]
        data = data.decode("utf-8", "ignore").encode() + _CUT_OFF
    return Terms(data, lease_ns)


def make_terms(job: object, lease: Optional[float]) -> Terms:
    """Makes terms that the kernel accepts of any object and a lease.

    A job is a label, and must not keep a program from taking the lock. None
    becomes an empty job, and anything but text becomes str(job). Control
    characters and bytes that are not UTF-8 become "?". A job of more than 63
    bytes is cut at a character boundary, and ends with an ellipsis.

    lease: in seconds; None: no lease. Raises ValueError or TypeError if it is
        not more than 0.
    """
    if job is None:
        job = ""
    elif isinstance(job, (bytes, bytearray)):
        job = job.decode("utf-8", "surrogateescape")
    elif type(job) is not str:
        try:
            job = str(job)
        except Exception:  # pylint: disable=broad-except
            job = "<%s>" % type(job).__name__
    return _make_terms(job, 0 if lease is None else _lease_ns(lease))


def device_path(lock: PathLike) -> str:
    """The path of a lock's device.

    A string with a "/" in it is a path. Any other is the name of a lock, or of
    its device: "tlock", "tlock-NAME" or just NAME.

    Raises OSError, ENAMETOOLONG, if a name is too long for a lock, and
    ValueError if it is empty.
    """
    name = os.fsdecode(lock)
    if not name:
        raise ValueError("a lock's name is empty")
    if "/" in name:
        return name
    if name != "tlock" and not name.startswith("tlock-"):
        name = "tlock-" + name
    path = "/dev/" + name
    if len(os.fsencode(name)) >= NAME_SIZE:
        number = errno.ENAMETOOLONG
        raise explain(OSError(number, os.strerror(number), path), path, STATUS)
    return path


def default_paths() -> List[str]:
    """The paths of the locks for TimeoutLock() without a path, in their order.

    TLOCK in the environment lists them, separated by commas. If it is not set,
    or empty, this is the first lock alone. Other than a program in C, a program
    in Python sees TLOCK even if it runs with more rights than its caller.

    Raises OSError and ValueError as device_path() does.
    """
    value = os.environ.get("TLOCK") or DEFAULT_PATH
    names = value.split(",")
    if "" in names:
        raise ValueError("a lock's name is empty in TLOCK=%s" % value)
    return [device_path(name) for name in names]


def _open(path: str, flags: int) -> int:
    """Opens a device; does not disturb a file that is not a lock."""
    # Opening a FIFO may block, and would let the process at its other end go on
    if not stat.S_ISCHR(os.stat(path).st_mode):
        raise OSError(errno.ENOTTY, os.strerror(errno.ENOTTY), path)
    # Opening a terminal can block, and make it our controlling terminal
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)


class Contender:
    """An open file of a lock's device, which can hold the lock once.

    Dropping the last reference closes the file; if it still holds the lock, the
    kernel passes the lock on as abandoned.
    """

    # fd: the descriptor; negative once it is closed
    # argument: the argument of ACQUIRE and REACQUIRE, which contains the terms
    # terms: those in the argument
    # caller: the acquisition of a TimeoutLock whose call uses it
    __slots__ = "path", "fd", "argument", "terms", "caller", "__weakref__"

    def __init__(self, path: str, flags: int) -> None:
        self.path = path
        self.fd = -1
        self.argument = AcquireStruct()
        self.terms = Terms(b"", 0)
        self.caller: Any = None
        try:
            self.fd = _open(path, flags)
            number = 0
            name = b""
            try:
                name = self.look().name
            except OSError as error:
                number = error.errno or 0
            number = check_device(path, number, name)
            if number:
                raise self.error(number)
            os.set_blocking(self.fd, True)
        except OSError as error:
            raise explain(error, path, STATUS) from None

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def go_on(self, request: int) -> int:
        """Resumes an interrupted call; returns 0 or an errno.

        Python has run the signal handler by then. The argument contains the
        request's ticket, so the wait goes on in its place.
        """
        number = errno.EINTR
        while number == errno.EINTR:
            try:
                number = ioctl(self.fd, request, self.argument)
            except OSError as error:
                number = error.errno or 0
        return number

    def set_terms(self, terms: Terms) -> None:
        self.argument.job = terms.job
        self.argument.lease_ns = terms.lease_ns
        self.terms = terms

    def error(self, number: int) -> OSError:
        error = OSError(number, os.strerror(number), self.path)
        if number in (ENOTTY, EINVAL):
            # All arguments are valid: the module is older than this package
            return explain(error, self.path, STATUS)
        return error

    def look(self) -> StatusStruct:
        raw = StatusStruct()
        try:
            ioctl(self.fd, STATUS, raw)
        except OSError as error:
            raise self.error(error.errno or 0) from None
        return raw

    def release(self) -> int:
        """Releases the lock, or withdraws a request for it.

        Returns 0, EPERM if this contender had neither the lock nor a request,
        or ESTALE if its grant was revoked.
        """
        try:
            ioctl(self.fd, RELEASE)
            return 0
        except OSError as error:
            if error.errno == EPERM or error.errno == ESTALE:
                return error.errno
            raise
        except ValueError:
            # A forked child has closed it
            return EPERM

    def renew(self, terms: Terms) -> int:
        """Renews the lease of the grant; returns 0 or an errno.

        The terms are also those of the calls that follow.
        """
        try:
            ioctl(self.fd, REACQUIRE,
                  AcquireStruct(flags=RENEW, lease_ns=terms.lease_ns))
        except OSError as error:
            return error.errno or 0
        except ValueError:
            # A forked child has closed it
            return EPERM
        self.set_terms(terms)
        return 0


def status(path: PathLike = DEFAULT_PATH) -> Status:
    """Looks at a lock, without disturbing its contenders.

    path is a device's path or a lock's name, by default the first lock, whatever
    TLOCK in the environment says. Read permission is enough.
    """
    contender = Contender(device_path(path), os.O_RDONLY)
    raw = contender.look()
    counters = (getattr(raw, name) for name in Status._fields[1:-1])
    return Status(make_holder(raw.holder, contender.fd),
                  *counters)._replace(gate=_gate_of(raw.flags))


def _gate_of(flags: int) -> Optional[str]:
    """Status.gate, from the flags of the status"""
    if not flags & GATED:
        return None
    if not flags & SERVED:
        return "unserved"
    return "shut" if flags & SHUT else "open"


# A forked child inherits all open files of its parent, and with them the
# parent's place in the queue and its lock, which would then outlive the parent.
# So the child closes them at once. The guard prevents a fork between the open
# of a file and its entry here.
_open_contenders: "weakref.WeakSet[Contender]" = weakref.WeakSet()
_fork_guard = threading.RLock()
_C = TypeVar("_C", bound=Contender)


def keep(make: Callable[[str], _C], path: str) -> _C:
    """Opens a lock's device by make(path). Every forked child closes it."""
    with _fork_guard:
        contender = make(path)
        _open_contenders.add(contender)
    return contender


def open_contender(path: str) -> Contender:
    """Opens a new contender, which every forked child closes."""
    return keep(lambda path: Contender(path, os.O_RDWR), path)


def contenders() -> List[Contender]:
    """Those that keep() has opened and that are still open in this process"""
    return [contender for contender in list(_open_contenders)
            if contender.fd >= 0]


def revoke(token: int, grace: float = 0, path: PathLike = DEFAULT_PATH) -> bool:
    """Takes a lock from a holder that hangs.

    The next holder sees `revoked`. The old one gets Revoked from its next call,
    or ESTALE in other languages. Until then it may go on talking to the
    instrument; only an instrument that refuses old tokens is safe from that.

    token: of the grant to revoke, from status().holder or a lock's `blocker`
    grace: how long the holder may still keep the lock, in seconds. After that,
        it loses the lock as soon as somebody else wants it. 0 takes the lock at
        once. Another call can shorten the time, but not prolong it. More than
        292 years means never.
    path: a device's path or a lock's name, by default the first lock, whatever
        TLOCK in the environment says. Write permission is needed.

    Returns whether this grant held the lock. If not, nothing was done.

    Raises PermissionError unless this process has the effective user of the
    holder, or CAP_KILL outside of all user namespaces; OSError if the lock's
    device cannot be opened, or with errno EREMOTE if the holder is on another
    host, where alone it can be revoked; ValueError or TypeError for a bad
    grace.
    """
    argument = RevokeStruct(
        token=token,
        grace_ns=nanoseconds(grace, "a grace is a number of seconds, at least 0"))
    # The structure would cut off what is too large
    if argument.token != token:
        return False
    contender = open_contender(device_path(path))
    try:
        ioctl(contender.fd, REVOKE, argument)
        return True
    except OSError as error:
        number = error.errno or 0
    finally:
        contender.close()
    if number != ESTALE:
        raise contender.error(number)
    return False


# How many default locks this process and those it was forked from have opened
_num_defaults = 0


def open_default() -> Contender:
    """Opens a new contender of the next default lock; see default_paths().

    If there is only one, it is the next one each time. A call that fails leaves
    the next one to the next call.

    Raises ValueError if each has been opened already.
    """
    global _num_defaults
    with _fork_guard:
        paths = default_paths()
        if len(paths) == 1:
            path = paths[0]
        elif _num_defaults < len(paths):
            path = paths[_num_defaults]
        else:
            raise ValueError(
                "TLOCK=%s names %d locks, but this program makes one more "
                "TimeoutLock() without a path" % (os.environ["TLOCK"],
                                                  len(paths)))
        contender = open_contender(path)
        _num_defaults += 1
    return contender


def _after_fork_in_child() -> None:
    for contender in list(_open_contenders):
        contender.close()
    _fork_guard.release()


os.register_at_fork(before=_fork_guard.acquire,
                    after_in_parent=_fork_guard.release,
                    after_in_child=_after_fork_in_child)
