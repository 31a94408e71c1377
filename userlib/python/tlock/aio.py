# SPDX-License-Identifier: LGPL-2.1-or-later
"""The lock for an agent that is an asyncio program.

    from tlock.aio import TimeoutLock

    async with lock.acquire_timeout(timeout=3, job="acq") as acquired:
        if acquired:
            ...
            await lock.release_and_acquire(timeout=10)

As tlock.TimeoutLock, but waiting for the lock blocks neither the loop nor a
thread, and cancelling a wait ends it. A Monitor watches a lock, as
tlock.Monitor does. Both work with each loop that has add_reader() and
add_writer(), such as that of Twisted's asyncioreactor.
"""
import asyncio
import weakref
from collections import deque
from errno import EPERM, ESTALE, ETIMEDOUT
from typing import (Any, Callable, Coroutine, Deque, List, MutableMapping,
                    Optional, Set)

from . import _device, _event
from ._device import (DEFAULT_PATH, Contender, Holder, PathLike, Terms,
                      device_path, keep, make_terms)
from ._watch import Event, EventFile, read_events

__all__ = ["Acquisition", "Monitor", "TimeoutLock"]

# How many events a Monitor returns before other tasks run
_EVENTS = 64


class _Decision:
    """Fetches the outcome of a request, once the loop says it is decided.

    Nothing but the loop refers to this object, so it vanishes with a loop that
    is closed while the request waits. Nobody would ever fetch a grant then.
    """

    __slots__ = "acquisition", "contender", "ticket", "future"

    def __init__(self, acquisition: _event.Acquisition, contender: Contender,
                 future: "asyncio.Future[bool]") -> None:
        self.acquisition = acquisition
        self.contender = contender
        self.ticket = contender.argument.ticket
        self.future = future

    def waits(self) -> bool:
        # The file may have another request by now
        return (not self.future.done()
                and self.contender.argument.ticket == self.ticket)

    def __call__(self) -> None:
        if not self.waits():
            return
        future = self.future
        try:
            held = self.acquisition._fetch(self.contender)
            if held is None:
                return
            # The file stays writable, so the loop would call this again
            future.get_loop().remove_writer(self.contender.fd)
            future.set_result(held)
        except BaseException as error:
            future.get_loop().remove_writer(self.contender.fd)
            self.acquisition._withdraw()
            is_ours = isinstance(error, Exception)
            if not future.done():
                # Another exception, such as KeyboardInterrupt, is a signal
                # handler's, and ends the loop. If that goes on nevertheless,
                # it ends the task, too. (cancel() would make _Wait believe that
                # the file is watched.)
                future.set_exception(error if is_ours
                                     else asyncio.CancelledError())
            if not is_ours:
                raise

    def __del__(self) -> None:
        if self.waits():
            self.acquisition._withdraw()


class _Wait:
    """Ends a call that does not return.

    Only the call refers to this object. So __del__() ends it if an exception
    from a signal handler, such as KeyboardInterrupt, comes while the call deals
    with another one.
    """

    __slots__ = "acquisition", "contender", "future", "lost"

    def __init__(self, acquisition: _event.Acquisition) -> None:
        self.acquisition: Optional[_event.Acquisition] = acquisition
        # What the loop watches, and for what
        self.contender: Optional[Contender] = None
        self.future: "Optional[asyncio.Future[bool]]" = None
        self.lost = False

    def end(self) -> None:
        acquisition = self.acquisition
        if acquisition is None:
            return
        future = self.future
        if future is not None and future.done() and not future.cancelled():
            # The file is not watched any more, and may be another's by now.
            # Nobody learns of a grant, but somebody may have begun the next
            # call.
            if acquisition._end() != EPERM:
                acquisition._lost = self.lost
        else:
            contender = self.contender
            if contender is not None and future is not None:
                if contender.fd >= 0:
                    future.get_loop().remove_writer(contender.fd)
                self.contender = None
            acquisition._withdraw()
        self.acquisition = None

    def __del__(self) -> None:
        self.end()


async def _take(acquisition: _event.Acquisition,
                start: Callable[[int], Optional[bool]], ns: int) -> bool:
    """Asks for the lock, and waits if necessary.

    start: the method of the acquisition that asks for it
    """
    acquisition._check_pending()
    wait = _Wait(acquisition)
    try:
        held = start(ns)
        if held is None:
            try:
                contender = acquisition._claim[0]
            except IndexError:
                raise _event.released() from None
            loop = asyncio.get_running_loop()
            wait.lost = acquisition._lost
            wait.future = loop.create_future()
            wait.contender = contender
            loop.add_writer(contender.fd,
                            _Decision(acquisition, contender, wait.future))
            held = await wait.future
        wait.acquisition = None
        return held
    except BaseException:
        # The task was cancelled, or the loop cannot watch files, or start()
        # has failed, after which nothing is left to end
        wait.end()
        raise


