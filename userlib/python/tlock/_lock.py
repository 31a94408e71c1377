# SPDX-License-Identifier: LGPL-2.1-or-later
"""The lock for an agent: TimeoutLock."""
import os
import sys
import warnings
import weakref
from contextvars import ContextVar
from errno import ECANCELED, EINTR, EINVAL, EPERM, ESTALE, ETIMEDOUT
from fcntl import ioctl
from functools import lru_cache
from threading import get_ident
from time import sleep
from typing import Any, Iterator, List, Optional, Tuple, Type

from . import _device
from ._device import (ACQUIRE, REACQUIRE, RELEASE, Contender, Holder,
                      PathLike, Terms, make_terms, nanoseconds)
from ._grant import Grant, LastGrant

# How many idle contenders an object keeps open for later acquisitions
_KEPT = 4
# The claim and the turn of an acquisition before its first call
_NOTHING: List[Contender] = []
_NOBODY: List[None] = []


_modules = sys.modules


# A timeout, a job and a lease, and the same converted for the kernel
_Arguments = Tuple[Optional[float], object, Optional[float], int, Terms]


@lru_cache(maxsize=64)
def _nanoseconds(timeout: float) -> int:
    """A timeout for the kernel; -1: for ever."""
    if timeout == -1:
        return -1
    return nanoseconds(timeout, "a timeout is a number of seconds, at least 0, "
                       "or -1 (the argument that chooses a lock is path=)")


def _caller() -> object:
    """The asyncio task that runs in this thread; without one, the thread.

    For one task, this returns the same object each time.
    """
    # An agent need not import asyncio. The function is missing while another
    # thread imports it.
    asyncio = _modules.get("asyncio")
    running = getattr(asyncio, "_get_running_loop", None)
    if asyncio is not None and running is not None and running() is not None:
        task = asyncio.current_task()
        if task is not None:
            return weakref.ref(task)
    return get_ident()


class Acquisition(Grant):
    """One acquisition of a lock: the value of a block of acquire_timeout().

    It is true while it holds the lock, as far as its calls have returned. Its
    methods concern this acquisition and no other, no matter which thread or
    task calls them.
    """

    __slots__ = ("blocker", "_lock", "_claim", "_turn", "_whose", "_outer",
                 "_open", "_lost", "_named", "_canceled")

    blocker: Optional[Holder]
    """Who held the lock when its last call gave up; None if that call did not
    fail."""

    # _lock: its TimeoutLock
    # _claim: its contender, if it has the lock or a call is about to take it.
    #     Only the thread that pops the contender ends the acquisition.
    # _turn: empty while a call takes the lock; the thread that pops it makes
    #     that call
    # _whose: the caller that made it
    # _outer: the caller's acquisition before it
    # _open: whether it belongs to a with block that has not ended
    # _lost: whether its release_and_acquire() has failed
    # _named: whether TimeoutLock.job returns the blocker's job
    # _canceled: whether cancel() ends the call that is under way
    _lock: "weakref.ref[TimeoutLock]"
    _claim: List[Contender]
    _turn: List[None]
    _whose: object
    _outer: "Optional[Acquisition]"
    _open: bool
    _lost: bool
    _named: bool
    _canceled: bool

    def __bool__(self) -> bool:
        return bool(self._claim and self._turn)

    def release(self) -> None:
        """Gives the lock to the longest waiter.

        Raises RuntimeError if this acquisition does not hold the lock, Revoked
        if the lock was taken from it.
        """
        lock = self._lock()
        number = EPERM if lock is None else lock._end(self)
        if number:
            raise self._loss(number, lock.path if lock is not None else "",
                             "release of an acquisition that does not hold the "
                             "lock")

    def release_and_acquire(self, timeout: Optional[float] = None) -> bool:
        """Lets the waiters in, and takes the lock again, for the same job.

        Like TimeoutLock.release_and_acquire().
        """
        lock = self._lock()
        if lock is None:
            raise RuntimeError("the acquisition is over")
        return lock._again(self, lock._timeout(timeout))

    def renew(self, *, lease: Optional[float] = None) -> None:
        """Renews the lease, and keeps the lock even if somebody waits.

        Like TimeoutLock.renew().
        """
        lock = self._lock()
        if lock is None:
            raise RuntimeError("the acquisition is over")
        lock._renew(self, lease)

    def __repr__(self) -> str:
        if self:
            state = "holds the lock, token %d" % self.token
        elif self.blocker is not None:
            state = "could not be acquired: " + self._say_blocker()
        else:
            state = "does not hold the lock"
        return "<tlock.Acquisition for job %r: %s>" % (
            self._say_job(), state)

    def _say_blocker(self) -> str:
        assert self.blocker is not None
        lock = self._lock()
        text = _device.describe(self.blocker, lock.path if lock else "")
        acquisition = self._outer
        while acquisition is not None:
            if (acquisition._lock is self._lock
                    and acquisition.token == self.blocker.token):
                return text + ", which is the caller itself"
            acquisition = acquisition._outer
        return text

    def _is_over(self, lock: "weakref.ref[TimeoutLock]") -> bool:
        """Whether the next acquisition, of lock, may forget this one."""
        if self._lock() is None:
            return True
        if self._claim or self._open or self._lost:
            return False
        return self.blocker is None or self._lock is lock


