# SPDX-License-Identifier: LGPL-2.1-or-later
"""Why a lock cannot be opened, and what to do about it.

The same texts are in userlib/lib/explain.c, and userlib/tests/errors has an
example of each. They describe this host as it is now, so explain an error as
soon as it occurs.
"""
import errno
import fcntl
import glob
import grp
import os
import pwd
import re
import stat
from typing import Optional

_CLASS = "/sys/class/tlock"
_RULES = "/etc/udev/rules.d/60-tlock.rules"
# How many locks a text names
_MOST_LOCKS = 8
_NAME_SIZE = 128


def check_device(path: str, number: int, name: bytes) -> int:
    """Checks that a device is a lock, after its status was requested.

    number: 0, or the errno with which the request failed
    name: the name in the status

    Returns 0 or an errno.
    """
    # Other drivers return all sorts of errors for commands they don't know. If
    # this is a lock, the error comes from a sandbox that denies the command, or
    # from a module of another version.
    if number:
        return number if _is_lock(path) else errno.ENOTTY
    # A stale device file of a deleted lock can lead to another lock; a
    # container may have one. A symbolic link is an alias of any name.
    own = _own_name(path)
    if own and own != os.fsdecode(name) and not os.path.islink(path):
        return errno.ENXIO
    return 0


def explain(error: OSError, path: str, status: int) -> OSError:
    """Returns the error with a text that gives the reason and the remedy.

    The error is that of opening the lock; or it is ENOTTY or EINVAL, of a later
    call with valid arguments, which only an older module refuses.

    status: number of the STATUS ioctl
    """
    number = error.errno or 0
    if number in (errno.ENOENT, errno.ENXIO, errno.ENODEV, errno.ENOTTY):
        text = _missing(path, number, status)
        # Each of these becomes a FileNotFoundError
        if number != errno.ENOTTY:
            number = errno.ENOENT
    elif number == errno.ENOSYS or (number in (errno.EPERM, errno.EACCES) and
                                    _ioctl_denied(path, status)):
        text = ("a sandbox (seccomp, Landlock) denies ioctl(2) on the lock: "
                "allow it there (systemd: SystemCallFilter=, docker: "
                "--security-opt seccomp=)")
    elif number == errno.EACCES:
        text = _permission(path)
    elif number == errno.EPERM:
        text = ("devices are restricted here: allow this one for the "
                "container (docker: --device) or the service (systemd: "
                "DeviceAllow=)")
    elif number == errno.EINVAL and _is_lock(path):
        text = _other_version()
    elif number == errno.ENAMETOOLONG:
        text = ("the name is too long: a device's name has at most %d bytes" %
                (_NAME_SIZE - 1))
    else:
        text = os.strerror(number)
    return OSError(number, text, path)


def _own_name(path: str) -> str:
    """The name that the lock behind a path in /dev must have.

    Empty for any other path: a device file that somebody made elsewhere may
    have any name.
    """
    directory, name = os.path.split(path)
    if directory == "/dev" and (name == "tlock" or name.startswith("tlock-")):
        return name
    return ""


def _lock_name(name: str) -> str:
    """The name of the lock whose device is called name"""
    return name[len("tlock-"):] if name.startswith("tlock-") else name


def _may_exist(name: str) -> bool:
    """Whether the module creates a lock whose device is called name"""
    lock = _lock_name(name)
    return lock == name or (
        lock != "tlock" and not lock.startswith("tlock-") and
        re.fullmatch("[A-Za-z0-9][A-Za-z0-9#+.:=@_-]*", lock) is not None)


def _number(info: os.stat_result) -> str:
    """A device's number in the format of sysfs"""
    return "%d:%d" % (os.major(info.st_rdev), os.minor(info.st_rdev))


def _is_lock(path: str) -> bool:
    """Whether the device at path is a lock; False if there is no sysfs"""
    try:
        return "/tlock/" in os.readlink("/sys/dev/char/" +
                                        _number(os.stat(path)))
    except OSError:
        return False


def _read_line(path: str) -> str:
    """The first line of a file below /sys; empty if it cannot be read"""
    try:
        with open(path) as file:
            return file.readline().rstrip("\n")
    except OSError:
        return ""


