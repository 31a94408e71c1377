# SPDX-License-Identifier: LGPL-2.1-or-later
"""Runs an agent of OCS, unchanged, with the TimeoutLock of tlock.

usage: python3 -m tlock.ocs AGENT.py [ARGUMENT]...
       python3 -m tlock.ocs -m MODULE [ARGUMENT]...

Like "python3 AGENT.py ARGUMENT..." or "python3 -m MODULE ARGUMENT...", but
ocs.ocs_twisted.TimeoutLock is the class of tlock, however the agent imports it.
Everything else is OCS's own. AGENT.py is any file of Python code, such as
ocs-agent-cli, with its path.

TLOCK in the environment names the agent's lock, as in TLOCK=psu. For an agent
that has several, it lists them, as in TLOCK=psu,stage, in the order in which
the agent makes its TimeoutLock objects. Without it, the lock is the first one,
/dev/tlock.

When the agent imports the module of the class, a line on standard error says so
and names the lock. If the lock cannot be opened, or this Python does not find
OCS or the agent, the program ends at once, with exit status 2.

Other programs that the agent starts use OCS's own class. So do the processes
that multiprocessing spawns instead of forking, unless the agent passes them a
lock.
"""
import builtins
import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
from importlib.machinery import ModuleSpec
from types import CodeType, ModuleType, TracebackType
from typing import List, NoReturn, Optional, Sequence, Tuple, Type

from tlock import TimeoutLock, _device

_MODULE = "ocs.ocs_twisted"
_CLASS = "TimeoutLock"


class _Loader(importlib.abc.Loader):
    """Loads the module of OCS by its own loader, and replaces the class."""

    def __init__(self, loader: importlib.abc.Loader, locks: str) -> None:
        self._loader = loader
        self._locks = locks

    def create_module(self, spec: ModuleSpec) -> Optional[ModuleType]:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        # Nothing but the class shows that we were here
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        setattr(module, _CLASS, TimeoutLock)
        print("tlock.ocs: %s.%s is tlock's now, for %s" %
              (_MODULE, _CLASS, self._locks), file=sys.stderr, flush=True)


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the module of OCS as the other finders do."""

    def __init__(self, locks: str) -> None:
        self._locks = locks

    def find_spec(self, fullname: str, path: Optional[Sequence[str]],
                  target: Optional[ModuleType] = None) -> Optional[ModuleSpec]:
        if fullname != _MODULE:
            return None
        for finder in sys.meta_path:
            find = getattr(finder, "find_spec", None)
            if finder is self or find is None:
                continue
            spec: Optional[ModuleSpec] = find(fullname, path, target)
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = _Loader(spec.loader, self._locks)
                return spec
        return None


def _fail(text: str) -> NoReturn:
    print("tlock.ocs: " + text, file=sys.stderr)
    sys.exit(2)


def _code(spec: Optional[ModuleSpec]) -> Optional[CodeType]:
    """The code of a module, without running it; None if it has none"""
    get_code = getattr(spec and spec.loader, "get_code", None)
    if spec is None or get_code is None:
        return None
    code: Optional[CodeType] = get_code(spec.name)
    return code


def _check_ocs() -> None:
    """Checks that there is a class to replace, without importing OCS."""
    package = importlib.util.find_spec("ocs")
    if package is None:
        _fail("OCS is not installed for this Python, %s: there is no package "
              "ocs in its sys.path" % sys.executable)
    places = list(package.submodule_search_locations or [])
    code = _code(importlib.machinery.PathFinder.find_spec(_MODULE, places))
    # Among the names that a module's own code uses is each that it defines
    if code is None or _CLASS not in code.co_names:
        _fail("the package %s has no class %s.%s" %
              (", ".join(places) or package.origin, _MODULE, _CLASS))


def _check_locks() -> List[str]:
    """Checks that the agent can open its locks, and returns their paths."""
    try:
        paths = _device.default_paths()
        for path in paths:
            _device.open_contender(path).close()
        return paths
    except OSError as error:
        _fail("%s: %s" % (error.filename, error.strerror))
    except ValueError as error:
        _fail(str(error))


def _find_script(path: str) -> Tuple[CodeType, ModuleType]:
    """The code of a file, and the module __main__ for it"""
    main = ModuleType("__main__")
    # As in "python3 AGENT.py"
    file = path if sys.version_info < (3, 9) else os.path.join(os.getcwd(), path)
    loader = importlib.machinery.SourceFileLoader("__main__", file)
    try:
        data = loader.get_data(file)
    except OSError as error:
        _fail("%s: %s" % (path, error.strerror))
    main.__file__ = file
    main.__loader__ = loader
    return loader.source_to_code(data, file), main


def _find_module(name: str) -> Tuple[CodeType, ModuleType]:
    """The code of a module, and the module __main__ for it"""
    spec = None
    try:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.submodule_search_locations is not None:
            spec = importlib.util.find_spec(name + ".__main__")
    except ModuleNotFoundError as error:
        # Rather than one that its package needs
        if not (name + ".").startswith("%s." % error.name):
            raise
        spec = None
    code = _code(spec)
    if spec is None or code is None:
        _fail("this Python, %s, finds no module %s to run" %
              (sys.executable, name))
    main = importlib.util.module_from_spec(spec)
    main.__name__ = "__main__"
    sys.argv[0] = spec.origin or name
    return code, main


def _run(code: CodeType, main: ModuleType) -> None:
    default = sys.excepthook

    def excepthook(kind: Type[BaseException], value: BaseException,
                   traceback: Optional[TracebackType]) -> None:
        """Has the traceback begin at the agent's code."""
        own = traceback
        while own is not None and own.tb_frame.f_code is not code:
            own = own.tb_next
        if own is not None:
            value = value.with_traceback(own)
        default(kind, value, own or traceback)

    sys.excepthook = excepthook
    setattr(main, "__builtins__", builtins)
    sys.modules["__main__"] = main
    # pylint: disable=exec-used
    exec(code, main.__dict__)


def _main(arguments: List[str]) -> None:
    if arguments[:1] == ["--help"]:
        print((__doc__ or "").rstrip())
        return
    find = _find_module if arguments[:1] == ["-m"] else _find_script
    sys.argv = arguments[1:] if find is _find_module else arguments
    if not sys.argv or sys.argv[0].startswith("-"):
        _fail("usage: python3 -m tlock.ocs [--help] AGENT.py|-m MODULE "
              "[ARGUMENT]...")
    # As in "python3 AGENT.py"
    if find is _find_script and not (sys.flags.isolated or
                                     getattr(sys.flags, "safe_path", False)):
        sys.path[0] = os.path.dirname(os.path.realpath(sys.argv[0]))
    _check_ocs()
    sys.meta_path.insert(0, _Finder(", ".join(_check_locks())))
    _run(*find(sys.argv[0]))


if __name__ == "__main__":
    _main(sys.argv[1:])