class _Watch(_event.Watch):
    """Those of one loop who wait until somebody wants the lock"""

    def __init__(self, acquisition: "Acquisition", contender: Contender,
                 loop: asyncio.AbstractEventLoop) -> None:
        self.acquisition = acquisition
        self.contender = contender
        self.loop = loop
        self.futures: "Set[asyncio.Future[None]]" = set()
        loop.add_reader(contender.fd, self.look)

    def look(self) -> None:
        try:
            if self.acquisition._is_wanted():
                self.stop(None)
        except RuntimeError:
            # It was revoked, which has ended this watch. Or another thread has
            # ended it, and this watch too in a moment.
            pass

    def stop(self, error: Optional[Exception]) -> None:
        if self.contender.fd >= 0 and not self.loop.is_closed():
            # The file stays readable, so the loop would call look() again
            self.loop.remove_reader(self.contender.fd)
            for future in self.futures:
                if future.done():
                    continue
                if error is None:
                    future.set_result(None)
                else:
                    future.set_exception(error)
        # The last step: if an exception from a signal handler comes before it,
        # there will be another call
        if self.acquisition._watch is self:
            self.acquisition._watch = None

    def end(self, error: RuntimeError) -> bool:
        # A forked child has closed the file; the parent's loop watches it
        if self.contender.fd < 0 or not self.loop.is_running() or (
                self.loop is asyncio._get_running_loop()):
            self.stop(error)
            return True
        self.acquisition._watch = None
        try:
            self.loop.call_soon_threadsafe(self.stop, error)
        except RuntimeError:
            # It has just been closed
            pass
        return False


class Acquisition(_event.Acquisition):
    """One acquisition of a lock: the value of a block of acquire_timeout().

    It is true while it holds the lock, as far as its calls have returned. Its
    methods concern this acquisition and no other, no matter which task calls
    them. Those that wait must be called in the loop in which it was acquired.
    """

    __slots__ = ()

    async def release_and_acquire(self,
                                  timeout: Optional[float] = None) -> bool:
        """Lets the waiters in, and takes the lock again, for the same job.

        Like TimeoutLock.release_and_acquire().
        """
        return await _take(self, self._restart, self._lock._timeout(timeout))

    async def wanted(self) -> None:
        """Waits until somebody wants the lock.

        Like TimeoutLock.wanted().
        """
        if not self:
            raise RuntimeError("the lock is not held")
        if self._is_wanted():
            return
        loop = asyncio.get_running_loop()
        watch = self._watch
        assert watch is None or isinstance(watch, _Watch)
        if watch is None or watch.loop.is_closed():
            watch = self._watch = _Watch(self, self._claim[0], loop)
        if watch.loop is not loop:
            raise RuntimeError("another event loop watches this lock")
        future: "asyncio.Future[None]" = loop.create_future()
        watch.futures.add(future)
        try:
            await future
        finally:
            watch.futures.discard(future)
            if not watch.futures and self._watch is watch:
                watch.stop(None)


_Own = List[Acquisition]


class _Block:
    """A context manager: only the async with statement has it, while it is
    entered."""

    def __init__(self, lock: "TimeoutLock", ns: int, terms: Terms) -> None:
        self._lock = lock
        self._ns = ns
        self._terms = terms
        self.acquisition: Optional[Acquisition] = None

    async def __aenter__(self) -> Acquisition:
        if self.acquisition is not None:
            raise RuntimeError("this acquire_timeout() is in use")
        own = self._lock._own()
        if self._ns < 0:
            self._lock._check_own(own)
        try:
            self.acquisition = self._lock._begin(own, self._terms, True)
            await _take(self.acquisition, self.acquisition._start, self._ns)
            return self.acquisition
        except BaseException:
            self.leave()
            raise

    async def __aexit__(self, reason: object, *_unused: object) -> None:
        # Nothing here waits, so a cancelled task still leaves
        self.exit(reason)

    def exit(self, reason: object) -> None:
        """Ends the block.

        reason: None if no exception ends it. Otherwise, that exception goes on,
            rather than Revoked.
        """
        acquisition = self.acquisition
        if (self.leave() == ESTALE and reason is None
                and acquisition is not None):
            raise acquisition._make_revoked(self._lock.path)

    def leave(self) -> int:
        acquisition = self.acquisition
        number = 0
        if acquisition is not None:
            number = acquisition._leave()
            # If an exception comes before this, __del__() tries again
            self.acquisition = None
        return number

    def __del__(self) -> None:
        # An exception from a signal handler, such as KeyboardInterrupt, may
        # have come between the acquisition and the block
        if getattr(self, "acquisition", None) is not None:
            self.leave()


