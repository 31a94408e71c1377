# SPDX-License-Identifier: LGPL-2.1-or-later
"""The lock for an agent: TimeoutLock."""
import errno
import math
import threading
from contextlib import contextmanager
from typing import Iterator, List, Optional, Set

from . import _device
from ._device import Contender, Holder, PathLike

# What the kernel takes, about 292 years
_MAX_NS = 2**63 - 1


def _nanoseconds(timeout: float) -> int:
    """A timeout for the kernel: -1 for ever, rounded up, at most _MAX_NS."""
    if timeout == -1:
        return -1
    # Written so that NaN is caught too
    if not timeout >= 0:
        raise ValueError("timeout must be -1 or at least 0 seconds, not %r" %
                         (timeout,))
    ns = timeout * 1e9
    return math.ceil(ns) if ns < _MAX_NS else _MAX_NS


class _Released(RuntimeError):
    """Another thread has released the contender that a call was to use.

    That thread has put it back, too: it may be a third one's by now.
    """


class _Thread:
    """What a TimeoutLock knows about one of the threads that use it."""

    def __init__(self) -> None:
        # Contenders of the with blocks that it is in, innermost last
        self.blocks: List[Contender] = []
        # Who made its last call fail, and whether `job` is to name it
        self.blocker: Optional[Holder] = None
        self.name_blocker = False
        # Job of the acquisition that its release_and_acquire() has lost
        self.lost: Optional[bytes] = None


