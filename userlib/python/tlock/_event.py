# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the locks for event loops share: tlock.aio and tlock.twisted.

No thread waits: the kernel keeps a request's place in the queue and its
deadline, and makes its file writable once the request is decided. A loop that
watches the file then fetches the outcome with the request's ticket. So an event
that is meant for an earlier request of the same file decides nothing.
"""
from errno import (ECANCELED, EINPROGRESS, EINVAL, EPERM, ESTALE,
                   ETIMEDOUT)
from fcntl import ioctl
from typing import Callable, List, Optional, Tuple, Type

from . import _device
from ._device import (ACQUIRE, ASYNC, REACQUIRE, Contender, Holder, PathLike,
                      Revoked, Status, Terms)
from ._grant import Grant, LastGrant
from ._lock import _KEPT, _locks, _nanoseconds, _warn_of_two


def released() -> RuntimeError:
    return RuntimeError("another task or thread has released the lock")


class Watch:
    """Those who wait until somebody wants the lock of one acquisition"""

    def end(self, error: RuntimeError) -> bool:
        """Tells them, by this error, that the acquisition is over.

        Returns whether the file is no longer watched; otherwise another thread
        stops that soon.
        """
        raise NotImplementedError


class Acquisition(Grant):
    """One acquisition of a lock; see aio.Acquisition and twisted.Acquisition."""

    __slots__ = ("blocker", "_lock", "_claim", "_pending", "_open", "_lost",
                 "_named", "_watch")

    blocker: Optional[Holder]
    """Who held the lock when its last call gave up; None if that call did not
    fail."""

    # _lock: its lock
    # _claim: its contender, if it has the lock or a request. Only the thread
    #     that pops the contender ends the acquisition.
    # _pending: whether a call asks for the lock
    # _open: whether it belongs to a block that has not ended
    # _lost: whether it has lost the lock in release_and_acquire()
    # _named: whether TimeoutLock.job returns the blocker's job
    # _watch: the calls of wanted() that wait
    _lock: "Lock"
    _claim: List[Contender]
    _pending: bool
    _open: bool
    _lost: bool
    _named: bool
    _watch: Optional[Watch]

    def __init__(self, lock: "Lock", terms: Terms, is_open: bool) -> None:
        self.token = 0
        self.blocker = None
        self._lock = lock
        self._terms = terms
        self._result = 0
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

        Raises RuntimeError if this acquisition does not hold the lock, Revoked
        if the lock was taken from it, and no call has reported it yet.
        """
        number = self._end()
        if number:
            raise self._loss(number, self._lock.path,
                             "release of an acquisition that does not hold the "
                             "lock")

    def renew(self, *, lease: Optional[float] = None) -> None:
        """Renews the lease, and keeps the lock even if somebody waits.

        Like TimeoutLock.renew().
        """
        terms = self._terms.with_lease(lease)
        self._check_pending()
        try:
            contender = self._claim[0]
            number = contender.renew(terms)
        except IndexError:
            number = EPERM
        # An older module: nothing has changed
        if number == EINVAL:
            raise contender.error(number)
        if number:
            # It has neither the lock nor a request any more
            self._lost |= number == ESTALE
            error = self._loss(number, self._lock.path,
                               "renew of a lock that is not held")
            self._withdraw(error)
            raise error
        self._terms = terms

    def __repr__(self) -> str:
        if self:
            state = "holds the lock, token %d" % self.token
        elif self._claim and self._pending:
            state = "waits for the lock"
        elif self.blocker is not None:
            state = ("could not be acquired: " +
                     _device.describe(self.blocker, self._lock.path))
        else:
            state = "does not hold the lock"
        return "<%s.Acquisition for job %r: %s>" % (
            type(self).__module__, self._say_job(), state)

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
            if contender.terms is not self._terms:
                contender.set_terms(self._terms)
            contender.argument.timeout_ns = ns
            contender.argument.flags = ASYNC
            contender.argument.ticket = 0
            return self._call(contender, request)
        except IndexError:
            # Another thread has just ended it, or this is a forked child
            self._pending = False
            raise RuntimeError("release_and_acquire of a lock that is not "
                               "held") from None
        except BaseException as error:
            self._withdraw(error)
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
        except BaseException as error:
            self._withdraw(error)
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
            self._result = argument.result
            self.blocker = None
            self._lost = self._named = False
            self._lock._granted = self
            self._pending = False
            return True
        if number == ESTALE:
            raise self._make_revoked(self._lock.path)
        if not claim or number == ECANCELED:
            raise released()
        if number != ETIMEDOUT:
            raise contender.error(number or 0)
        self.blocker = _device.make_holder(argument.holder, contender.fd)
        self._named = True
        self._lock._failed = self
        self._withdraw()
        return False

    def _withdraw(self, error: Optional[BaseException] = None) -> int:
        """Ends a call that asks for the lock. Afterwards the acquisition has
        neither the lock nor a request.

        error: why; those who watch the acquisition get it if it is Revoked

        Returns as _end() does.
        """
        self._pending = False
        return self._end(True, error)

    def _end(self, anyway: bool = False,
             error: Optional[BaseException] = None) -> int:
        """Releases the lock.

        anyway: also withdraw its request
        error: as for _withdraw()

        Returns 0, EPERM if the acquisition did not hold the lock, or ESTALE if
        it was revoked.
        """
        # During a call that asks for the lock, it may hold it already, or still
        if self._pending and not anyway:
            return EPERM
        contender = None
        # A later call has another list: its contender is not this one
        claim = self._claim
        try:
            contender = claim[0]
            claim.pop()
            number = contender.release()
        except IndexError:
            return EPERM
        except BaseException:
            if contender is not None:
                contender.release()
            raise
        watch = self._watch
        if watch is not None:
            if not isinstance(error, Revoked):
                error = self._loss(number, self._lock.path,
                                   "the lock is not held any more")
            # A file that is still watched is closed rather than kept
            if not watch.end(error):
                return number
        if not self._pending:
            self._lock._put(contender)
        return number

    def _leave(self) -> int:
        """Ends the block. Returns as _end() does."""
        number = self._end(True)
        self._open = self._lost = self._named = False
        return number

    def _is_wanted(self) -> bool:
        """Whether it holds the lock, and somebody waits.

        Raises RuntimeError if it does not hold the lock: Revoked if it was
        revoked, and then the acquisition is over.
        """
        try:
            status = self._claim[0].look()
        except (IndexError, ValueError):
            raise RuntimeError("the lock is not held") from None
        if status.holder.token == self.token:
            return bool(status.waiters)
        if not self._pending:
            number = self._end()
            self._lost |= number == ESTALE
            raise self._loss(number, self._lock.path, "the lock is not held")
        return False


class Lock(LastGrant):
    """What is the same in aio.TimeoutLock and twisted.TimeoutLock"""

    path: str
    """Path of the lock's device"""

    # The constructor of the class that is not a user's
    _construct: Callable[..., None]
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

    def __repr__(self) -> str:
        try:
            holder = self.holder
            state = ("free" if holder is None else
                     _device.describe(holder, self.path))
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
