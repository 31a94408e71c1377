#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""tlock.ocs: agents of OCS that run unchanged, with our class."""
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile

import ktap  # first: finds this tree's package
import tlock
from helper import LONG, TestCase, environment

# A package ocs of the same shape as OCS's, and an agent
STANDIN = os.path.join(ktap.PYTHON_DIR, "tests", "standin")
AGENT = os.path.join(STANDIN, "acquire.py")

NOTE = "tlock.ocs: ocs.ocs_twisted.TimeoutLock is tlock's now, for %s\n"


class OcsTestCase(TestCase):
    def setUp(self):
        super().setUp()
        self.directory = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.directory)

    def path(self, name):
        return os.path.join(self.directory, name)

    def write(self, name, text):
        """Writes a program, and returns its path."""
        path = self.path(name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write(text)
        return path

    def environment(self, places=(STANDIN,), **more):
        found = environment(**more)
        found["PYTHONPATH"] = os.pathsep.join([ktap.PYTHON_DIR, *places])
        return found

    def start(self, *arguments, runner=("-m", "tlock.ocs"), **settings):
        process = subprocess.Popen(
            [sys.executable, *runner, *arguments], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            universal_newlines=True, cwd=self.directory,
            env=self.environment(**settings))
        self.addCleanup(process.wait)
        for pipe in process.stdin, process.stdout, process.stderr:
            self.addCleanup(pipe.close)
        self.addCleanup(process.kill)
        return process

    def run_to_end(self, *arguments, **settings):
        """Returns a program's exit status and what it writes."""
        process = self.start(*arguments, **settings)
        output, errors = process.communicate(timeout=LONG)
        return process.returncode, output, errors

    def run_text(self, text, *arguments, **settings):
        return self.run_to_end(self.write("agent.py", text), *arguments,
                               **settings)


class Replaced(OcsTestCase):
    """Which class an agent sees"""

    def test_however_it_is_imported(self):
        ways = ("from ocs.ocs_twisted import TimeoutLock as it",
                "from ocs.ocs_twisted import *; it = TimeoutLock",
                "import ocs.ocs_twisted; it = ocs.ocs_twisted.TimeoutLock",
                "import ocs.ocs_twisted as t; it = t.TimeoutLock",
                "from ocs import ocs_twisted as t; it = t.TimeoutLock",
                "from ocs.ocs_agent import TimeoutLock as it",
                "import ocs.ocs_agent; it = ocs.ocs_twisted.TimeoutLock",
                "from ocs.ocs_agent import OCSAgent; it = type(OCSAgent().lock)",
                "import importlib; it = importlib.import_module("
                "'ocs.ocs_twisted').TimeoutLock")
        program = """
import sys
for way in %r:
    # Each is the first import
    for name in [name for name in sys.modules if name.startswith("ocs")]:
        del sys.modules[name]
    exec(way)
    print(it.__module__)
""" % (ways,)
        self.assertEqual(
            self.run_text(program),
            (0, "tlock._lock\n" * len(ways), NOTE % "/dev/tlock" * len(ways)))
        # Without us, it is another
        self.assertEqual(self.run_text(program, runner=()),
                         (0, "ocs.ocs_twisted\n" * len(ways), ""))

    def test_imported_by_many(self):
        self.assertEqual(self.run_text("""
import importlib
import tlock
from ocs import ocs_agent, ocs_twisted
from ocs.ocs_twisted import TimeoutLock
print(TimeoutLock is ocs_agent.TimeoutLock is ocs_twisted.TimeoutLock
      is tlock.TimeoutLock)
importlib.reload(ocs_twisted)
print(ocs_twisted.TimeoutLock is TimeoutLock)
"""), (0, "True\nTrue\n", 2 * (NOTE % "/dev/tlock")))

    def test_the_rest_is_ocss_own(self):
        program = """
import inspect, pprint
from ocs import ocs_twisted
del ocs_twisted.TimeoutLock
names = vars(ocs_twisted)
del names["__builtins__"]
for name in "__loader__", "__spec__":
    names[name] = type(names[name])
pprint.pprint({name: str(value).split(" at ")[0]
               for name, value in names.items()})
print(ocs_twisted.Pacemaker.__doc__, inspect.getsource(ocs_twisted))
"""
        expected = self.run_text(program, runner=())
        self.assertEqual(expected[::2], (0, ""))
        self.assertEqual(self.run_text(program)[1], expected[1])

    def test_nothing_is_imported_before_the_agent_does(self):
        self.assertEqual(self.run_text("""
import sys
print([name for name in sys.modules if name.split(".")[0] == "ocs"])
"""), (0, "[]\n", ""))


class AsPython(OcsTestCase):
    """A program sees nothing else of us"""

    def assert_same(self, *arguments, status=0, **settings):
        """Asserts that a program does the same with and without us."""
        expected = self.run_to_end(*arguments, runner=(), **settings)
        self.assertEqual(expected[0], status, expected)
        # With -m, a traceback shows how Python itself got there
        errors = re.sub('  File ".*runpy.*\n(    .*\n)*', "", expected[2])
        self.assertEqual(self.run_to_end(*arguments, **settings),
                         (*expected[:2], errors))

    # What a program can see
    LOOK = """
import os, sys
print(__name__, sys.argv, sys.path, os.getcwd())
print(sys.modules["__main__"].__dict__ is globals(), type(__builtins__))
print(__file__, __package__, __doc__, type(__loader__).__name__)
print(__spec__ and (__spec__.name, __spec__.origin, __spec__.parent))
print(getattr(sys, "flags"), sys.stdin.read())
"""

    def test_script(self):
        self.write("there/agent.py", "'''Text'''\n" + self.LOOK)
        os.symlink("there/agent.py", self.path("link"))
        os.mkdir(self.path("other"))
        os.symlink("../there", self.path("other/link"))
        for path in ("there/agent.py", "there/../link",
                     self.path("other/link/agent.py")):
            self.assert_same(path, "-m", "--help", "x y", "")

    def test_module(self):
        self.write("one.py", self.LOOK)
        self.write("package/__init__.py", "import sys\nprint(sys.argv[1:])\n")
        self.write("package/inner.py", "from . import other\n" + self.LOOK)
        self.write("package/other.py", "")
        self.write("package/__main__.py", "from . import other\n" + self.LOOK)
        for name in "one", "package.inner", "package":
            self.assert_same("-m", name, "-m", "--help", "x y", "")

    def test_script_without_its_directory_in_the_path(self):
        """-I, and -P from Python 3.11 on"""
        path = self.write("agent.py", "import sys\nprint(sys.path)\n")
        begin = "import sys; sys.path += %r;" % [ktap.PYTHON_DIR, STANDIN]
        for run in ("import runpy; sys.argv[1:] = %r;"
                    "runpy.run_module('tlock.ocs', run_name='__main__', "
                    "alter_sys=True)" % [path], "exec(open(%r).read())" % path):
            done = subprocess.run([sys.executable, "-I", "-c", begin + run],
                                  stdout=subprocess.PIPE, check=True,
                                  universal_newlines=True)
            self.assertNotIn(self.directory, done.stdout)
            self.assertIn(STANDIN, done.stdout)

    def test_end(self):
        for text, status in (
                ("import sys\nsys.exit(3)", 3),
                ("raise SystemExit('text')", 1),
                ("def f():\n    raise KeyError('key')\nf()", 1),
                ("try:\n    1 / 0\nexcept ZeroDivisionError:\n    f()", 1),
                ("raise KeyboardInterrupt", -signal.SIGINT),
                ("import sys\n"
                 "sys.excepthook = lambda *error: print('hook', error[1])\n"
                 "raise KeyError", 1)):
            with self.subTest(text):
                self.assert_same(self.write("agent.py", text), status=status)
        self.assert_same("-m", "agent", status=1)

    def test_what_outlives_the_main_thread(self):
        self.assert_same(self.write("agent.py", """
import atexit, pickle, threading

x = "text"

class It:
    def __del__(self):
        print("gone", x)

def at_exit():
    import __main__
    print(__main__.x, x, type(pickle.loads(pickle.dumps(it))) is It)

def run():
    threading.main_thread().join()
    at_exit()

it = It()
atexit.register(at_exit)
threading.Thread(target=run).start()
"""))

    def test_syntax_error(self):
        status, _, errors = self.run_text("print(1)\nx = = 1\n")
        self.assertEqual(status, 1)
        self.assertIn("agent.py\", line 2", errors)
        self.assertIn("SyntaxError", errors)

    def test_keyboard_interrupt(self):
        # It may be ignored here, which programs would inherit
        self.addCleanup(signal.signal, signal.SIGINT,
                        signal.signal(signal.SIGINT, signal.SIG_DFL))
        process = self.start(self.write("agent.py", """
import time
from ocs.ocs_twisted import TimeoutLock
with TimeoutLock().acquire_timeout(0, job="acq"):
    print("acquiring", flush=True)
    time.sleep(1000)
"""))
        self.assertEqual(process.stdout.readline(), "acquiring\n")
        self.assert_job("acq")
        process.send_signal(signal.SIGINT)
        errors = process.communicate(timeout=LONG)[1]
        self.assertIn("\nKeyboardInterrupt", errors)
        self.assertEqual(process.returncode, -signal.SIGINT)
        # It was released in good order
        lock = tlock.TimeoutLock()
        self.assertTrue(lock.acquire(0))
        self.assertFalse(lock.abandoned)
        lock.release()

    def test_processes_of_multiprocessing(self):
        program = """
import multiprocessing, sys
from ocs.ocs_twisted import TimeoutLock

class Result(str):
    pass

def work(queue, lock):
    queue.put(Result(TimeoutLock.__module__))
    queue.put(lock.acquire(0))

if __name__ == "__main__":
    lock = TimeoutLock()
    context = multiprocessing.get_context(sys.argv[1])
    queue = context.SimpleQueue()
    with lock.acquire_timeout(0) as acquired:
        print(bool(acquired))
        process = context.Process(target=work, args=(queue, lock))
        process.start()
        print(queue.get(), queue.get())
        process.join()
"""
        path = self.write("agent.py", program)
        for method, module in (("fork", "tlock._lock"),
                               # The documentation says so
                               ("spawn", "ocs.ocs_twisted"),
                               ("forkserver", "ocs.ocs_twisted")):
            with self.subTest(method):
                self.assertEqual(
                    self.run_to_end(path, method),
                    (0, "True\n%s False\n" % module, NOTE % "/dev/tlock"))
        self.assertEqual(self.run_to_end("-m", "agent", "spawn")[:2],
                         (0, "True\nocs.ocs_twisted False\n"))


class Errors(OcsTestCase):
    """Exit status 2, and one line on standard error"""

    def assert_fails(self, pattern, *arguments, **settings):
        status, output, errors = self.run_to_end(*arguments, **settings)
        self.assertEqual((status, output), (2, ""), errors)
        self.assertRegex(errors, "^tlock\\.ocs: .*%s.*\n$" % pattern)

    def setUp(self):
        super().setUp()
        self.agent = self.write("agent.py", "print('runs')")

    def test_usage(self):
        status, output, errors = self.run_to_end("--help")
        self.assertEqual((status, errors), (0, ""))
        self.assertIn("usage: python3 -m tlock.ocs AGENT.py", output)
        for arguments in (), ("-m",), ("--bogus",), ("-c", "pass"):
            self.assert_fails("usage: ", *arguments)

    def test_ocs_is_not_installed(self):
        for places in (), (self.directory,):
            self.assert_fails("OCS is not installed for this Python, %s:" %
                              re.escape(sys.executable),
                              self.agent, places=places)
        self.assert_fails("OCS is not installed", "-m", "agent", places=())

    def test_ocs_has_no_such_class(self):
        text = "the package .* has no class ocs.ocs_twisted.TimeoutLock"
        self.write("ocs.py", "")
        self.assert_fails(text, self.agent, places=())
        os.unlink(self.path("ocs.py"))
        self.write("ocs_twisted.py", "class TimeoutLock: pass")
        self.write("ocs/__init__.py", "print('imported')")
        self.assert_fails(text, self.agent, places=())
        self.write("ocs/ocs_twisted.py", "print('imported')")
        self.assert_fails(text, self.agent, places=())
        self.write("ocs/ocs_twisted.py", "class TimeoutLock: pass")
        self.assertEqual(self.run_to_end(self.agent, places=()),
                         (0, "runs\n", ""))

    def test_no_agent(self):
        self.assert_fails("nosuch.py: No such file", "nosuch.py")
        self.assert_fails("Is a directory", self.directory)
        for name in "nosuch", "nosuch.agent", "ocs.nosuch", "ocs", "email":
            self.assert_fails("finds no module %s to run" % name, "-m", name)
        # What the module itself lacks is another matter
        self.write("package/__init__.py", "print(__name__)\nimport nosuch")
        status, output, errors = self.run_to_end("-m", "package")
        self.assertEqual((status, output), (1, "package\n"))
        self.assertIn("No module named 'nosuch'", errors)

    def test_no_lock(self):
        self.new_lock("a")
        for value in "nosuch", "a,nosuch", "nosuch,a":
            self.assert_fails("/dev/tlock-nosuch: no such lock", self.agent,
                              TLOCK=value)
        self.assert_fails("empty in TLOCK=a,,a", self.agent, TLOCK="a,,a")

    def test_no_permission(self):
        os.chmod(self.directory, 0o755)
        path = self.write("run.py", """
import os, runpy, sys
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
sys.argv[1:] = [%r]
runpy.run_module("tlock.ocs", run_name="__main__", alter_sys=True)
""" % self.agent)
        self.assert_fails("/dev/tlock: permission denied", path, runner=())


class Instruments(OcsTestCase):
    """Agents that never yield, each with its own instrument"""

    def setUp(self):
        super().setUp()
        self.new_lock("a", "b")

    def agent_of(self, locks, job, number=1):
        return self.start(AGENT, job, str(number), TLOCK=locks)

    def assert_ends(self, agent):
        output, errors = agent.communicate(timeout=LONG)
        self.assertEqual((agent.returncode, output), (0, "done\n"), errors)
        return errors

    def holder_of(self, lock):
        holder = tlock.status(lock).holder
        return holder and (holder.job, holder.pid)

    def test_two_agents_side_by_side(self):
        agents = {lock: self.agent_of(lock, "acq " + lock) for lock in "ab"}
        for lock, agent in agents.items():
            self.assertEqual(agent.stdout.readline(), "acquiring\n")
            self.assertEqual(self.holder_of(lock), ("acq " + lock, agent.pid))
        # A third one of the same instrument is refused
        self.assertEqual(self.run_to_end(AGENT, "c", "1", TLOCK="a"),
                         (1, "held by acq a\n", NOTE % "/dev/tlock-a"))
        for lock, agent in agents.items():
            self.assertEqual(self.assert_ends(agent),
                             NOTE % ("/dev/tlock-" + lock))
            self.assertEqual(tlock.status(lock)[:5], (
                None, 0, 1, 1 if lock == "a" else 0,
                1 if lock == "a" else 0))
        self.assertEqual(tlock.status("b").wait_ns_total, 0)

    def test_without_names_they_exclude_each_other(self):
        first = self.agent_of("", "first")
        self.assertEqual(first.stdout.readline(), "acquiring\n")
        self.assertEqual(self.run_to_end(AGENT, "second", "1"),
                         (1, "held by first\n", NOTE % "/dev/tlock"))
        self.assert_ends(first)

    def test_agent_of_two_instruments(self):
        agent = self.agent_of("b,a", "both", 2)
        self.assertEqual(agent.stdout.readline(), "acquiring\n")
        for lock in "ab":
            self.assertEqual(self.holder_of(lock), ("both", agent.pid))
        self.assertEqual(self.assert_ends(agent),
                         NOTE % "/dev/tlock-b, /dev/tlock-a")

    def test_agent_of_more_instruments_than_names(self):
        status, output, errors = self.run_to_end(AGENT, "job", "3",
                                                 TLOCK="a,b")
        self.assertEqual((status, output), (1, ""))
        self.assertIn("ValueError: TLOCK=a,b names 2 locks", errors)

    def test_agent_that_crashes(self):
        agent = self.agent_of("a", "acq")
        self.assertEqual(agent.stdout.readline(), "acquiring\n")
        agent.kill()
        agent.wait()
        lock = tlock.TimeoutLock(path="a")
        self.assertTrue(lock.acquire(LONG))
        self.assertTrue(lock.abandoned)
        lock.release()


if __name__ == "__main__":
    ktap.main()
