#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""Who waits for a lock, and what happens to it; test_aio.py has aio.Monitor."""
import asyncio
import errno
import fcntl
import gc
import inspect
import os
import re
import select
import signal
import time
from unittest import mock

import ktap  # first: finds this tree's package
import tlock
from tlock import TimeoutLock, _device, _watch, aio
from helper import LONG, PYTHON_DIR, Call, SignalTestCase, TestCase, write

HEADER = os.path.dirname(os.path.dirname(PYTHON_DIR)) + "/uapi/linux/tlock.h"


def own_comm():
    with open("/proc/self/comm") as file:
        return file.read().rstrip("\n")


def kind_and_job(event):
    return event.kind, event.job


def open_files():
    return len(os.listdir("/proc/self/fd"))


class WatchTestCase(SignalTestCase):
    def setUp(self):
        super().setUp()
        # What the other tests left is closed
        gc.collect()

    def wait_until_asleep(self, thread_id):
        """Waits until a thread is in poll(2)."""
        def asleep():
            with open("/proc/self/task/%d/syscall" % thread_id) as file:
                return file.read().startswith("7 ")
        self.wait_for(asleep, "sleep")

    def begin_next(self, monitor):
        """Begins a wait for the next event, in a thread."""
        call = Call(next, monitor, None)
        self.wait_until_asleep(call.native_id)
        return call

    def monitor(self, path="tlock"):
        monitor = tlock.Monitor(path=path)
        self.addCleanup(monitor.close)
        return monitor

    def assert_empty(self, monitor):
        """Asserts that no event is there."""
        self.assertEqual(select.select([monitor], [], [], 0)[0], [])

    def next_of(self, monitor):
        """The next event, which must be there"""
        self.assertEqual(select.select([monitor], [], [], 0)[0], [monitor])
        return next(monitor)

    def assert_next(self, monitor, kind, job, token=0, ticket=0):
        event = self.next_of(monitor)
        self.assertEqual((event.kind, event.job, event.token, event.ticket),
                         (kind, job, token, ticket))
        return event