class TimeoutLock(_event.Lock):
    """A lock that is shared by tasks, threads, processes and containers.

    It has the names, arguments, defaults and results of tlock.TimeoutLock.
    What may wait is a coroutine. All objects with the same path, of either
    class and in any process, are one and the same lock. Waiters get the lock
    in the order in which they came.

    One object is for all tasks of a process, in all its loops. These rules say
    which acquisition its methods mean:

    1. An acquisition belongs to the task that called acquire() or entered the
       block, also if another task awaits the call, as in asyncio.wait_for().
    2. release(), release_and_acquire() and wanted() mean the caller's own
       acquisition that holds the lock. If none does, they mean the one that
       lost the lock in release_and_acquire(), or the one whose block the caller
       is in.
    3. For a caller that has none, they mean whichever acquisition of this
       object holds the lock, as in OCS.
    4. An acquire() in the caller's own block that has acquired the lock, and
       has lost or released it, acquires it for that block, whose end releases
       it. The end of a block releases nothing else.
    5. The methods of an Acquisition, which is the value of a block, concern
       only that one, wherever they are called.

    Cancelling a task, or asyncio.timeout() or wait_for() around a call, ends
    the wait. That call then neither holds the lock nor waits for it: if the
    lock was granted in the meantime, the next waiter gets it. A call that has
    nothing to wait for does not let other tasks run.

    Each acquisition has an open file while it waits or holds. The kernel keeps
    its place in the queue and its deadline, even if the loop is busy with
    something else. A lock that was granted while the loop was busy stays
    granted until the deadline, and beyond that until somebody else wants it;
    then the call returns False.

    If the process dies while it holds the lock, the kernel passes the lock on,
    and the next holder sees `abandoned`. The same happens if the process drops
    the object, but only once Python's garbage collector has found that. Closing a
    loop withdraws what waits in it. A forked child does not share its parent's
    acquisitions; it may use the object in a loop of its own, to compete with
    the parent.

    If the process hangs while it holds the lock, the kernel passes the lock on,
    too, once its lease has ended or somebody calls revoke(). The next holder
    sees `revoked`. The next call that concerns the old acquisition, or the end
    of its block, raises Revoked, which is a RuntimeError.

    default_timeout: for calls without a timeout, in seconds; see acquire()
    path: path of the lock's device, or a lock's name, as for tlock.TimeoutLock

    Raises OSError if the lock's device cannot be opened, ValueError or
    TypeError for a bad timeout.
    """

    def __init__(self, default_timeout: Optional[float] = 0, *,
                 path: Optional[PathLike] = None) -> None:
        super().__init__(default_timeout, path=path)
        # The acquisitions of each task, and of callers that are not tasks,
        # that are not over; the last may be over
        self._tasks: MutableMapping[object, _Own] = weakref.WeakKeyDictionary()
        self._others: _Own = []
        # The blocks of "async with lock:"
        self._blocks: List[_Block] = []

    _construct = __init__

    def acquire(self, timeout: Optional[float] = None,
                job: object = None, *,
                blocking: Optional[bool] = None,
                lease: Optional[float] = None) -> Coroutine[Any, Any, bool]:
        """Takes the lock, waiting for it if necessary. To be awaited.

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
        if this task holds the lock itself and would wait for ever, and Revoked
        if the lock was granted, and taken away before this call could return,
        such as when the loop was busy for longer than the lease.
        """
        return self._acquire(self._own(),
                             self._acquire_timeout(timeout, blocking),
                             make_terms(job, lease))

    def release(self) -> None:
        """Gives the lock to the longest waiter. Does not block.

        Raises RuntimeError if the acquisition that this means (see the class)
        does not hold it, Revoked if the lock was taken from it, and no call has
        reported it yet. This includes a caller that has lost the lock in
        release_and_acquire(): then another contender has it, and keeps it.
        """
        acquisition = self._find(self._own())
        if acquisition is None:
            raise RuntimeError("release of a lock that is not held")
        number = acquisition._end()
        if number:
            if not acquisition._open:
                # This exception reports the loss
                acquisition._lost = False
            raise acquisition._loss(number, self.path,
                                    "release of a lock that is not held")

    def release_and_acquire(self, timeout: Optional[float] = None
                            ) -> Coroutine[Any, Any, bool]:
        """Lets the waiters in, and takes the lock again, for the same job. To
        be awaited.

        In one step: the caller gets the lock after all who wait now, and before
        all who come later. If nobody waits, this costs almost nothing: call it
        as often as you like, such as once per sample. Renews the lease.

        timeout: as for acquire()

        Returns True if the lock is held. Returns False if it is not, see `job`
        and `blocker`; the caller may then call this again, which waits for the
        lock once more, and takes it from nobody. The same holds after a wait
        that was cancelled.

        Raises RuntimeError if the acquisition that this means (see the class)
        did not hold the lock, or another task released it in the meantime.
        Raises ValueError or TypeError for a bad timeout. Neither changes
        anything. Raises Revoked if the lock was taken away; after that, too, the
        caller may call this again. The acquisition does not hold the lock during
        a wait: release() in another task raises RuntimeError.
        """
        return self._again(self._own(), self._timeout(timeout))

    def renew(self, *, lease: Optional[float] = None) -> None:
        """Renews the lease, and keeps the lock even if somebody waits.

        For a step that must not be interrupted; otherwise
        release_and_acquire() is fairer. Without a lease, this only checks that
        the lock is still held. Does not block.

        lease: from now on, as for acquire(); None keeps the present lease

        Raises RuntimeError if the acquisition that this means (see the class)
        does not hold the lock, or is in its release_and_acquire(), Revoked if
        the lock was taken away. Raises ValueError or TypeError for a bad lease,
        and then changes nothing.
        """
        acquisition = self._find(self._own())
        if acquisition is None:
            raise RuntimeError("renew of a lock that is not held")
        acquisition.renew(lease=lease)

    def wanted(self) -> Coroutine[Any, Any, None]:
        """Waits until another contender waits for the lock that is held. To be
        awaited.

        The time for a release_and_acquire(), for an agent that has nothing else
        to do until then.

        Raises RuntimeError if the acquisition that this means (see the class)
        does not hold the lock, or loses it in the meantime: Revoked if the lock
        was taken away.
        """
        return self._wanted(self._own())

    def acquire_timeout(self, timeout: Optional[float] = None,
                        job: object = "unnamed", *,
                        lease: Optional[float] = None) -> _Block:
        """A context manager for one async with block, which holds the lock.

        timeout, job, lease: as for acquire()

        The value of the block is an Acquisition, which is true if the lock was
        acquired. Leaving the block releases the lock if that acquisition still
        holds it, and nothing else.

        The beginning of the block raises the errors of acquire(). Its end
        raises Revoked if the lock was taken away and no call in the block has
        reported it, unless another exception ends the block.
        """
        return _Block(self, self._timeout(timeout), make_terms(job, lease))

    async def __aenter__(self) -> Acquisition:
        """Acquires the lock within the default_timeout, or raises TimeoutError.

        The error names the holder.
        """
        block = self.acquire_timeout()
        acquisition = await block.__aenter__()
        if acquisition:
            self._blocks.append(block)
            return acquisition
        block.leave()
        assert acquisition.blocker is not None
        raise TimeoutError(
            ETIMEDOUT,
            "the lock could not be acquired within the default_timeout of %r "
            "seconds: it is %s" % (
                self._default_timeout,
                _device.describe(acquisition.blocker, self.path)),
            self.path)

    async def __aexit__(self, reason: object, *_unused: object) -> None:
        for acquisition in reversed(self._own()):
            for block in self._blocks:
                if block.acquisition is acquisition:
                    self._blocks.remove(block)
                    block.exit(reason)
                    return
        self.release()

    @property
    def job(self) -> Optional[str]:
        """The current holder's job, in any process; None: the lock is free.

        But for a task whose call has just failed, it is the job that made the
        call fail, even if the lock has changed hands since. In an async with
        block this lasts to the block's end, elsewhere for one look, but never
        longer than to the next call.
        """
        return self._job_of(self._newest())

    @property
    def blocker(self) -> Optional[Holder]:
        """The holder that made the caller's last acquire() or
        release_and_acquire() fail, as it was when the call gave up; None if
        that call did not fail.
        """
        newest = self._newest()
        return None if newest is None else newest.blocker

    def _own(self) -> _Own:
        """The acquisitions of the task that runs, the last at the end"""
        if asyncio._get_running_loop() is not None:
            task = asyncio.current_task()
            if task is not None:
                return self._tasks.setdefault(task, [])
        return self._others

    def _newest(self) -> Optional[Acquisition]:
        own = self._own()
        return own[-1] if own else None

    def _begin(self, own: _Own, terms: Terms, is_open: bool) -> Acquisition:
        acquisition = Acquisition(self, terms, is_open)
        own[:] = [one for one in own if one._claim or one._open or one._lost]
        own.append(acquisition)
        return acquisition

    def _check_own(self, own: _Own) -> None:
        """Raises RuntimeError if the task would wait for itself for ever."""
        if own is not self._own() or own is self._others:
            return
        for acquisition in own:
            if acquisition:
                raise RuntimeError(
                    "the caller holds this lock itself, for job %r, and would "
                    "wait for ever" % acquisition._say_job())

    async def _acquire(self, own: _Own, ns: int, terms: Terms) -> bool:
        if ns < 0:
            self._check_own(own)
        for acquisition in reversed(own):
            if (acquisition._open and acquisition.token
                    and not acquisition._claim):
                acquisition._terms = terms
                break
        else:
            acquisition = self._begin(own, terms, False)
        return await _take(acquisition, acquisition._start, ns)

    async def _again(self, own: _Own, ns: int) -> bool:
        acquisition = self._find(own)
        if acquisition is None:
            raise RuntimeError("release_and_acquire of a lock that is not held")
        return await _take(acquisition, acquisition._restart, ns)

    async def _wanted(self, own: _Own) -> None:
        acquisition = self._find(own)
        if acquisition is None:
            raise RuntimeError("the lock is not held")
        await acquisition.wanted()

    def _find(self, own: _Own) -> Optional[Acquisition]:
        """The acquisition that the methods of this object mean"""
        found: Optional[_event.Acquisition] = None
        for acquisition in reversed(own):
            acquisition._named = False
            if acquisition:
                return acquisition
            if found is None and (acquisition._claim or acquisition._lost or (
                    acquisition._open and acquisition.token)):
                found = acquisition
        if found is None:
            found = self._granted
            if found is None or not found._claim:
                return None
        assert isinstance(found, Acquisition)
        return found


