# SPDX-License-Identifier: LGPL-2.1-or-later
"""The lock for an agent that is a Twisted program, on any reactor.

    from tlock.twisted import TimeoutLock

    @inlineCallbacks
    def acquisition(lock):
        with (yield lock.acquire_timeout(timeout=3, job="acq")) as acquired:
            if acquired:
                ...
                yield lock.release_and_acquire(timeout=10)

As tlock.TimeoutLock, but what may wait returns a Deferred, and cancelling that
ends the wait. In a coroutine it is "with await lock.acquire_timeout(...)". On
asyncioreactor, tlock.aio works, too.
"""
from errno import ESTALE
from typing import Any, Callable, List, Optional

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReadDescriptor, IWriteDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from . import _event
from ._device import Contender, Holder, PathLike, Revoked, make_terms

__all__ = ["Acquisition", "TimeoutLock"]


def _reactor() -> Any:
    """The program's reactor. An import of it at the top of this file would
    install one before the program can choose."""
    from twisted.internet import reactor
    return reactor


@implementer(IReadDescriptor, IWriteDescriptor)
class _File(_event.Watch):
    """The file of an acquisition, for the reactor.

    Reactors know only one object a file: this one is for the acquisition's
    request, and for those who wait until somebody wants the lock. A late event
    is harmless, as the kernel's answer decides and not the event.
    """

    def __init__(self, acquisition: "Acquisition",
                 contender: Contender) -> None:
        self.acquisition = acquisition
        self.contender = contender
        self.decision: "Optional[Deferred[bool]]" = None
        self.watchers: "List[Deferred[None]]" = []

    def fileno(self) -> int:
        return self.contender.fd

    def logPrefix(self) -> str:
        return "tlock"

    def decide(self) -> "Deferred[bool]":
        """Waits for the request."""
        decision: "Deferred[bool]" = Deferred(self.withdraw)
        self.decision = decision
        try:
            _reactor().addWriter(self)
        except BaseException:
            self.decision = None
            self.acquisition._withdraw()
            raise
        return decision

    def doWrite(self) -> None:
        if self.decision is None:
            return
        try:
            held = self.acquisition._fetch(self.contender)
        except Exception:  # pylint: disable=broad-except
            self.take_decision().errback()
            return
        if held is not None:
            self.take_decision().callback(held)

    def take_decision(self) -> "Deferred[bool]":
        decision, self.decision = self.decision, None
        assert decision is not None
        # The file stays writable, so the reactor would call doWrite() again
        self.remove("removeWriter")
        return decision

    def withdraw(self, _decision: object) -> None:
        self.take_decision()
        self.acquisition._withdraw()

    def want(self) -> "Deferred[None]":
        """Waits until somebody wants the lock."""
        watcher: "Deferred[None]" = Deferred(self.unwant)
        _reactor().addReader(self)
        self.watchers.append(watcher)
        return watcher

    def unwant(self, watcher: "Deferred[None]") -> None:
        if watcher in self.watchers:
            self.watchers.remove(watcher)
            if not self.watchers:
                self.remove("removeReader")

    def doRead(self) -> None:
        try:
            wanted = bool(self.watchers) and self.acquisition._is_wanted()
        except RuntimeError:
            # It was revoked, and end() tells the watchers
            return
        if wanted:
            for watcher in self.take_watchers():
                # The callback of another one may have cancelled it
                if not watcher.called:
                    watcher.callback(None)

    def take_watchers(self) -> "List[Deferred[None]]":
        watchers, self.watchers = self.watchers, []
        if watchers:
            self.remove("removeReader")
        return watchers

    def remove(self, method: str) -> None:
        # A forked child has closed the file; the parent's reactor watches it
        if self.contender.fd >= 0:
            getattr(_reactor(), method)(self)

    def end(self, error: RuntimeError) -> bool:
        self.acquisition._watch = None
        # Their callbacks must not find a half-ended acquisition
        for watcher in self.take_watchers():
            _reactor().callLater(0, self.tell_end, watcher, error)
        return True

    @staticmethod
    def tell_end(watcher: "Deferred[None]", error: RuntimeError) -> None:
        if not watcher.called:
            watcher.errback(error)

    def connectionLost(self, reason: Failure) -> None:
        """The reactor stops; or the grant was revoked, which for some reactors
        looks like a lost connection."""
        watchers = self.take_watchers()
        acquisition = self.acquisition
        decision = None
        try:
            if self.decision is not None:
                decision = self.take_decision()
                if acquisition._withdraw() == ESTALE:
                    raise acquisition._make_revoked(acquisition._lock.path)
            else:
                acquisition._is_wanted()
        except Revoked:
            reason = Failure()  # type: ignore[no-untyped-call]
        except RuntimeError:
            # The acquisition is over
            pass
        if decision is not None:
            decision.errback(reason)
        for watcher in watchers:
            if not watcher.called:
                watcher.errback(reason)