class Waiters(WatchTestCase):
    def test_fields(self):
        self.assertEqual(tlock.Waiter._fields,
                         ("ticket", "since_ns", "timeout_ns", "pid", "uid",
                          "comm", "job", "asynchronous"))

    def test_oldest_first(self):
        self.assertEqual(tlock.waiters(), [])
        first, second = self.agent(), self.agent()
        loop = asyncio.new_event_loop()
        self.addCleanup(loop.close)
        lock = aio.TimeoutLock(path="tlock")
        begun = time.monotonic_ns()
        with TimeoutLock().acquire_timeout(0, "holder"):
            # The holder does not wait
            self.assertEqual(tlock.waiters(), [])
            # The second one is older as a process, and waits for longer
            second.begin("lock.acquire(-1, 'first') and lock.release()")
            self.wait_for_waiters(1)
            first.begin("lock.acquire(2.5e3, 'second') and lock.release()")
            self.wait_for_waiters(2)
            task = loop.create_task(lock.acquire(7, "third"))
            loop.run_until_complete(asyncio.sleep(0))
            waiters = tlock.waiters()
            ended = time.monotonic_ns()
            task.cancel()
            loop.run_until_complete(asyncio.wait([task]))
            self.assertEqual(tlock.waiters(), waiters[:2])
        self.assertEqual([one.job for one in waiters],
                         ["first", "second", "third"])
        self.assertEqual([one.pid for one in waiters],
                         [second.pid, first.pid, os.getpid()])
        self.assertEqual([one.timeout_ns for one in waiters],
                         [-1, 2500 * 10**9, 7 * 10**9])
        self.assertEqual([one.asynchronous for one in waiters],
                         [False, False, True])
        self.assertEqual({one.uid for one in waiters}, {os.geteuid()})
        self.assertEqual(waiters[2].comm, own_comm())
        times = [begun, *(one.since_ns for one in waiters), ended]
        self.assertEqual(times, sorted(times))
        tickets = [0, *(one.ticket for one in waiters)]
        self.assertEqual(tickets, sorted(set(tickets)))
        first.result()
        second.result()

    def test_who_is_stopped_does_not_wait(self):
        other = self.agent()
        with TimeoutLock().acquire_timeout(0, "holder"):
            other.begin("lock.acquire(-1, 'stopped') and lock.release()")
            self.wait_for_waiters(1)
            os.kill(other.pid, signal.SIGSTOP)
            self.wait_for_waiters(0)
            self.assertEqual(tlock.waiters(), [])
            os.kill(other.pid, signal.SIGCONT)
            self.wait_for_waiters(1)
            self.assertEqual(tlock.waiters()[0].job, "stopped")
        other.result()

    def test_any_negative_timeout(self):
        with TimeoutLock().acquire_timeout(0):
            contender = _device.open_contender("/dev/tlock")
            contender.argument.timeout_ns = -5
            contender.argument.flags = _device.ASYNC
            with self.assertRaises(BlockingIOError):
                fcntl.ioctl(contender.fd, _device.ACQUIRE, contender.argument)
            self.assertEqual(tlock.waiters()[0].timeout_ns, -1)
            contender.release()

    def test_text_is_printable(self):
        other = self.agent()
        self.addCleanup(other.do, "open('/proc/self/comm', 'wb').write(%r)" %
                        own_comm().encode())
        other.do(r"open('/proc/self/comm', 'wb').write(b'\x1b[2J\xff')")
        with self.monitor() as events:
            with TimeoutLock().acquire_timeout(0, "holder"):
                other.begin("lock.acquire(-1, 'tr\u00e4ge') and lock.release()")
                self.wait_for_waiters(1)
                waiter, = tlock.waiters()
            other.result()
            event = [self.next_of(events) for _ in range(3)][1]
        self.assertEqual(waiter.comm, "?[2J\\xff")
        self.assertEqual(waiter.job, "tr\u00e4ge")
        self.assertEqual((event.kind, event.comm, event.job),
                         ("waiting", "?[2J\\xff", "tr\u00e4ge"))

    def test_which_lock(self):
        self.new_lock("other")
        before = open_files()
        with TimeoutLock().acquire_timeout(0):
            agent = self.agent()
            agent.begin("lock.acquire(-1) and lock.release()")
            self.wait_for_waiters(1)
            with mock.patch.dict(os.environ, TLOCK="other"):
                self.assertEqual(len(tlock.waiters()), 1)
            self.assertEqual(len(tlock.waiters(path="/dev/tlock")), 1)
            self.assertEqual(tlock.waiters("other"), [])
        agent.result()
        with self.assertRaisesRegex(FileNotFoundError, "no such lock"):
            tlock.waiters("nosuchlock")
        with self.assertRaises(ValueError):
            tlock.waiters("")
        self.assertLessEqual(open_files(), before + 4)

    def test_deleted_while_looking(self):
        write("/sys/class/tlock/new_lock", "short")
        ioctl = _watch.ioctl

        def delete(*args):
            write("/sys/class/tlock/delete_lock", "short")
            return ioctl(*args)

        with mock.patch.object(_watch, "ioctl", delete):
            with self.assertRaises(OSError) as caught:
                tlock.waiters("short")
        self.assertEqual((caught.exception.errno, caught.exception.filename),
                         (errno.ENODEV, "/dev/tlock-short"))