class Monitor:
    """What happens to a lock from now on: an asynchronous iterator of its
    events.

        async with tlock.aio.Monitor() as events:
            async for event in events:
                print(event.kind, event.job)

    As tlock.Monitor, but waiting for an event does not block the loop.

    Cancelling a task that waits loses no event. Other tasks run now and then
    even if there are always more events. The object is for one task at a time,
    though not always of the same loop, but any task of the loop may call
    close(). In a forked child, the object is closed.

    path: as for tlock.Monitor

    Raises OSError if the lock's device cannot be opened.
    """

    path: str
    """Path of the lock's device"""

    # _file: the open file, unless the object is closed
    # _events: those that were read, but not returned yet
    # _waiter: what the task that waits for the file waits for
    _file: Optional[EventFile]
    _events: Deque[Event]
    _waiter: "Optional[asyncio.Future[None]]"

    def __init__(self, path: PathLike = DEFAULT_PATH) -> None:
        self._file = None
        self._events = deque()
        self._waiter = None
        self.path = device_path(path)
        self._file = keep(EventFile, self.path)

    def __aiter__(self) -> "Monitor":
        return self

    async def __anext__(self) -> Event:
        """Waits for the next event.

        Raises RuntimeError if another task waits for it.
        """
        while not self._events:
            await self._wait()
            file = self._file
            events = None
            if file is not None and file.fd >= 0:
                events = read_events(file.fd, _EVENTS)
            if events is None:
                raise StopAsyncIteration
            self._events += events
        return self._events.popleft()

    async def __aenter__(self) -> "Monitor":
        return self

    async def __aexit__(self, *_unused: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the iteration, also in a task that waits for an event."""
        self._wake()
        self._events.clear()
        file, self._file = self._file, None
        if file is not None:
            file.close()

    async def _wait(self) -> None:
        """Waits until the file can be read, or is closed."""
        file = self._file
        # A forked child has closed it
        if file is None or file.fd < 0:
            return
        if self._waiter is not None and not (
                self._waiter.get_loop().is_closed()):
            raise RuntimeError("another task waits for the next event")
        loop = asyncio.get_running_loop()
        waiter = self._waiter = loop.create_future()
        try:
            loop.add_reader(file.fd, self._wake)
            await waiter
        finally:
            if self._waiter is waiter:
                self._wake()
                self._waiter = None

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is None or waiter.get_loop().is_closed():
            return
        if not waiter.done():
            waiter.set_result(None)
        # The file stays readable, so the loop would call this again
        if self._file is not None and self._file.fd >= 0:
            waiter.get_loop().remove_reader(self._file.fd)