class TimeoutLock:
    """A lock that is shared by threads, processes, languages and containers.

    It has the names, arguments, defaults and results of the TimeoutLock of
    OCS. All TimeoutLock objects with the same path, in whatever process, are
    one and the same lock: an agent that used several locks needs a path for
    each. Those who wait get it in the order in which they came.

    One object is for all threads of a process: any of them may acquire, wait
    and release, also what another one acquired. Acquiring what the object
    already holds waits like anybody else, and in vain.

    If the process dies or drops the object while it holds the lock, the
    kernel passes the lock on, and the next holder sees `abandoned`. A forked
    child does not share what its parent holds; it may use the object to
    compete with it.

    KeyboardInterrupt, or whatever else a signal handler raises, ends a wait;
    that call then neither holds the lock nor waits for it. When the handler
    returns, the wait goes on in its place and to the same deadline; and so it
    does after a stop, a suspend or a debugger. Until then, the lock does not
    wait for it: those behind may get it first.

    default_timeout: for calls without a timeout, in seconds; see acquire()
    path: path of the lock's device, or a lock's name

    Raises OSError if the lock's device cannot be opened, ValueError for a bad
    timeout.
    """

    abandoned: bool
    """Whether the lock was last acquired from a holder that went without a
    release: the instrument may be in the middle of a command. As the last
    acquire() or release_and_acquire() that succeeded was told; one that let
    nobody in is told False."""

    token: int
    """Number of the last grant to this object, 0 before the first. Each grant
    of a lock has a larger one, whoever gets it, so that a device or a log can
    tell a late message of an earlier holder."""

    path: str
    """Path of the lock's device"""

    def __init__(self, default_timeout: Optional[float] = 0, *,
                 path: PathLike = _device.DEFAULT_PATH) -> None:
        if default_timeout is None:
            default_timeout = 0
        _nanoseconds(default_timeout)
        self._default_timeout = default_timeout
        self.path = _device.device_path(path)
        self.abandoned = False
        self.token = 0
        self._threads = threading.local()
        # Only the kernel knows for certain which contender holds the lock.
        # Here is who might (they try to, or have succeeded), and who is free
        # for use. Nothing guards them: each step is one atomic operation of
        # a set, and a contender that a KeyboardInterrupt drops is closed.
        self._active: Set[Contender] = set()
        self._idle: Set[Contender] = {_device.open_contender(self.path)}

    def acquire(self, timeout: Optional[float] = None,
                job: Optional[str] = None) -> bool:
        """Takes the lock, waiting for it if need be.

        timeout: in seconds: 0 tries, more waits that long, -1 waits for ever,
            None is the default_timeout. Beyond 292 years is 292 years.
        job: what the lock is taken for, for others to see: at most 63 bytes
            of UTF-8, no control characters; None is an empty one

        Returns True: the lock is held; `abandoned` and `token` tell more. Or
        False: somebody else has it, see `job` and `blocker`.

        Raises ValueError for another timeout or job, and RuntimeError if
        another thread released this wait, by calling release() at the moment
        when a third one released what the object had held.
        """
        return self._acquire(self._timeout(timeout), _device.encode_job(job))

    def release(self) -> None:
        """Gives the lock to whoever has waited longest.

        Raises RuntimeError if this object does not hold it; also if this
        thread has lost it in release_and_acquire() and not acquired it again:
        then the holder is another thread, and keeps it.
        """
        me = self._me()
        me.name_blocker = False
        lost, me.lost = me.lost, None
        if lost is None:
            for contender in self._holders():
                try:
                    released = contender.release()
                except BaseException:
                    contender.release()
                    self._put_back(contender)
                    raise
                if released:
                    self._put_back(contender)
                    return
        raise RuntimeError("release of a lock that is not held")

    def release_and_acquire(self, timeout: Optional[float] = None) -> bool:
        """Lets those in who wait, and takes the lock again, for the same job.

        In one step: this comes after all who wait now, and before all who
        come later. If nobody waits, it costs next to nothing: call it as often
        as you like, such as once per sample.

        timeout: as for acquire()

        Returns True: the lock is held. Or False: it is not, see `job` and
        `blocker`; the thread may call this again then, which waits for the
        lock once more, and takes it from nobody. An exception from a signal's
        handler leaves the lock held or not, depending on when it came; a with
        block takes care of both.

        Raises RuntimeError if this object did not hold the lock, or another
        thread released it at the same moment, and ValueError for a bad
        timeout; neither changes anything. During a wait, this object does not
        hold the lock: release() in another thread raises RuntimeError.
        """
        ns = self._timeout(timeout)
        me = self._me()
        if me.lost is not None:
            return self._acquire(ns, me.lost)
        for contender in self._holders():
            try:
                taken = self._take(contender, _device.REACQUIRE, ns,
                                   contender.job)
            except _Released:
                continue
            except BaseException:
                me.lost = contender.job
                contender.release()
                self._put_back(contender)
                raise
            if not taken:
                me.lost = contender.job
                self._put_back(contender)
            return taken
        raise RuntimeError("release_and_acquire of a lock that is not held")

    @contextmanager
    def acquire_timeout(self, timeout: Optional[float] = None,
                        job: Optional[str] = "unnamed") -> Iterator[bool]:
        """A context manager that holds the lock, and yields whether it does.

        timeout, job: as for acquire()

        Leaving the block releases what the block acquired, or what its thread
        acquired in it after the block had lost or released that. If the block
        does not hold the lock any more, it releases nothing.
        """
        ns = self._timeout(timeout)
        job_bytes = _device.encode_job(job)
        me = self._me()
        lost = me.lost
        contender = self._contender()
        try:
            try:
                me.blocks.append(contender)
                contender.in_block = True
                self._active.add(contender)
                yield self._take(contender, _device.ACQUIRE, ns, job_bytes)
            finally:
                self._leave(me, lost, contender)
        except BaseException:
            # A KeyboardInterrupt may have kept the other one from its work
            self._leave(me, lost, contender)
            raise

    @property
    def job(self) -> Optional[str]:
        """The current holder's job, whichever process it is in; None: free.

        But for a thread whose call has just failed, it is the job that made
        it fail, even if the lock has changed hands since: in a with block to
        the block's end, elsewhere for one look. In both cases only until the
        thread's next call.
        """
        me = self._me()
        if me.name_blocker and me.blocker is not None:
            me.name_blocker = bool(me.blocks)
            return me.blocker.job
        holder = self.holder
        return None if holder is None else holder.job

    @property
    def holder(self) -> Optional[Holder]:
        """The current holder, whichever process it is in; None: free."""
        return _device.status(self.path).holder

    @property
    def blocker(self) -> Optional[Holder]:
        """Who made this thread's last acquire or release_and_acquire fail.

        As it was when the call gave up; None if that call did not fail.
        """
        return self._me().blocker

    def _me(self) -> _Thread:
        try:
            me: _Thread = self._threads.me
        except AttributeError:
            me = self._threads.me = _Thread()
        return me

    def _timeout(self, timeout: Optional[float]) -> int:
        return _nanoseconds(self._default_timeout if timeout is None
                            else timeout)

    def _contender(self) -> Contender:
        """A contender that is free for use"""
        while True:
            try:
                contender = self._idle.pop()
            except KeyError:
                return _device.open_contender(self.path)
            # A fork has closed our parent's
            if not contender.closed:
                return contender

    def _holders(self) -> List[Contender]:
        """Who may hold the lock: one at most does, and the kernel knows."""
        # In release_and_acquire() it may wait, and a release would withdraw it
        return [contender for contender in tuple(self._active)
                if contender.token and not contender.closed
                and (not contender.waiting
                     or contender.look().holder.token == contender.token)]

    def _put_back(self, contender: Contender) -> None:
        """Frees a contender that does not hold, unless a block still has it.

        From then on it may be another thread's.
        """
        if not contender.in_block:
            contender.acquired = False
            self._active.discard(contender)
            self._idle.add(contender)

    def _leave(self, me: _Thread, lost: Optional[bytes],
               contender: Contender) -> None:
        """Leaves a with block; the second time has no effect"""
        if contender in me.blocks:
            contender.release()
            me.name_blocker = False
            me.lost = lost
            contender.in_block = False
            self._active.discard(contender)
            me.blocks.remove(contender)
            self._put_back(contender)

    def _acquire(self, ns: int, job: bytes) -> bool:
        """acquire(), with a valid timeout and job"""
        blocks = self._me().blocks
        contender = blocks[-1] if blocks else None
        # If a block has lost what it acquired, this is for it to release. But
        # a signal's handler must not use what it has interrupted.
        if (contender is None or contender.closed or contender.token
                or contender.waiting or not contender.acquired):
            contender = self._contender()
        try:
            self._active.add(contender)
            if self._take(contender, _device.ACQUIRE, ns, job):
                return True
        except _Released:
            raise
        except BaseException:
            contender.release()
            self._put_back(contender)
            raise
        self._put_back(contender)
        return False

    def _take(self, contender: Contender, request: int, ns: int,
              job: bytes) -> bool:
        """ACQUIRE or REACQUIRE.

        After an exception, the contender may hold the lock or have a request:
        release it, but not after _Released.
        """
        me = self._me()
        me.blocker = None
        me.name_blocker = False
        argument = _device.AcquireStruct(timeout_ns=ns, job=job)
        try:
            contender.waiting = True
            number = contender.ioctl(request, argument)
            while number == errno.EINTR:
                # Python has run the signal's handler. The argument has the
                # request's ticket: it goes on in its place.
                number = contender.ioctl(request, argument)
        finally:
            contender.waiting = False

        if number == 0:
            contender.job = job
            contender.token = self.token = argument.token
            contender.acquired = True
            self.abandoned = bool(argument.result & _device.ABANDONED)
            me.lost = None
            return True
        # EBUSY: yet another thread already waits to acquire it again
        if number == errno.ECANCELED or (request == _device.REACQUIRE and
                                         number in (errno.EPERM, errno.EBUSY)):
            raise _Released("another thread has released the lock")
        contender.token = 0
        if number == errno.ETIMEDOUT:
            me.blocker = _device.make_holder(argument.holder)
            me.name_blocker = True
            return False
        raise contender.error(number)