class Events(WatchTestCase):
    def test_fields(self):
        self.assertEqual(tlock.Event._fields,
                         ("kind", "seq", "time_ns", "token", "ticket", "pid",
                          "uid", "comm", "job", "lost", "revoking",
                          "by_gate"))

    def test_kinds_of_the_header(self):
        with open(HEADER) as file:
            enum = re.search(r"enum tlock_event_kind \{(.*?)\}", file.read(),
                             re.S)[1]
        kinds = re.findall(r"\bTLOCK_EVENT_(\w+)", enum)
        self.assertIn("WAITING = 1", enum)
        self.assertEqual(["unknown"] + [kind.lower().replace("_", "-")
                                        for kind in kinds],
                         list(_watch._KINDS))
        # The text describes each
        text = inspect.getsource(tlock.Event)
        for kind in _watch._KINDS:
            self.assertRegex(text, r'(?m)^\s*(""")?%s:' % kind)

    def test_conversation(self):
        lock = TimeoutLock()
        other = self.agent()
        with lock.acquire_timeout(0, "before"):
            pass
        begun = time.monotonic_ns()
        monitor = self.monitor()
        self.assertEqual(monitor.path, "/dev/tlock")
        self.assertIs(iter(monitor), monitor)
        self.assert_empty(monitor)

        self.assertTrue(lock.acquire(0, "first"))
        token = lock.token
        first = self.assert_next(monitor, "acquired", "first", token)
        self.assertEqual((first.pid, first.uid, first.comm, first.lost),
                         (os.getpid(), os.geteuid(), own_comm(), 0))
        self.assertLessEqual(begun, first.time_ns)
        self.assertLessEqual(first.time_ns, time.monotonic_ns())
        self.assertEqual(first.time_ns, tlock.status().holder.since_ns)
        self.assertFalse(other.do("lock.acquire(0, 'hasty')"))
        event = self.assert_next(monitor, "timed-out", "hasty")
        self.assertEqual((event.pid, event.seq, event.lost),
                         (other.pid, first.seq + 1, 0))

        other.begin("lock.acquire(-1, 'second')")
        self.wait_for_waiters(1)
        ticket = tlock.waiters()[0].ticket
        self.assert_next(monitor, "waiting", "second", 0, ticket)
        os.kill(other.pid, signal.SIGSTOP)
        self.wait_for_waiters(0)
        self.assert_next(monitor, "interrupted", "second", 0, ticket)
        os.kill(other.pid, signal.SIGCONT)
        self.wait_for_waiters(1)
        self.assert_next(monitor, "waiting", "second", 0, ticket)
        again = Call(lock.release_and_acquire, -1)
        self.assertTrue(other.result())
        self.assert_next(monitor, "yielded", "first", token)
        self.wait_for_waiters(1)
        ticket, before = tlock.waiters()[0].ticket, ticket
        self.assert_next(monitor, "waiting", "first", 0, ticket)
        self.assert_next(monitor, "acquired", "second", token + 1, before)
        other.kill()
        self.assertTrue(again.result())
        event = self.assert_next(monitor, "abandoned", "second", token + 1)
        self.assertEqual(event.pid, other.pid)
        self.assert_next(monitor, "acquired", "first", token + 2, ticket)

        waiter = Call(lock.acquire, -1, "third")
        self.wait_for_waiters(1)
        ticket = tlock.waiters()[0].ticket
        self.assert_next(monitor, "waiting", "third", 0, ticket)
        self.wait_for(lock.cancel, "cancel")
        with self.assertRaises(OSError):
            waiter.result()
        self.assert_next(monitor, "withdrawn", "third", 0, ticket)
        lock.release()
        event = self.assert_next(monitor, "released", "first", token + 2)
        self.assertEqual(event.seq, first.seq + 12)
        self.assert_empty(monitor)
        monitor.close()

    def test_lost(self):
        lock = TimeoutLock()
        monitor = self.monitor()
        for _ in range(700):
            lock.acquire(0, "often")
            lock.release()
        events = []
        while select.select([monitor], [], [], 0)[0]:
            events.append(next(monitor))
        self.assertEqual(events[-1].kind, "released")
        self.assertEqual(events[-1].token, lock.token)
        self.assertGreater(events[0].lost, 0)
        self.assertEqual(events[0].lost + len(events), 1400)
        self.assertEqual({event.lost for event in events[1:]}, {0})
        self.assertEqual([event.seq for event in events],
                         list(range(events[0].seq,
                                    events[0].seq + len(events))))

    def test_deleted(self):
        write("/sys/class/tlock/new_lock", "short")
        monitor = self.monitor("short")
        with TimeoutLock(path="short").acquire_timeout(0, "last"):
            pass
        gc.collect()
        write("/sys/class/tlock/delete_lock", "short")
        self.assertEqual([(event.kind, event.job, event.pid)
                          for event in monitor],
                         [("acquired", "last", os.getpid()),
                          ("released", "last", os.getpid()),
                          ("deleted", "", 0)])
        # It is still open, and at its end
        self.assertEqual(select.select([monitor], [], [], 0)[0], [monitor])
        self.assertEqual(list(monitor), [])
        # A new lock of this name is another one
        self.new_lock("short")
        self.assertEqual(list(monitor), [])
        self.assert_empty(self.monitor("short"))

    def test_deleted_during_a_wait(self):
        write("/sys/class/tlock/new_lock", "short")
        monitor = self.monitor("short")
        call = self.begin_next(monitor)
        write("/sys/class/tlock/delete_lock", "short")
        self.assertEqual(call.result().kind, "deleted")
        self.assertIsNone(next(monitor, None))

    def test_deleted_at_the_beginning(self):
        write("/sys/class/tlock/new_lock", "short")
        before = open_files()
        ioctl = _watch.ioctl

        def delete(*args):
            write("/sys/class/tlock/delete_lock", "short")
            return ioctl(*args)

        with mock.patch.object(_watch, "ioctl", delete):
            with self.assertRaises(FileNotFoundError):
                tlock.Monitor("short")
        self.assertEqual(open_files(), before)

    def test_which_lock(self):
        self.new_lock("other")
        with mock.patch.dict(os.environ, TLOCK="other"):
            monitors = [self.monitor(), tlock.Monitor(), self.monitor("other")]
        with TimeoutLock(path="other").acquire_timeout(0, "other"):
            self.assertEqual(self.next_of(monitors[2]).job, "other")
        self.assert_empty(monitors[0])
        self.assert_empty(monitors[1])
        self.assertEqual([monitor.path for monitor in monitors],
                         ["/dev/tlock", "/dev/tlock", "/dev/tlock-other"])
        monitors[2].close()
        before = open_files()
        for path, error in (("nosuchlock", FileNotFoundError),
                            ("/dev/null", OSError), ("", ValueError)):
            with self.assertRaises(error):
                tlock.Monitor(path)
        self.assertEqual(open_files(), before)

    def test_read_permission_is_enough(self):
        opens = os.open

        def only_reads(path, flags, *args):
            self.assertEqual(flags & os.O_ACCMODE, os.O_RDONLY, path)
            return opens(path, flags, *args)

        with mock.patch.object(os, "open", only_reads):
            self.monitor()
            tlock.waiters()