class Acquisition(_event.Acquisition):
    """One acquisition of a lock: the value of acquire_timeout().

    It is true while it holds the lock, as far as its calls have returned. Its
    methods concern this acquisition and no other, wherever they are called. As
    a context manager, it releases the lock if it still holds it at the end of
    the block.
    """

    __slots__ = ()

    def release_and_acquire(self, timeout: Optional[float] = None
                            ) -> "Deferred[bool]":
        """Lets the waiters in, and takes the lock again, for the same job.

        Like TimeoutLock.release_and_acquire().
        """
        return self._take(self._restart, self._lock._timeout(timeout))

    def wanted(self) -> "Deferred[None]":
        """Waits until somebody wants the lock.

        Like TimeoutLock.wanted().
        """
        try:
            if not self:
                raise RuntimeError("the lock is not held")
            return succeed(None) if self._is_wanted() else self._file().want()
        except Exception:  # pylint: disable=broad-except
            return fail()

    def __enter__(self) -> "Acquisition":
        return self

    def __exit__(self, reason: object, *_unused: object) -> None:
        # Another exception that ends the block goes on, rather than this one
        if self._leave() == ESTALE and reason is None:
            raise self._make_revoked(self._lock.path)

    def _take(self, start: Callable[[int], Optional[bool]],
              ns: int) -> "Deferred[bool]":
        try:
            self._check_pending()
            self._lock._failed = None
            held = start(ns)
            return self._file().decide() if held is None else succeed(held)
        except Exception:  # pylint: disable=broad-except
            return fail()

    def _file(self) -> _File:
        """What the reactor watches"""
        file = self._watch
        if not isinstance(file, _File) or file.contender is not self._claim[0]:
            self._watch = file = _File(self, self._claim[0])
        return file


