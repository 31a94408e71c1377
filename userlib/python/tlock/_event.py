# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the locks for event loops share: tlock.aio and tlock.twisted.

No thread waits: the kernel keeps a request's place in the queue and its
deadline, and makes its file writable once the request is decided. A loop that
watches the file then fetches the outcome with the request's ticket. So an event
that is meant for an earlier request of the same file decides nothing.
"""
from errno import ECANCELED, EINPROGRESS, ETIMEDOUT
from fcntl import ioctl
from typing import Callable, List, Optional, Tuple, Type

from . import _device
from ._device import (ABANDONED, ACQUIRE, ASYNC, REACQUIRE, Contender, Holder,
                      PathLike, Status)
from ._lock import _KEPT, _locks, _nanoseconds, _warn_of_two


def released() -> RuntimeError:
    return RuntimeError("another task or thread has released the lock")


class Watch:
    """Those who wait until somebody wants the lock of one acquisition"""

    def end(self) -> bool:
        """Tells them that the acquisition is over.

        Returns whether the file is no longer watched; otherwise another thread
        stops that soon.
        """
        raise NotImplementedError


class Acquisition:
    """One acquisition of a lock; see aio.Acquisition and twisted.Acquisition."""

    __slots__ = ("token", "abandoned", "blocker", "_lock", "_job", "_claim",
                 "_pending", "_open", "_lost", "_named", "_watch")

    token: int
    """Number of its last grant, 0 before the first. Each grant of a lock, to
    any contender, has a larger number, so that a device or a log can recognize
    a late message from an earlier holder."""

    abandoned: bool
    """Whether its last grant came from a holder that ended without a release:
    the instrument may be in the middle of a command. False after a
    release_and_acquire() that let nobody in."""

    blocker: Optional[Holder]
    """Who held the lock when its last call gave up; None if that call did not
    fail."""

    # _lock: its lock
    # _job: its job, converted for the kernel
    # _claim: its contender, if it has the lock or a request. Only the thread
    #     that pops the contender ends the acquisition.
    # _pending: whether a call asks for the lock
    # _open: whether it belongs to a block that has not ended
    # _lost: whether it has lost the lock in release_and_acquire()
    # _named: whether TimeoutLock.job returns the blocker's job
    # _watch: the calls of wanted() that wait
    _lock: "Lock"
    _job: bytes
    _claim: List[Contender]
    _pending: bool
    _open: bool
    _lost: bool
    _named: bool
    _watch: Optional[Watch]

    def __init__(self, lock: "Lock", job: bytes, is_open: bool) -> None:
        self.token = 0
        self.abandoned = False
        self.blocker = None
        self._lock = lock
        self._job = job
        self._claim = []
        self._pending = False
        self._open = is_open
        self._lost = False
        self._named = False
        self._watch = None

    def __bool__(self) -> bool:
        # A forked child has closed the files of its parent
        return (not self._pending and
                any(contender.fd >= 0 for contender in self._claim))

    def release(self) -> None:
        """Gives the lock to the longest waiter. Does not block.

        Raises RuntimeError if this acquisition does not hold the lock.
        """
        if not self._end():
            raise RuntimeError("release of an acquisition that does not hold "
                               "the lock")

    def __repr__(self) -> str:
        if self:
            state = "holds the lock, token %d" % self.token
        elif self._claim and self._pending:
            state = "waits for the lock"
        elif self.blocker is not None:
            state = ("could not be acquired: " +
                     _device.describe(self.blocker))
        else:
            state = "does not hold the lock"
        return "<%s.Acquisition for job %r: %s>" % (
            type(self).__module__, self._say_job(), state)

    def _say_job(self) -> str:
        return self._job.decode("utf-8", "replace")

    def _check_pending(self) -> None:
        """Raises RuntimeError if another call asks for the lock."""
        if self._pending:
            raise RuntimeError("a call of this acquisition is under way")

    def _start(self, ns: int) -> Optional[bool]:
        """Asks for the lock. If it is held, lets the waiters in first.

        Returns whether the lock is held; None: the request waits. Unless this
        returns None, the request has ended.
        """
        # Before a look at the claim: see _end()
        self._pending = True
        try:
            request = ACQUIRE
            if self._claim:
                request = REACQUIRE
                contender = self._claim[0]
                if contender.fd < 0:
                    raise IndexError
                self._lost = True
            else:
                contender = self._lock._get()
                self._claim = [contender]
            if contender.job is not self._job:
                contender.argument.job = contender.job = self._job
            contender.argument.timeout_ns = ns
            contender.argument.flags = ASYNC
            contender.argument.ticket = 0
            return self._call(contender, request)
        except IndexError:
            # Another thread has just ended it, or this is a forked child
            self._pending = False
            raise RuntimeError("release_and_acquire of a lock that is not "
                               "held") from None
        except BaseException:
            self._withdraw()
            raise

    def _restart(self, ns: int) -> Optional[bool]:
        """Begins a release_and_acquire(). Returns as _start() does."""
        if not self._claim and not self._lost:
            raise RuntimeError("release_and_acquire of a lock that is not held")
        return self._start(ns)

    def _fetch(self, contender: Contender) -> Optional[bool]:
        """Fetches the outcome of the request. Returns as _start() does.

        The argument contains the ticket.
        """
        try:
            return self._call(contender, ACQUIRE)
        except BaseException:
            self._withdraw()
            raise

    def _call(self, contender: Contender, request: int) -> Optional[bool]:
        argument = contender.argument
        number: Optional[int] = 0
        try:
            ioctl(contender.fd, request, argument)
        except OSError as error:
            number = error.errno
            if number == EINPROGRESS:
                return None
        claim = self._claim
        if number == 0 and claim:
            self.token = argument.token
            self.abandoned = argument.result & ABANDONED != 0
            self.blocker = None
            self._lost = self._named = False
            self._lock._granted = self
            self._pending = False
            return True
        if not claim or number == ECANCELED:
            raise released()
        if number != ETIMEDOUT:
            raise contender.error(number or 0)
        self.blocker = _device.make_holder(argument.holder)
        self._named = True
        self._lock._failed = self
        self._withdraw()
        return False

    def _withdraw(self) -> None:
        """Ends a call that asks for the lock. Afterwards the acquisition has
        neither the lock nor a request."""
        self._pending = False
        self._end(True)

    def _end(self, anyway: bool = False) -> bool:
        """Releases the lock, and returns whether the acquisition held it.

        anyway: also withdraw its request
        """
        # During a call that asks for the lock, it may hold it already, or still
        if self._pending and not anyway:
            return False
        contender = None
        # A later call has another list: its contender is not this one
        claim = self._claim
        try:
            contender = claim[0]
            claim.pop()
            ended = contender.release()
        except IndexError:
            return False
        except BaseException:
            if contender is not None:
                contender.release()
            raise
        watch = self._watch
        # A file that is still watched is closed rather than kept
        if (watch is None or watch.end()) and not self._pending:
            self._lock._put(contender)
        return ended

    def _leave(self) -> None:
        """Ends the block."""
        self._end(True)
        self._open = self._lost = self._named = False

    def _is_wanted(self) -> bool:
        """Whether it holds the lock, and somebody waits.

        Raises RuntimeError if it does not hold the lock.
        """
        try:
            status = self._claim[0].look()
        except (IndexError, ValueError):
            raise RuntimeError("the lock is not held") from None
        return bool(status.waiters and status.holder.token == self.token)


class Lock:
    """What is the same in aio.TimeoutLock and twisted.TimeoutLock"""

    path: str
    """Path of the lock's device"""

    # The constructor of the class that is not a user's
    _construct: Callable[..., None]
    # The acquisition that was granted last; it may be over
    _granted: Optional[Acquisition] = None
    # The acquisition whose call failed last
    _failed: Optional[Acquisition] = None

    def __init__(self, default_timeout: Optional[float] = 0, *,
                 path: Optional[PathLike] = None) -> None:
        if default_timeout is None:
            default_timeout = 0
        self._default_ns = _nanoseconds(default_timeout)
        self._default_timeout = default_timeout
        if path is None:
            contender = _device.open_default()
        else:
            contender = _device.open_contender(_device.device_path(path))
        self.path = contender.path
        # Nothing guards this: each step is one atomic operation
        self._idle: List[Contender] = [contender]
        self._without_path = path is None
        if path is None:
            # For the caller of the subclass's constructor
            _warn_of_two(self.path, 4)
        _locks.add(self)

    def status(self) -> Status:
        """Looks at the lock, without disturbing its contenders."""
        return _device.status(self.path)

    def locked(self) -> bool:
        """Whether anybody holds the lock, in any process."""
        return self.holder is not None

    @property
    def holder(self) -> Optional[Holder]:
        """The current holder, in any process; None: the lock is free."""
        return self.status().holder

    @property
    def abandoned(self) -> bool:
        """Whether this object last acquired the lock from a holder that ended
        without a release: the instrument may be in the middle of a command. A
        release_and_acquire() that let nobody in makes it False."""
        return self._granted is not None and self._granted.abandoned

    @property
    def token(self) -> int:
        """Number of the last grant to this object, 0 before the first.

        Each grant of a lock, to any contender, has a larger number, so that a
        device or a log can recognize a late message from an earlier holder.
        """
        return 0 if self._granted is None else self._granted.token

    def __repr__(self) -> str:
        try:
            holder = self.holder
            state = ("free" if holder is None else
                     "held by " + _device.describe(holder))
        except OSError as error:
            state = error.strerror or str(error)
        return "<%s.TimeoutLock %s: %s>" % (type(self).__module__, self.path,
                                            state)

    def __reduce__(self) -> Tuple[object, ...]:
        # A copy, or an object that another process unpickles, is the same lock
        return _make, (type(self), self._default_timeout, self.path)

    def _job_of(self, refused: Optional[Acquisition]) -> Optional[str]:
        """The job that made a call fail, if nobody has looked at it yet, or
        else the current holder's"""
        if (refused is not None and refused._named
                and refused.blocker is not None):
            refused._named = refused._open
            return refused.blocker.job
        holder = self.holder
        return None if holder is None else holder.job

    def _acquire_timeout(self, timeout: Optional[float],
                         blocking: Optional[bool]) -> int:
        """The timeout of acquire()"""
        if blocking is not None:
            if timeout is not None:
                raise ValueError("mutually exclusive: timeout and blocking")
            timeout = bool(blocking)
        if isinstance(timeout, bool):
            timeout = -1 if timeout else 0
        return self._timeout(timeout)

    def _timeout(self, timeout: Optional[float]) -> int:
        return self._default_ns if timeout is None else _nanoseconds(timeout)

    def _get(self) -> Contender:
        """An idle contender, which is not watched"""
        try:
            return self._idle.pop()
        except IndexError:
            return _device.open_contender(self.path)

    def _put(self, contender: Contender) -> None:
        # A forked child has closed its parent's
        if contender.fd >= 0 and len(self._idle) < _KEPT:
            self._idle.append(contender)


def _make(cls: Type[Lock], default_timeout: float, path: str) -> Lock:
    """Makes a lock of a pickled one."""
    lock = cls.__new__(cls)
    # A subclass may have a constructor with other arguments
    cls._construct(lock, default_timeout, path=path)
    return lock