class Waits(WatchTestCase):
    def test_waits(self):
        monitor = self.monitor()
        lock = TimeoutLock()
        for job in "first", "second":
            call = self.begin_next(monitor)
            lock.acquire(0, job)
            self.assertEqual(kind_and_job(call.result()), ("acquired", job))
            call = self.begin_next(monitor)
            lock.release()
            self.assertEqual(kind_and_job(call.result()), ("released", job))

    def test_signal_handler_runs(self):
        """The wait goes on after it."""
        calls = []
        signal.signal(signal.SIGALRM, lambda *_: calls.append(len(calls)))
        monitor = self.monitor()
        lock = TimeoutLock()

        def disturb():
            for number in range(3):
                self.wait_until_asleep(os.getpid())
                os.kill(os.getpid(), signal.SIGALRM)
                self.wait_for(lambda: len(calls) > number, "handler")
            self.assertTrue(main_waits)
            lock.acquire(0, "after")

        main_waits = [True]
        call = Call(disturb)
        event = next(monitor)
        main_waits.clear()
        call.result()
        self.assertEqual(kind_and_job(event), ("acquired", "after"))
        self.assertEqual(calls, [0, 1, 2])
        lock.release()

    def test_keyboard_interrupt(self):
        """Ends the wait, and loses no event."""
        before = open_files()
        lock = TimeoutLock()
        with lock.acquire_timeout(0):
            opened = open_files() - before

            def interrupt():
                self.wait_until_asleep(os.getpid())
                os.kill(os.getpid(), signal.SIGINT)

            with tlock.Monitor() as monitor:
                call = Call(interrupt)
                try:
                    next(monitor)
                except KeyboardInterrupt:
                    lock.release()
                    self.assertEqual(next(monitor).kind, "released")
                    lock.acquire(0)
                call.result()
                call = Call(interrupt)
                try:
                    next(monitor)   # acquired
                    next(monitor)
                except KeyboardInterrupt:
                    # Even while the traceback exists
                    monitor.close()
                    self.assertEqual(open_files(), before + opened)
                call.result()

    def test_closed_by_another_thread(self):
        before = open_files()
        monitor = tlock.Monitor()
        calls = [self.begin_next(monitor) for _ in range(3)]
        opened = open_files() - before
        self.assertEqual(opened, 3)
        monitor.close()
        for call in calls:
            self.assertIsNone(call.result())
        self.assertEqual(open_files(), before)

    def test_closed_by_a_signal_handler(self):
        monitor = self.monitor()
        signal.signal(signal.SIGALRM, lambda *_: monitor.close())

        def send():
            self.wait_until_asleep(os.getpid())
            os.kill(os.getpid(), signal.SIGALRM)

        call = Call(send)
        self.assertEqual(list(monitor), [])
        call.result()

    def test_stays_open_during_a_call(self):
        """Another file never gets the descriptor that a thread reads."""
        before = open_files()
        monitor = tlock.Monitor()
        wait = _watch._wait
        files = []

        def close(fd, end):
            files.append(fd)
            Call(monitor.close).result()
            self.assertEqual(os.readlink("/proc/self/fd/%d" % fd),
                             "/dev/tlock")
            return wait(fd, end)

        with mock.patch.object(_watch, "_wait", close):
            self.assertIsNone(next(monitor, None))
        self.assertEqual(len(files), 1)
        self.assertEqual(open_files(), before)

    def test_close_can_be_repeated(self):
        """A signal handler's exception came at an unfortunate moment."""
        before = open_files()
        monitor = tlock.Monitor()
        call = self.begin_next(monitor)

        class Interrupted(list):
            def clear(self):
                raise KeyboardInterrupt

        files, monitor._files = monitor._files, Interrupted(monitor._files)
        with self.assertRaises(KeyboardInterrupt):
            monitor.close()
        monitor._files = files
        del files
        self.assertIsNone(call.result())
        self.assertIsNone(next(monitor, None))
        monitor.close()
        self.assertEqual(open_files(), before)


