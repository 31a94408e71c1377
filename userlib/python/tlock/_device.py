# SPDX-License-Identifier: LGPL-2.1-or-later
"""The lock's device: linux/tlock.h in Python, and who may have it open.

The ioctls are made by way of ctypes. fcntl.ioctl() will not do: from Python
3.14 on it drops what the kernel has written if the call failed, which is where
a blocker's name is.
"""
import ctypes
import errno
import grp
import io
import os
import pwd
import re
import stat
import threading
import weakref
from typing import NamedTuple, Optional, Tuple, Union

DEFAULT_PATH = "/dev/tlock"

JOB_SIZE = 64
COMM_SIZE = 16
NAME_SIZE = 128
ABANDONED = 0x1

# What a lock is named by: see device_path()
PathLike = Union[str, "os.PathLike[str]"]

_CONTROL = re.compile("[\0-\x1f\x7f-\x9f]")


class HolderStruct(ctypes.Structure):
    """struct tlock_holder"""

    _fields_ = [
        ("token", ctypes.c_uint64),
        ("since_ns", ctypes.c_int64),
        ("pid", ctypes.c_int32),
        ("uid", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32 * 3),
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
        ("yielded", ctypes.c_uint64),
        ("wait_ns_total", ctypes.c_uint64),
        ("wait_ns_max", ctypes.c_uint64),
        ("hold_ns_total", ctypes.c_uint64),
        ("hold_ns_max", ctypes.c_uint64),
        ("reserved", ctypes.c_uint64 * 6),
        ("name", ctypes.c_char * NAME_SIZE),
    ]


def _ioc(direction: int, number: int, size: int) -> int:
    """A command number, as asm-generic/ioctl.h makes them"""
    return direction << 30 | size << 16 | 0xBC << 8 | number


ACQUIRE = _ioc(3, 0x00, ctypes.sizeof(AcquireStruct))
RELEASE = _ioc(0, 0x01, 0)
REACQUIRE = _ioc(3, 0x02, ctypes.sizeof(AcquireStruct))
STATUS = _ioc(2, 0x03, ctypes.sizeof(StatusStruct))

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ioctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p)


class Holder(NamedTuple):
    """Who holds a lock, or held it when somebody gave up.

    Text is fit to print: control characters of a command name are shown as
    "?", bytes that are not UTF-8 as "\\xNN".
    """

    token: int
    """the grant's number: each grant of a lock has a larger one"""
    since_ns: int
    """when it was granted, in nanoseconds of time.monotonic_ns(); negative if
    that clock, in a container, had not started yet"""
    pid: int
    """the process; 0 if it has ended or is not visible in this container"""
    uid: int
    """its effective user"""
    comm: str
    """its command name"""
    job: str
    """what it said that it is doing; empty if it said nothing"""


class Status(NamedTuple):
    """A lock at one instant; the counters run from its creation."""

    holder: Optional[Holder]
    """None: the lock is free"""
    waiters: int
    """contenders that wait for it; a stopped process or one in a signal
    handler does not, until it goes on"""
    acquired: int
    """grants"""
    contended: int
    """acquires that found it held"""
    timed_out: int
    """acquires and reacquires that ran out of time"""
    interrupted: int
    """acquires and reacquires that a signal, a stop or the like disturbed"""
    abandoned: int
    """holders that went without a release"""
    yielded: int
    """reacquires that let somebody in"""
    wait_ns_total: int
    """nanoseconds spent waiting"""
    wait_ns_max: int
    """the longest wait"""
    hold_ns_total: int
    """nanoseconds the lock was held, by those who hold it no more"""
    hold_ns_max: int
    """the longest of these"""


def make_holder(raw: HolderStruct) -> Optional[Holder]:
    """What the kernel has said of a holder; None: the lock is free."""
    if not raw.token:
        return None
    comm = raw.comm.decode("utf-8", "backslashreplace")
    return Holder(raw.token, raw.since_ns, raw.pid, raw.uid,
                  _CONTROL.sub("?", comm),
                  raw.job.decode("utf-8", "backslashreplace"))


def encode_job(job: Optional[str]) -> bytes:
    """A job as the kernel takes it. ValueError: the kernel would not."""
    if job is None:
        return b""
    if not isinstance(job, str):
        raise TypeError("job must be a str or None, not %r" % (job,))
    if _CONTROL.search(job):
        raise ValueError("control character in job %r" % job)
    data = job.encode("utf-8")
    if len(data) >= JOB_SIZE:
        raise ValueError("job %r is %d bytes long, %d is the most" %
                         (job, len(data), JOB_SIZE - 1))
    return data


def device_path(lock: PathLike) -> str:
    """The path of a lock's device.

    What has a "/" in it is a path. All else is the name of a lock, or of its
    device: "tlock", "tlock-NAME" or just NAME.
    """
    name = os.fsdecode(lock)
    if not name:
        raise ValueError("a lock's name is empty")
    if "/" in name:
        return name
    if name == "tlock" or name.startswith("tlock-"):
        return "/dev/" + name
    return "/dev/tlock-" + name


def _open(path: str, flags: int) -> int:
    """Opens a device; what turns out to be no lock is not disturbed."""
    # To open a FIFO may block, and would let its other end go on
    if not stat.S_ISCHR(os.stat(path).st_mode):
        raise OSError(errno.ENOTTY, os.strerror(errno.ENOTTY), path)
    # A terminal can block here, and become ours
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)