def _module_loaded() -> bool:
    # A module that is unloaded loses its device files first. The first lock
    # exists as long as the module is loaded.
    return (_read_line("/sys/module/tlock/initstate") != "going" and
            os.path.exists(_CLASS + "/tlock"))


def _module_installed(release: str) -> bool:
    """Whether modprobe finds the module for this kernel release; "*": any"""
    for path in glob.glob("/lib/modules/%s/modules.dep" % release):
        try:
            with open(path, errors="replace") as file:
                # "updates/dkms/tlock.ko.xz:" and its dependencies
                if any("/tlock.ko" in line for line in file):
                    return True
        except OSError:
            pass
    return False


def _signatures_enforced() -> bool:
    """Whether the kernel refuses a module without a trusted signature"""
    lockdown = _read_line("/sys/kernel/security/lockdown")
    return (_read_line("/sys/module/module/parameters/sig_enforce") == "Y" or
            (lockdown != "" and "[none]" not in lockdown))


def _module() -> str:
    """Why the module is not loaded"""
    if _module_installed(os.uname().release):
        text = ("the tlock module is not loaded: as root, run 'modprobe "
                "tlock'")
    elif _module_installed("*") or os.path.exists("/var/lib/dkms/tlock"):
        text = ("the tlock module is not built for this kernel: as root, "
                "install linux-headers-$(uname -r), build it again (with "
                "dkms: 'dkms autoinstall') and run 'modprobe tlock'")
    else:
        text = ("the tlock module is not loaded: as root, for a container on "
                "its host, run 'insmod tlock.ko' or, where it is installed, "
                "'modprobe tlock'")
    if _signatures_enforced():
        text += ("; if that says 'Key was rejected by service' or 'Operation "
                 "not permitted', the kernel does not trust the module's "
                 "signature (Secure Boot): enroll the key (of dkms: 'mokutil "
                 "--import /var/lib/dkms/mok.pub' with a new password), "
                 "reboot, and select 'Enroll MOK'")
    return text


def _locks(before: str) -> str:
    """A list of the locks that exist, after before if there are any"""
    try:
        # The class has other files, too
        names = sorted(name for name in os.listdir(_CLASS)
                       if name == "tlock" or name.startswith("tlock-"))
    except OSError:
        return ""
    if len(names) > _MOST_LOCKS:
        names[_MOST_LOCKS:] = ["..."]
    if not names:
        return ""
    return before + "the locks of this host are " + ", ".join(names)


def _no_lock(name: str) -> str:
    """How to make a lock, by its device's name; empty: not one in /dev"""
    if not name:
        return "no such lock" + _locks(": ")
    if not _may_exist(name):
        return ("no lock can have this name: names have 1 to %d of A-Z a-z "
                "0-9 # + - . : = @ _, and begin with a letter or digit, but "
                "not with tlock-" % (_NAME_SIZE - 1 - len("tlock-")) +
                _locks("; "))
    return ("no such lock: as root, for a container on its host, run 'tlock "
            "create %s'; to have it after each boot, put 'options tlock "
            "names=%s' into a file in /etc/modprobe.d" %
            (_lock_name(name), _lock_name(name)) + _locks("; "))


def _other_version() -> str:
    return ("the tlock module, version %s, does not know this program's "
            "ioctls: install the module and the library or package of the "
            "same version, and load it: reboot, or run 'rmmod tlock && "
            "modprobe tlock' as root" %
            _read_line("/sys/module/tlock/version"))


def _kind_of_file(mode: int) -> str:
    return {stat.S_IFREG: "a regular file",
            stat.S_IFDIR: "a directory",
            stat.S_IFIFO: "a FIFO",
            stat.S_IFSOCK: "a socket"}.get(stat.S_IFMT(mode),
                                           "a block device")