class Closing(WatchTestCase):
    def test_block(self):
        before = open_files()
        with tlock.Monitor() as monitor:
            with TimeoutLock().acquire_timeout(0, "inside"):
                self.assertEqual(next(monitor).job, "inside")
            fd = monitor.fileno()
            self.assertEqual(os.readlink("/proc/self/fd/%d" % fd),
                             "/dev/tlock")
            self.assertFalse(os.get_inheritable(fd))
        # Also if there is an event
        self.assertIsNone(next(monitor, None))
        self.assertEqual(list(monitor), [])
        with self.assertRaises(ValueError):
            monitor.fileno()
        monitor.close()
        gc.collect()
        self.assertEqual(open_files(), before)

    def test_dropped(self):
        before = open_files()
        monitor = tlock.Monitor()
        self.assertEqual(open_files(), before + 3)
        del monitor
        self.assertEqual(open_files(), before)

    def test_select(self):
        monitor = self.monitor()
        lock = TimeoutLock()
        call = Call(select.select, [monitor], [], [], LONG)
        lock.acquire(0)
        self.assertEqual(call.result()[0], [monitor])
        lock.release()
        # It is still readable when there is one more event
        self.assertEqual(self.next_of(monitor).kind, "acquired")
        self.assertEqual(self.next_of(monitor).kind, "released")
        self.assert_empty(monitor)

    def test_forked_child(self):
        """It has the object closed, and takes no event of its parent's."""
        lock = TimeoutLock()
        monitor = self.monitor()
        fds = [monitor.fileno(), *monitor._files[0].pipe]
        with lock.acquire_timeout(0, "parent"):
            pid = os.fork()
            if pid == 0:
                status = 1
                try:
                    left = [fd for fd in fds
                            if os.path.exists("/proc/self/fd/%d" % fd)]
                    status = 0 if not left and not list(monitor) else 2
                    monitor.close()
                    # Its own one
                    with tlock.Monitor() as own:
                        lock.acquire(0, "child")
                        status |= next(own).job != "child"
                finally:
                    os._exit(status)
            self.assertEqual(os.waitpid(pid, 0)[1], 0)
        self.assertEqual([kind_and_job(self.next_of(monitor)) for _ in range(3)],
                         [("acquired", "parent"), ("timed-out", "child"),
                          ("released", "parent")])
        call = self.begin_next(monitor)
        monitor.close()
        self.assertIsNone(call.result())


if __name__ == "__main__":
    ktap.main()