# The last acquisition, of any lock, of this thread or task; it may be over
_last: "ContextVar[Optional[Acquisition]]" = ContextVar("tlock", default=None)


def _begin(lock: "weakref.ref[TimeoutLock]", terms: Terms,
           outer: Optional[Acquisition]) -> Acquisition:
    """Makes the caller's last acquisition; the caller has its turn."""
    # An __init__() would cost twice as much
    self = Acquisition()
    self.token = 0
    self.blocker = None
    self._lock = lock
    self._terms = terms
    self._result = 0
    self._claim = _NOTHING
    self._turn = _NOBODY
    self._whose = _caller() if "asyncio" in _modules else get_ident()
    self._outer = outer
    self._open = False
    self._lost = False
    self._named = False
    self._canceled = False
    _last.set(self)
    return self


def _prune(acquisition: Optional[Acquisition],
           lock: "weakref.ref[TimeoutLock]") -> Optional[Acquisition]:
    """Forgets acquisitions that are over, and returns the last that is not."""
    while acquisition is not None and acquisition._is_over(lock):
        acquisition = acquisition._outer
    if acquisition is not None and acquisition._outer is not None:
        acquisition._outer = _prune(acquisition._outer, lock)
    return acquisition


class _Block:
    """A context manager: only the with statement has it, while it is entered."""

    __slots__ = "lock", "terms", "timeout_ns", "acquisition"

    # TimeoutLock.acquire_timeout() sets these: an __init__() costs twice as
    # much
    lock: "TimeoutLock"
    terms: Terms
    timeout_ns: int
    acquisition: Optional[Acquisition]

    def __enter__(self) -> Acquisition:
        if self.acquisition is not None:
            raise RuntimeError("this acquire_timeout() is in use")
        lock = self.lock
        last = _last.get()
        if last is not None:
            # In most cases it is over
            if (last._claim or last._open or last._lost
                    or last._outer is not None or last.blocker is not None):
                if self.timeout_ns < 0:
                    lock._check_own()
                last = _prune(last, lock._me)
            else:
                last = None
        try:
            self.acquisition = acquisition = _begin(lock._me, self.terms, last)
            acquisition._open = True
            lock._take(acquisition, self.timeout_ns)
            return acquisition
        except BaseException as error:
            self.__exit__(error)
            raise

    def __exit__(self, reason: object, _value: object = None,
                 _traceback: object = None) -> None:
        """Ends the block.

        reason: None if no exception ends it. Otherwise, that exception goes on,
            rather than Revoked.
        """
        acquisition = self.acquisition
        if acquisition is not None:
            # Also in the middle of another thread's release_and_acquire()
            number = self.lock._end(acquisition, True)
            acquisition._open = acquisition._lost = acquisition._named = False
            self.acquisition = None
            if number == ESTALE and reason is None:
                raise acquisition._make_revoked(self.lock.path)

    def __del__(self) -> None:
        # An exception from a signal handler, such as KeyboardInterrupt, may
        # have ended __enter__() or __exit__() at any point
        if getattr(self, "acquisition", None) is not None:
            self.__exit__(KeyboardInterrupt)