def _missing(path: str, number: int, status: int) -> str:
    """Why path does not lead to the lock"""
    info: Optional[os.stat_result] = None
    try:
        info = os.stat(path)
    except OSError:
        pass
    own_name = _own_name(path)
    if info and not stat.S_ISCHR(info.st_mode) and own_name:
        return ("%s is in the place of the device (docker's -v makes one if "
                "the device is missing): as root, for a container on its "
                "host, remove it and load the tlock module again" %
                _kind_of_file(info.st_mode))
    if info and number == errno.ENOTTY and _is_lock(path):
        return _other_version()
    if info and number == errno.ENOTTY and not own_name:
        return "not a tlock" + _locks(": ")
    if info and number == errno.ENXIO and own_name:
        leads_to = _look(path, status)
        if leads_to and leads_to != own_name:
            lock = _lock_name(leads_to)
            return ("the device file leads to another lock, %s: pass a lock "
                    "into a container under its own name (docker: --device "
                    "/dev/%s) and choose it there by TLOCK=%s (tlock run: -d "
                    "%s); if the file is stale, start the container again "
                    "or, elsewhere, remove it and load the tlock module "
                    "again" % (leads_to, leads_to, lock, lock))
    if not os.path.exists("/sys/class"):
        return ("no such device: load the tlock module (as root, for a "
                "container on its host: 'insmod tlock.ko' or, where it is "
                "installed, 'modprobe tlock'); in a container, pass the "
                "device in (docker: --device)")
    if not _module_loaded():
        return _module()
    should_be = _read_line("%s/%s/dev" % (_CLASS, os.path.basename(path)))
    if not should_be:
        return _no_lock(own_name)
    if not info:
        return ("the lock is there, but its device file is missing: in a "
                "container, pass the device in (docker: --device); "
                "elsewhere, load the tlock module again")
    if _number(info) != should_be:
        return ("the device file is stale: it leads to device %s, but the "
                "lock is device %s: in a container, pass that in and start "
                "it again; elsewhere, remove the file and load the tlock "
                "module again" % (_number(info), should_be))
    return "the lock was not there, but is now: try again"


def _look(path: str, status: int) -> Optional[str]:
    """The name that the lock at path gives; None: the file cannot be opened

    Empty if the request fails.
    """
    # The command number contains the size of the structure, which ends with
    # the name
    buffer = bytearray(status >> 16 & 0x3fff)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return None
    try:
        fcntl.ioctl(fd, status, buffer)
    except OSError:
        return ""
    finally:
        os.close(fd)
    return os.fsdecode(bytes(buffer[-_NAME_SIZE:]).split(b"\0")[0])


def _ioctl_denied(path: str, status: int) -> bool:
    """Whether a sandbox lets us open the lock, but denies its ioctls"""
    return _is_lock(path) and _look(path, status) == ""


def _permission(path: str) -> str:
    """Why we may not open a device"""
    try:
        info = os.stat(path)
    except OSError:
        return ("permission denied: a directory on the way to it may not be "
                "searched")
    if os.access(path, os.R_OK | os.W_OK, effective_ids=True):
        return ("permission denied, though the file's mode permits it: look "
                "for a mount with the option nodev, or a security module "
                "(AppArmor, SELinux) that denies it")
    if info.st_gid and info.st_mode & 0o060 == 0o060:
        return _user_and_group(info.st_gid)
    if os.path.exists(_RULES):
        return ("permission denied: only root may take this lock, but %s is "
                "there: have it give the lock to a group and, as root, run "
                "'udevadm control --reload; udevadm trigger -s tlock'" %
                _RULES)
    return ("permission denied: only root may take this lock: as root, put "
            "SUBSYSTEM==\"tlock\", GROUP=\"dialout\", MODE=\"0664\" into %s "
            "and run 'udevadm control --reload; udevadm trigger -s tlock'" %
            _RULES)


def _user_and_group(gid: int) -> str:
    """How our user can become a member, with the names of this host"""
    try:
        user = pwd.getpwuid(os.geteuid())
        group = grp.getgrgid(gid).gr_name
    except KeyError:
        return ("permission denied: the group %d may take this lock: run the "
                "container with it (docker: --group-add %d)" % (gid, gid))
    if gid in os.getgrouplist(user.pw_name, user.pw_gid):
        return ("permission denied: %s is in the group %s, which may take "
                "this lock, but was not when this session began: log in "
                "again, or restart the service" % (user.pw_name, group))
    return ("permission denied: the group %s may take this lock: as root, "
            "run 'adduser %s %s'; then log in again, or restart the service" %
            (group, user.pw_name, group))