class TimeoutLock(_event.Lock):
    """A lock that is shared by flows, threads, processes and containers.

    It has the names, arguments, defaults and results of tlock.TimeoutLock.
    What may wait returns a Deferred. All objects with the same path, of either
    class and in any process, are one and the same lock. Waiters get the lock
    in the order in which they came.

    Its methods, and those of an Acquisition, are for the reactor's thread. One
    object is for all that runs there. Twisted does not say which flow calls a
    method, so the methods of this object mean whichever acquisition of this
    object holds the lock, as in OCS; those of an Acquisition mean only that
    one. An agent whose flows may lose the lock in release_and_acquire() to each
    other should call the latter.

    Cancelling a Deferred, also by addTimeout(), ends the wait. Afterwards the
    call neither holds the lock nor waits for it: if the lock was granted in the
    meantime, the next waiter gets it. Deferreds that still wait when the
    reactor stops fail.

    Each acquisition has an open file while it waits or holds. The kernel keeps
    its place in the queue and its deadline, even if the reactor is busy with
    something else. A lock that was granted while the reactor was busy stays
    granted until the deadline, and beyond that until somebody else wants it;
    then the result is False.

    If the process dies while it holds the lock, the kernel passes the lock on,
    and the next holder sees `abandoned`. The same happens if the process drops
    the object, but only once Python's garbage collector has found that. A forked
    child does not share its parent's acquisitions.

    If the process hangs while it holds the lock, the kernel passes the lock on,
    too, once its lease has ended or somebody calls revoke(). The next holder
    sees `revoked`. The next call that concerns the old acquisition, or the end
    of its block, fails with Revoked, which is a RuntimeError.

    default_timeout: for calls without a timeout, in seconds; see acquire()
    path: path of the lock's device, or a lock's name, as for tlock.TimeoutLock

    Raises OSError if the lock's device cannot be opened, ValueError or
    TypeError for a bad timeout.
    """

    def __init__(self, default_timeout: Optional[float] = 0, *,
                 path: Optional[PathLike] = None) -> None:
        super().__init__(default_timeout, path=path)

    _construct = __init__

    def acquire(self, timeout: Optional[float] = None,
                job: object = None, *,
                blocking: Optional[bool] = None,
                lease: Optional[float] = None) -> "Deferred[bool]":
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

        The result is True if the lock is held; `abandoned`, `revoked` and
        `token` describe the grant. It is False if somebody else has the lock;
        see `job` and `blocker`.

        Fails with Revoked if the lock was granted, and taken away before this
        call could end, such as when the reactor was busy for longer than the
        lease. Raises ValueError or TypeError for a bad timeout or lease.
        """
        acquisition = Acquisition(self, make_terms(job, lease), False)
        return acquisition._take(acquisition._start,
                                 self._acquire_timeout(timeout, blocking))

    def release(self) -> None:
        """Gives the lock to the longest waiter. Does not block.

        Raises RuntimeError if no acquisition of this object holds it, Revoked
        if the lock was taken from it, and no call has reported it yet.
        """
        last = self._last()
        number = last._end()
        if number:
            raise last._loss(number, self.path,
                             "release of a lock that is not held")

    def release_and_acquire(self, timeout: Optional[float] = None
                            ) -> "Deferred[bool]":
        """Lets the waiters in, and takes the lock again, for the same job.

        In one step: the caller gets the lock after all who wait now, and before
        all who come later. If nobody waits, this costs almost nothing: call it
        as often as you like, such as once per sample. Renews the lease.

        timeout: as for acquire()

        The result is True if the lock is held. It is False if it is not, see
        `job` and `blocker`; the caller may then call this again, which waits
        for the lock once more, and takes it from nobody. The same holds after a
        wait that was cancelled.

        Fails with RuntimeError if no acquisition of this object held the lock,
        or if it was released in the meantime; with Revoked if it was taken
        away, and after that, too, the caller may call this again. Raises
        ValueError or TypeError for a bad timeout. The acquisition does not hold
        the lock during a wait: release() raises RuntimeError.
        """
        return self._last().release_and_acquire(timeout)

    def renew(self, *, lease: Optional[float] = None) -> None:
        """Renews the lease, and keeps the lock even if somebody waits.

        For a step that must not be interrupted; otherwise
        release_and_acquire() is fairer. Without a lease, this only checks that
        the lock is still held. Does not block.

        lease: from now on, as for acquire(); None keeps the present lease

        Raises RuntimeError if no acquisition of this object holds the lock, or
        if it is in its release_and_acquire(), Revoked if the lock was taken
        away. Raises ValueError or TypeError for a bad lease, and then changes
        nothing.
        """
        self._last().renew(lease=lease)

    def wanted(self) -> "Deferred[None]":
        """Waits until another contender waits for the lock that is held.

        The time for a release_and_acquire(), for an agent that has nothing else
        to do until then.

        Fails with RuntimeError if no acquisition of this object holds the lock,
        or if it loses it in the meantime: with Revoked if the lock was taken
        away.
        """
        return self._last().wanted()

    def acquire_timeout(self, timeout: Optional[float] = None,
                        job: object = "unnamed", *,
                        lease: Optional[float] = None
                        ) -> "Deferred[Acquisition]":
        """Takes the lock for a with block.

        timeout, job, lease: as for acquire()

        The result is an Acquisition, which is true if the lock was acquired. In
        a block, as in "with (yield lock.acquire_timeout(3)) as acquired:", it
        releases the lock at the end if that acquisition still holds it, and
        nothing else. The end raises Revoked if the lock was taken away and no
        call in the block has reported it, unless another exception ends the
        block.

        Fails, and raises errors, as acquire() does.
        """
        acquisition = Acquisition(self, make_terms(job, lease), False)
        taken: Any = acquisition._take(acquisition._start,
                                       self._timeout(timeout))
        taken.addCallback(lambda _: acquisition)
        result: "Deferred[Acquisition]" = taken
        return result

    @property
    def job(self) -> Optional[str]:
        """The current holder's job, in any process; None: the lock is free.

        But if the last call of this object has failed, it is, for one look, the
        job that made the call fail, even if the lock has changed hands since.
        """
        return self._job_of(self._failed)

    @property
    def blocker(self) -> Optional[Holder]:
        """The holder that made this object's last call fail, as it was when the
        call gave up; None if that call did not fail, or has not ended."""
        return None if self._failed is None else self._failed.blocker

    def _last(self) -> Acquisition:
        """The acquisition that the methods of this object mean"""
        last = self._granted
        if last is None:
            # It holds nothing, and says so
            last = Acquisition(self, make_terms(None, None), False)
        assert isinstance(last, Acquisition)
        return last