class TimeoutLock(LastGrant):
    """A lock that is shared by threads, processes, languages and containers.

    It has the names, arguments, defaults and results of the TimeoutLock of
    OCS. All TimeoutLock objects with the same path, in any process, are one and
    the same lock: an agent that uses several locks needs a path for each, or a
    list of them in the environment.
    Waiters get the lock in the order in which they came.

    One object is for all threads and asyncio tasks of a process. These rules
    say which acquisition its methods mean:

    1. An acquisition belongs to the thread or asyncio task that made it. Code
       that runs in a copy of its context acts for it, as in
       asyncio.to_thread() or Twisted's inlineCallbacks; a new task does not.
    2. release() and release_and_acquire() mean the caller's own acquisition
       that holds the lock. If none does, they mean the one that lost the lock
       in release_and_acquire(), or the one whose block the caller is in.
    3. For a caller that has none, they mean whichever acquisition of this
       object holds the lock, as in OCS.
    4. An acquire() in the caller's own block that has acquired the lock, and
       has lost or released it, acquires it for that block, whose end releases
       it. The end of a block releases nothing else.
    5. The methods of an Acquisition, which is the value of a block, concern
       only that one, wherever they are called.

    If the process dies or drops the object while it holds the lock, the
    kernel passes the lock on, and the next holder sees `abandoned`. A forked
    child does not share its parent's acquisitions; it may use the object to
    compete with the parent. The same holds for a process that unpickles an
    object, and for a copy.

    If the process hangs while it holds the lock, the kernel passes the lock on,
    too, once its lease has ended or somebody calls revoke(). The next holder
    sees `revoked`. The next call that concerns the old acquisition, or the end
    of its block, raises Revoked, which is a RuntimeError.

    KeyboardInterrupt, or any other exception from a signal handler, ends a
    wait; that call then neither holds the lock nor waits for it. If the handler
    returns, the wait goes on in its place and to the same deadline, as it does
    after a stop, a suspend or a debugger. Until then, the lock does not wait
    for this request: those behind it may get the lock first.

    default_timeout: for calls without a timeout, in seconds; see acquire()
    path: path of the lock's device, or a lock's name. None is the default lock:
        the one that TLOCK in the environment names, in the same way, or else
        the first, DEFAULT_PATH. If TLOCK lists several, as in TLOCK=psu,stage,
        the first object without a path is the first of them, the second object
        the second, and so on: a forked child goes on where its parent was, and
        a constructor that fails does not count. Otherwise, objects without a
        path are the same lock, which may not be what an agent with two
        instruments wants; so the second one causes a RuntimeWarning, once in a
        process.

    Raises OSError if the lock's device cannot be opened, TypeError or
    ValueError for a bad timeout, ValueError for an empty name, or for more
    objects without a path than TLOCK lists.
    """

    path: str
    """Path of the lock's device"""

    _granted: Optional[Acquisition] = None

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
        self._known: _Arguments = (None, None, None, self._default_ns,
                                   make_terms(None, None))
        self._me = weakref.ref(self)
        # The blocks of "with lock:"
        self._blocks: List[_Block] = []
        # Nothing guards this: each step is one atomic operation
        self._idle: List[Contender] = [contender]
        self._without_path = path is None
        if path is None:
            _warn_of_two(self.path, 3)
        _locks.add(self)

    def __del__(self) -> None:
        # The kernel passes the lock on
        if self._granted is not None:
            for contender in self._granted._claim:
                contender.close()

    def acquire(self, timeout: Optional[float] = None,
                job: object = None, *,
                blocking: Optional[bool] = None,
                lease: Optional[float] = None) -> bool:
        """Takes the lock, waiting for it if necessary.

        timeout: in seconds: 0 tries, more waits that long, -1 waits for ever,
            None means the default_timeout. More than 292 years means 292 years.
        job: what the lock is taken for, for others to see. Never an error: any
            object is converted to a string, control characters become "?", and
            a job of more than 63 bytes of UTF-8 is cut off, with a "\u2026".
            None is an empty job.
        blocking: as for a threading.Lock, instead of a timeout: False tries,
            True waits for ever. A timeout that is True or False means the same.
        lease: in seconds from the grant, or from the last release_and_acquire()
            or renew(). After that, the holder loses the lock as soon as
            somebody else wants it. More than 0; more than 292 years means
            never. None is no lease.

        Returns True if the lock is held; `abandoned`, `revoked` and `token`
        describe the grant. Returns False if somebody else has it; see `job` and
        `blocker`.

        Raises ValueError or TypeError for a bad timeout or lease, RuntimeError
        if this thread or task holds the lock itself and would wait for ever,
        and Revoked if the lock was granted, and taken away before this call
        could return.
        """
        if blocking is not None:
            if timeout is not None:
                raise ValueError("mutually exclusive: timeout and blocking")
            timeout = -1 if blocking else 0
        known = self._known
        if (timeout is not known[0] or job is not known[1]
                or lease is not known[2]):
            if isinstance(timeout, bool):
                timeout = -1 if timeout else 0
            known = self._convert(timeout, job, lease)
        ns = known[3]
        last = _last.get()
        if last is not None:
            # In most cases it is over
            if (last._claim or last._open or last._lost
                    or last._outer is not None or last.blocker is not None):
                if ns < 0:
                    self._check_own()
                block = self._own_block()
                if block is not None:
                    block._terms = known[4]
                    return self._take(block, ns)
                last = _prune(last, self._me)
            else:
                last = None
        return self._take(_begin(self._me, known[4], last), ns)

    def release(self) -> None:
        """Gives the lock to the longest waiter.

        Raises RuntimeError if the acquisition that this means (see the class)
        does not hold it, Revoked if the lock was taken from it, and no call has
        reported it yet. This includes a caller that has lost the lock in
        release_and_acquire(): then another contender has it, and keeps it.
        """
        acquisition = _last.get()
        if (acquisition is None or acquisition._lock is not self._me
                or not acquisition._claim or not acquisition._turn):
            acquisition = self._find()
        if acquisition is None:
            raise RuntimeError("release of a lock that is not held")
        number = self._end(acquisition)
        if number:
            if not acquisition._open:
                # This exception reports the loss
                acquisition._lost = False
            raise acquisition._loss(number, self.path,
                                    "release of a lock that is not held")

    def release_and_acquire(self, timeout: Optional[float] = None) -> bool:
        """Lets the waiters in, and takes the lock again, for the same job.

        In one step: the caller gets the lock after all who wait now, and before
        all who come later. If nobody waits, this costs almost nothing: call it
        as often as you like, such as once per sample. Renews the lease.

        timeout: as for acquire()

        Returns True if the lock is held. Returns False if it is not, see `job`
        and `blocker`; the caller may then call this again, which waits for the
        lock once more, and takes it from nobody. An exception from a signal
        handler leaves the lock held or not, depending on when it came; a with
        block takes care of both.

        Raises RuntimeError if the acquisition that this means (see the class)
        did not hold the lock, or another thread released it at the same moment.
        Raises ValueError or TypeError for a bad timeout. Neither changes
        anything. Raises Revoked if the lock was taken away; after that, too, the
        caller may call this again. The acquisition does not hold the lock during
        a wait: release() in another thread raises RuntimeError.
        """
        ns = self._default_ns if timeout is None else _nanoseconds(timeout)
        acquisition = _last.get()
        # Only one acquisition of a lock can hold it
        if (acquisition is None or acquisition._lock is not self._me
                or not acquisition._claim or not acquisition._turn):
            acquisition = self._find()
        if acquisition is None:
            raise RuntimeError("release_and_acquire of a lock that is not held")
        return self._again(acquisition, ns)

    def renew(self, *, lease: Optional[float] = None) -> None:
        """Renews the lease, and keeps the lock even if somebody waits.

        For a step that must not be interrupted; otherwise
        release_and_acquire() is fairer. Without a lease, this only checks that
        the lock is still held. Does not block.

        lease: from now on, as for acquire(); None keeps the present lease

        Raises RuntimeError if the acquisition that this means (see release())
        does not hold the lock, or another thread is in its
        release_and_acquire(), Revoked if the lock was taken away. Raises
        ValueError or TypeError for a bad lease, and then changes nothing.
        """
        acquisition = self._find()
        if acquisition is None:
            raise RuntimeError("renew of a lock that is not held")
        self._renew(acquisition, lease)

    def cancel(self) -> bool:
        """Ends the calls of other threads that wait for the lock.

        acquire(), release_and_acquire() and the beginning of a block then raise
        an OSError with errno ECANCELED, and their thread does not hold the
        lock. This concerns calls of this object in this process that are under
        way. A thread that is about to begin one waits nevertheless: to end a
        thread, set a flag that it looks at before each call, and repeat this
        until it has ended. A signal handler that is to end the call that it
        interrupts raises an exception instead.

        Returns whether there was such a call.
        """
        me = _caller()
        ended = False
        for contender in _device.contenders():
            call = contender.caller
            if (call is None or call._lock is not self._me or call._turn
                    or call._whose == me):
                continue
            # The call first takes its turn back, and then looks at this. So if
            # it has not taken its turn back by now, it will see this.
            call._canceled = True
            while call._canceled and not call._turn:
                if contender.release() == 0:
                    ended = True
                    break
                # It is not in the kernel yet, or not any more
                sleep(0)
            else:
                # It may have returned without seeing this
                call._canceled = False
        return ended

    def acquire_timeout(self, timeout: Optional[float] = None,
                        job: object = "unnamed", *,
                        lease: Optional[float] = None) -> "_Block":
        """A context manager for one with block, which holds the lock.

        timeout, job, lease: as for acquire()

        The value of the block is an Acquisition, which is true if the lock was
        acquired. Leaving the block releases the lock if that acquisition still
        holds it, and nothing else.

        The beginning of the block raises the errors of acquire(). Its end
        raises Revoked if the lock was taken away and no call in the block has
        reported it, unless another exception ends the block.
        """
        known = self._known
        if (timeout is not known[0] or job is not known[1]
                or lease is not known[2]):
            known = self._convert(timeout, job, lease)
        block = _Block()
        block.lock = self
        block.timeout_ns = known[3]
        block.terms = known[4]
        block.acquisition = None
        return block

    def __enter__(self) -> Acquisition:
        """Acquires the lock within the default_timeout, or raises TimeoutError.

        The error names the holder.
        """
        block = self.acquire_timeout()
        acquisition = block.__enter__()
        if acquisition:
            self._blocks.append(block)
            return acquisition
        block.__exit__(None)
        raise TimeoutError(
            ETIMEDOUT,
            "the lock could not be acquired within the default_timeout of %r "
            "seconds: it is %s" % (self._default_timeout,
                                   acquisition._say_blocker()),
            self.path)

    def __exit__(self, reason: object, _value: object,
                 _traceback: object) -> None:
        for acquisition in self._own():
            for block in self._blocks:
                if block.acquisition is acquisition:
                    self._blocks.remove(block)
                    block.__exit__(reason)
                    return
        self.release()

    def locked(self) -> bool:
        """Whether anybody holds the lock, in any process."""
        return self.holder is not None

    @property
    def job(self) -> Optional[str]:
        """The current holder's job, in any process; None: the lock is free.

        But for a thread or task whose call has just failed, it is the job that
        made the call fail, even if the lock has changed hands since. In a with
        block this lasts to the block's end, elsewhere for one look, but never
        longer than to the next call.
        """
        acquisition = next(self._own(), None)
        if (acquisition is not None and acquisition._named
                and acquisition.blocker is not None):
            acquisition._named = acquisition._open
            return acquisition.blocker.job
        holder = self.holder
        return None if holder is None else holder.job

    @property
    def holder(self) -> Optional[Holder]:
        """The current holder, in any process; None: the lock is free."""
        return _device.status(self.path).holder

    @property
    def blocker(self) -> Optional[Holder]:
        """The holder that made the caller's last acquire() or
        release_and_acquire() fail, as it was when the call gave up; None if
        that call did not fail.
        """
        acquisition = next(self._own(), None)
        return None if acquisition is None else acquisition.blocker

    def __repr__(self) -> str:
        try:
            holder = self.holder
            state = ("free" if holder is None else
                     _device.describe(holder, self.path))
        except OSError as error:
            state = error.strerror or str(error)
        return "<tlock.TimeoutLock %s: %s>" % (self.path, state)

    def __reduce__(self) -> Tuple[object, ...]:
        # A copy, or an object that another process unpickles, is the same lock
        return _make, (type(self), self._default_timeout, self.path)

    def _timeout(self, timeout: Optional[float]) -> int:
        return self._default_ns if timeout is None else _nanoseconds(timeout)

    def _convert(self, timeout: Optional[float], job: object,
                 lease: Optional[float]) -> _Arguments:
        """The arguments, and the same converted for the kernel"""
        known = (timeout, job, lease, self._timeout(timeout),
                 make_terms(job, lease))
        # Most agents pass the same arguments each time. Mutable objects are not
        # remembered.
        if (type(job) is str and type(timeout) in (int, float, type(None))
                and type(lease) in (int, float, type(None))):
            self._known = known
        return known

    def _own(self) -> Iterator[Acquisition]:
        """The caller's own acquisitions that it remembers, the last first"""
        caller = _caller()
        acquisition = _last.get()
        while acquisition is not None:
            if acquisition._lock is self._me and (
                    acquisition._whose is caller
                    # Outside of tasks, such as in asyncio.to_thread(), a copy
                    # of a context acts for the original's caller
                    or isinstance(caller, int)):
                yield acquisition
            acquisition = acquisition._outer

    def _check_own(self) -> None:
        """Raises RuntimeError if the caller would wait for itself for ever."""
        for acquisition in self._own():
            if acquisition and acquisition._whose == _caller() and all(
                    contender.fd >= 0 for contender in acquisition._claim):
                raise RuntimeError(
                    "the caller holds this lock itself, for job %r, and would "
                    "wait for ever" % acquisition._say_job())

    def _own_block(self) -> Optional[Acquisition]:
        """The acquisition of the caller's own block that an acquire() is for.

        Its turn is taken for the caller.
        """
        for acquisition in self._own():
            if (acquisition._open and acquisition.token
                    and not acquisition._claim):
                try:
                    acquisition._turn.pop()
                    return acquisition
                except IndexError:
                    # It is in a call that a signal handler has interrupted
                    pass
        return None

    def _find(self) -> Optional[Acquisition]:
        """The acquisition that release() and release_and_acquire() mean"""
        found = None
        for acquisition in self._own():
            acquisition._named = False
            if acquisition._claim:
                return acquisition
            if found is None and (acquisition._lost or (
                    acquisition._open and acquisition.token)):
                found = acquisition
        if (found is None and self._granted is not None
                and self._granted._claim):
            return self._granted
        return found

    def _again(self, acquisition: Acquisition, ns: int) -> bool:
        """The release_and_acquire() of an acquisition"""
        try:
            contender: Optional[Contender] = acquisition._claim[0]
        except IndexError:
            if not acquisition._lost:
                raise RuntimeError("release_and_acquire of a lock that is not "
                                   "held") from None
            contender = None
        try:
            acquisition._turn.pop()
        except IndexError:
            raise RuntimeError("a release_and_acquire is under way") from None
        return self._take(acquisition, ns, contender)

    def _renew(self, acquisition: Acquisition, lease: Optional[float]) -> None:
        """The renew() of an acquisition"""
        terms = acquisition._terms.with_lease(lease)
        try:
            contender = acquisition._claim[0]
        except IndexError:
            raise RuntimeError("renew of a lock that is not held") from None
        try:
            acquisition._turn.pop()
        except IndexError:
            raise RuntimeError("a release_and_acquire is under way") from None
        try:
            number = contender.renew(terms)
        finally:
            acquisition._turn = [None]
        if number == 0:
            acquisition._terms = terms
            return
        # An older module: nothing has changed
        if number == EINVAL:
            raise contender.error(number)
        if number != ESTALE:
            raise RuntimeError("another thread has released the lock")
        acquisition._claim.clear()
        acquisition._lost = True
        raise acquisition._make_revoked(self.path)

    def _take(self, acquisition: Acquisition, ns: int,
              contender: Optional[Contender] = None) -> bool:
        """Takes the lock for an acquisition whose turn the caller has.

        contender: the one that holds the lock now, for a reacquire
        """
        request = ACQUIRE if contender is None else REACQUIRE
        claim = acquisition._claim
        number: Optional[int] = ECANCELED
        try:
            if contender is None:
                try:
                    contender = self._idle.pop()
                except IndexError:
                    contender = _device.open_contender(self.path)
                acquisition._claim = claim = [contender]
                if contender.terms is not acquisition._terms:
                    contender.set_terms(acquisition._terms)
            argument = contender.argument
            argument.timeout_ns = ns
            contender.caller = acquisition
            if claim:
                try:
                    number = ioctl(contender.fd, request, argument)
                except OSError as error:
                    number = error.errno
                    if number == EINTR:
                        number = contender.go_on(request)
            if number == 0 and claim:
                acquisition.token = argument.token
                acquisition._result = argument.result
                if acquisition.blocker is not None or acquisition._lost:
                    acquisition.blocker = None
                    acquisition._lost = acquisition._named = False
                self._granted = acquisition
                # In this order: see cancel()
                acquisition._turn = [None]
                contender.caller = None
                if not acquisition._canceled:
                    return True
        except BaseException:
            try:
                # It may have the lock, or a request
                claim.clear()
                if contender is not None:
                    contender.caller = None
                    contender.release()
                acquisition._lost |= request == REACQUIRE
            finally:
                acquisition._turn = [None]
                acquisition._canceled = False
            raise

        try:
            # A thread that ended it in the meantime has left the contender,
            # which closes when this drops it
            ended = not claim
            claim.clear()
            acquisition._turn = [None]
            contender.caller = None
            if number == ESTALE:
                acquisition._canceled = False
                acquisition._lost |= request == REACQUIRE
                raise acquisition._make_revoked(self.path)
            if acquisition._canceled:
                acquisition._canceled = False
                contender.release()
                acquisition._lost |= request == REACQUIRE
                raise OSError(ECANCELED, "canceled by cancel()", self.path)
            if number == ETIMEDOUT and not ended:
                acquisition.blocker = _device.make_holder(argument.holder,
                                                          contender.fd)
                acquisition._named = True
                acquisition._lost |= request == REACQUIRE
                if len(self._idle) < _KEPT:
                    self._idle.append(contender)
                return False
            if ended or request == REACQUIRE or number == ECANCELED:
                raise RuntimeError("another thread has released the lock")
            raise contender.error(number or 0)
        finally:
            acquisition._turn = [None]

    def _end(self, acquisition: Acquisition, anyway: bool = False) -> int:
        """Releases the lock.

        anyway: also end an acquisition that waits in release_and_acquire()

        Returns 0, EPERM if the acquisition did not hold the lock, or ESTALE if
        it was revoked.
        """
        claim = acquisition._claim
        if not claim:
            return EPERM
        # During a call that takes the lock, it may hold the lock already, or
        # still
        if not acquisition._turn and not anyway and not any(
                # The token that the kernel wrote last: an exception from a
                # signal handler may have come before the acquisition stored it
                contender.look().holder.token == contender.argument.token
                for contender in claim):
            return EPERM
        contender = None
        try:
            contender = claim[0]
            claim.pop()
            ioctl(contender.fd, RELEASE)
        except (IndexError, PermissionError, ValueError):
            # Another thread ended it, or this forked child has closed it
            return EPERM
        except OSError as error:
            if error.errno != ESTALE:
                raise
            return ESTALE
        except BaseException:
            if contender is not None:
                contender.release()
            raise
        # A contender that a call may still use is closed rather than kept
        if acquisition._turn:
            idle = self._idle
            if len(idle) < _KEPT:
                idle.append(contender)
        return 0


def _make(cls: Type[TimeoutLock], default_timeout: float,
          path: str) -> TimeoutLock:
    """Makes a TimeoutLock of a pickled one"""
    lock = cls.__new__(cls)
    TimeoutLock.__init__(lock, default_timeout, path=path)
    return lock


_locks: "weakref.WeakSet[Any]" = weakref.WeakSet()
_warned = False


def _warn_of_two(path: str, stacklevel: int) -> None:
    global _warned
    if not _warned and any(lock._without_path and lock.path == path
                           for lock in _locks):
        _warned = True
        warnings.warn("this is the same lock as the other TimeoutLock() of this "
                      "process: choose one with path=, as in "
                      "TimeoutLock(path=\"tlock\"), or name one for each in the "
                      "environment, as in TLOCK=psu,stage", RuntimeWarning,
                      stacklevel)


def _after_fork_in_child() -> None:
    for lock in _locks:
        # They are closed by now
        lock._idle.clear()
        lock._without_path = False


os.register_at_fork(after_in_child=_after_fork_in_child)