class Contender(io.FileIO):
    """An open file of a lock's device, which can hold the lock once.

    Whoever drops the last reference closes the file; if it holds the lock
    then, the kernel passes it on as abandoned.
    """

    job = b""  # of the acquisition
    token = 0  # of its grant; 0: it does not hold; else, ask the kernel
    acquired = False  # has held since it was idle
    waiting = False  # a thread is in a call that takes the lock with it
    in_block = False  # belongs to a with block, which puts it back

    def __init__(self, path: str, mode: str) -> None:
        try:
            super().__init__(path, mode, opener=_open)
            # Other drivers have all sorts of errors for what they don't know
            if self.ioctl(STATUS, StatusStruct()):
                raise self.error(errno.ENOTTY)
            os.set_blocking(self.fileno(), True)
        except OSError as error:
            raise _explain(error, path) from None

    def __del__(self) -> None:
        self.close()

    def ioctl(self, request: int,
              argument: Optional[ctypes.Structure] = None) -> int:
        """Returns 0 or an errno, EINTR too. Other threads run meanwhile."""
        before = ctypes.get_errno()
        pointer = None if argument is None else ctypes.byref(argument)
        if _libc.ioctl(self.fileno(), request, pointer) < 0:
            # A signal's handler may run here, and fail with a call of its own
            number = ctypes.get_errno()
            ctypes.set_errno(before)
            return number
        return 0

    def error(self, number: int) -> OSError:
        return OSError(number, os.strerror(number), self.name)

    def look(self) -> StatusStruct:
        raw = StatusStruct()
        number = self.ioctl(STATUS, raw)
        if number:
            raise self.error(number)
        return raw

    def release(self) -> bool:
        """Releases the lock, or withdraws a request for it.

        False: this neither holds it nor has a request (any more).
        """
        if self.closed:
            return False
        number = self.ioctl(RELEASE)
        if number not in (0, errno.EPERM):
            raise self.error(number)
        self.token = 0
        return number == 0


def status(path: PathLike = DEFAULT_PATH) -> Status:
    """Looks at a lock, without disturbing those who use it.

    path is a device's path or a lock's name. Permission to read is enough.
    """
    with Contender(device_path(path), "r") as file:
        raw = file.look()
    return Status(make_holder(raw.holder),
                  *(getattr(raw, name) for name in Status._fields[1:]))


# A forked child has all open files of its parent, and with them its place in
# the queue and its lock, which would then outlive the parent. It closes them
# at once. The guard keeps a fork from coming between an open and its entry
# here.
_open_contenders: "weakref.WeakSet[Contender]" = weakref.WeakSet()
_fork_guard = threading.RLock()


def open_contender(path: str) -> Contender:
    """A new contender that no child of this process keeps."""
    with _fork_guard:
        contender = Contender(path, "r+")
        _open_contenders.add(contender)
    return contender


def _after_fork_in_child() -> None:
    for contender in list(_open_contenders):
        contender.close()
    _fork_guard.release()


os.register_at_fork(before=_fork_guard.acquire,
                    after_in_parent=_fork_guard.release,
                    after_in_child=_after_fork_in_child)


def _explain(error: OSError, path: str) -> OSError:
    """The error with the reason and the remedy for its text."""
    number = error.errno or 0
    locks = _locks()
    name = os.path.basename(path)
    # A device file may be there without the device, as in a container
    if number in (errno.ENXIO, errno.ENODEV):
        number = errno.ENOENT
    if number == errno.ENOENT and locks is None:
        text = ("the kernel module tlock is not loaded; load it with "
                "\"insmod tlock.ko\" or, where it is installed, "
                "\"modprobe tlock\"")
    elif number == errno.ENOENT:
        assert locks is not None
        if name in locks:
            text = ("the device is missing here, though the module is loaded "
                    "and has this lock; in a container, pass the device on "
                    "(docker run --device), else see that /dev is a devtmpfs")
        else:
            text = ("the device is missing: the module is loaded, but has no "
                    "such lock; it has " + ", ".join(locks))
    elif number == errno.EACCES:
        text = ("permission is lacking: user %s may not open the device%s; "
                "join a group that may write to it, and give it to that group "
                "with a udev rule: SUBSYSTEM==\"tlock\", GROUP=\"dialout\", "
                "MODE=\"0664\"" % (_user(os.geteuid()), _owner(path)))
    elif number == errno.EPERM:
        text = ("permission is lacking: the container or service may not use "
                "this device; allow it (docker run --device, or systemd's "
                "DeviceAllow=)")
    elif number == errno.ENOTTY:
        text = "this is not a tlock device"
    else:
        return error
    return OSError(number, text, path)


def _locks() -> Optional[Tuple[str, ...]]:
    """The devices the module has; None: it is not loaded"""
    try:
        # Its device files go before the rest of it
        with open("/sys/module/tlock/initstate") as file:
            if file.read() == "going\n":
                return None
    except OSError:
        pass
    try:
        # Empty only while it comes or goes: it always has the first one
        return tuple(sorted(os.listdir("/sys/class/tlock"))) or None
    except OSError:
        return None


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _owner(path: str) -> str:
    """ " (root:root, crw-r--r--)", or nothing"""
    try:
        info = os.stat(path)
    except OSError:
        return ""
    try:
        group = grp.getgrgid(info.st_gid).gr_name
    except KeyError:
        group = str(info.st_gid)
    return " (%s:%s, %s)" % (_user(info.st_uid), group,
                             stat.filemode(info.st_mode))
