"""The small program that puts one more process into a run's sandbox, as the job would be there.

Run as ``python -I -S enter.py SOCKET`` it waits, loaded, and forks for each command that is asked for. The
fork joins the namespaces of the run's first process and forks again, and that child becomes the job's user
under the job's limits, loses every capability, takes the run's system call filter and starts the command. Its
parent stays outside the run's process namespace, passes signals on, says how the command ended, and ends with
whoever asked; the child ends with the parent.

Between joining and dropping its rights no process of the job may look into this one: it can't be dumped,
which closes /proc and ptrace to others, and its command line, which all may read, is blanked. What the child
holds open is its three streams; a terminal is made inside the sandbox, and its other end sent out.

Standard library only, as the shim is, and everything is imported while the node's files are still there.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import resource
import select
import signal
import socket
import stat
import struct
import sys
import termios
from typing import Any

NAMESPACES = {
    "user": 0x10000000,
    "mnt": 0x00020000,
    "pid": 0x20000000,
    "net": 0x40000000,
    "ipc": 0x08000000,
    "uts": 0x04000000,
    "cgroup": 0x02000000,
}
"""CLONE_NEW* of linux/sched.h, by their names under /proc/PID/ns."""
OWN = ("user", "mnt", "pid", "net", "ipc", "uts")
"""The run must have all of these to itself: were one the node's, an entered process would be in the node."""

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_CAPBSET_DROP = 1, 4, 22, 24
PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 38, 47, 4
SECCOMP_MODE_FILTER = 2
CAPABILITY_VERSION_3 = 0x20080522
CAPABILITIES_MAX = 64
TIOCSPTLCK, TIOCGPTPEER = 0x40045431, 0x5441
PTMX = (5, 2)
"""Major and minor number of the device that makes terminals (devices.txt of the kernel)."""
EXIT_NOT_FOUND, EXIT_NOT_EXECUTABLE = 127, 126
"""As shells have them."""
MESSAGE_BYTES = 4096
FILES = 5
"""Descriptors of one order."""
SIGNALS = {"INT", "TERM", "HUP", "QUIT", "KILL", "USR1", "USR2", "CONT", "TSTP"}

_libc = ctypes.CDLL(None, use_errno=True)


class CantEnter(Exception):
    """The run can't be entered; the message is for the renter and names nothing of the node."""

    def __init__(self, message: str, code: int = EXIT_NOT_EXECUTABLE) -> None:
        super().__init__(message)
        self.code = code


def serve(number: int) -> None:
    """Enter for each (control socket, plan, three streams) that arrives as descriptors, until it closes."""
    _hide()
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    asker = socket.socket(fileno=number)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel itself then takes leave of our children
    while True:
        asked, files, _, _ = socket.recv_fds(asker, 1, FILES)
        if not asked:
            return
        if os.fork() == 0:
            asker.close()
            _enter_once(*files)
        for each in files:
            os.close(each)


def _enter_once(control_number: int, plan_number: int, *streams: int) -> None:
    """In the forked child: enter as the plan says; the answer goes to the socket alone. Never returns."""
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        os.setsid()
        for target, each in enumerate(streams):
            os.dup2(each, target)
            os.close(each)
        control = socket.socket(fileno=control_number)
        with open(plan_number, "rb") as file:
            plan = json.load(file)
        _answer(control, plan)
    finally:
        os._exit(0)


def _answer(control: socket.socket, plan: dict[str, Any]) -> None:
    try:
        child = _enter(plan, control)
        _say(control, {"started": True})
        _watch(child, control, plan)
    except CantEnter as error:
        _say(control, {"error": str(error), "code": error.code})
    except OSError as error:
        _say(control, {"error": f"the sandbox of this run can't be entered: {error.strerror}"})


def _hide() -> None:
    _prctl(PR_SET_DUMPABLE, 0)
    fields = _read("/proc/self/stat").rpartition(")")[2].split()
    start, end = int(fields[45]), int(fields[46])  # arg_start and arg_end, fields 48 and 49 of proc(5)
    if 0 < start < end:
        ctypes.memset(start, 0, end - start)


def _enter(plan: dict[str, Any], control: socket.socket) -> int:
    """Join, fork, and see the child start its command; the child's pid as the node sees it."""
    # What lies on the node is opened before the sandbox's files are all that is left.
    joins = [os.open(path, os.O_WRONLY | os.O_CLOEXEC) for path in plan["joins"]]
    program = _filter(plan["seccomp"])
    target = os.pidfd_open(plan["pid"])
    _check_is(plan["pid"], plan["start_ticks"])
    flags = 0
    for name, flag in NAMESPACES.items():
        theirs, ours = (os.stat(f"/proc/{pid}/ns/{name}").st_ino for pid in (plan["pid"], "self"))
        if theirs != ours:
            flags |= flag
        elif name in OWN:
            raise CantEnter("this run shares something with its node, and is not entered")
    root = os.stat(f"/proc/{plan['pid']}/root/")
    _check_is(plan["pid"], plan["start_ticks"])
    if os.geteuid() == 0:
        os.setgroups([])
    if _libc.setns(target, flags) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    os.close(target)
    if os.path.samestat(root, os.stat("/")) is False:
        raise CantEnter("the sandbox of this run is not what it was")
    _prctl(PR_SET_DUMPABLE, 0)  # joining has changed the credentials, and with them this
    news, failure = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        _become(plan, control, joins, program, failure)
    for each in (*joins, failure):
        os.close(each)
    with open(news, "rb") as file:
        said = file.read(MESSAGE_BYTES)  # nothing, and the end, once the command has begun
    if said:
        os.waitpid(child, 0)
        code, _, text = said.decode().partition(" ")
        raise CantEnter(text, int(code))
    return child


def _check_is(pid: int, start_ticks: int) -> None:
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    if not fields or int(fields[19]) != start_ticks or fields[0] in "ZX":
        raise CantEnter("the run has ended")


def _become(
    plan: dict[str, Any], control: socket.socket, joins: list[int], program: bytes | None, failure: int
) -> None:
    """In the child: the limits, the user, no rights, the streams, the filter, the command. Never returns."""
    name = plan["argv"][0]
    try:
        for each in joins:
            os.write(each, b"0")
        os.setsid()
        _limit(plan)
        _drop(plan["uid"])
        os.umask(0o022)
        try:
            os.chdir(plan["cwd"])
        except OSError:
            os.chdir("/")
        if plan["terminal"] is not None:
            _make_terminal(plan["terminal"], control)
        _close_all_but({0, 1, 2, control.fileno(), failure})
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if select.select([control], [], [], 0)[0]:
            os._exit(EXIT_NOT_EXECUTABLE)  # whoever asked is gone, and so may be our parent
        control.close()
        for number in signal.valid_signals():  # Python ignores two, a shell what it starts in the background
            if signal.getsignal(number) is signal.SIG_IGN:
                signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        _prctl(PR_SET_NO_NEW_PRIVS, 1)
        if program is not None:
            _load(program)
        argv = plan["argv"]
        if "handed" in plan:
            argv = [each.replace("{handed}", _hand(plan["handed"])) for each in argv]
        _exec(argv, plan["env"])
    except FileNotFoundError:
        os.write(failure, f"{EXIT_NOT_FOUND} there is no {name!r} in this sandbox".encode())
    except OSError as error:
        os.write(failure, f"{EXIT_NOT_EXECUTABLE} {name!r} can't be started: {error.strerror}".encode())
    except BaseException as error:
        os.write(failure, f"{EXIT_NOT_EXECUTABLE} {name!r} can't be started: {error!r}".encode())
    finally:
        os._exit(EXIT_NOT_EXECUTABLE)


def _limit(plan: dict[str, Any]) -> None:
    try:
        # One and not zero, as `perak.agent.shim.kernel.never_dump` says.
        resource.setrlimit(resource.RLIMIT_CORE, (1, 1))
    except (ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    hard = min(plan["nofile_max"], resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if plan["pids_rlimit"] is not None:
        resource.setrlimit(resource.RLIMIT_NPROC, (plan["pids_rlimit"], plan["pids_rlimit"]))


def _drop(uid: int) -> None:
    """Become the job's user with no capability left, in no set (capabilities(7))."""
    for capability in range(CAPABILITIES_MAX):
        if _libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
            if ctypes.get_errno() == errno.EINVAL:  # beyond the last one that this kernel has
                break
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    _prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    header = struct.pack("Ii", CAPABILITY_VERSION_3, 0)
    if _libc.capset(header, bytes(24)) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _make_terminal(size: list[int], control: socket.socket) -> None:
    """A terminal of the sandbox's own, as the job's user; its other end goes to whoever asked."""
    master = os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    found = os.fstat(master)
    if not stat.S_ISCHR(found.st_mode) or (os.major(found.st_rdev), os.minor(found.st_rdev)) != PTMX:
        raise OSError(errno.ENODEV, "this sandbox has no terminals")
    fcntl.ioctl(master, TIOCSPTLCK, struct.pack("i", 0))
    slave = fcntl.ioctl(master, TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY)
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", size[0], size[1], 0, 0))
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    for target in (0, 1, 2):
        os.dup2(slave, target)
    socket.send_fds(control, [b'{"terminal": true}'], [master])
    for each in (master, slave):
        os.close(each)


def _close_all_but(kept: set[int]) -> None:
    for each in [int(name) for name in os.listdir("/proc/self/fd")]:
        if each not in kept:
            with contextlib.suppress(OSError):
                os.close(each)


def _filter(path: str | None) -> bytes | None:
    if path is None:
        return None
    with open(path, "rb") as file:
        return file.read()


class _Program(ctypes.Structure):
    """struct sock_fprog (linux/filter.h); each instruction has 8 bytes."""

    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


def _load(program: bytes) -> None:
    """The same filter that bubblewrap loads for the job."""
    loaded = _Program(len(program) // 8, program)
    if _libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(loaded), 0, 0) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _hand(text: str) -> str:
    """The path of a file without a name that holds it, for the program that we become."""
    file = os.memfd_create("handed", 0)
    os.set_inheritable(file, True)
    os.write(file, text.encode())
    os.lseek(file, 0, os.SEEK_SET)
    return f"/proc/self/fd/{file}"


def _exec(argv: list[str], env: dict[str, str]) -> None:
    if "/" in argv[0]:
        os.execve(argv[0], argv, env)  # noqa: S606 - there is no shell on purpose
    for folder in env.get("PATH", "/usr/bin:/bin").split(":"):
        try:
            os.execve(os.path.join(folder or ".", argv[0]), argv, env)  # noqa: S606
        except (FileNotFoundError, NotADirectoryError):
            continue
    raise FileNotFoundError


def _watch(child: int, control: socket.socket, plan: dict[str, Any]) -> None:
    """Pass signals on until the child has ended, and say how; whoever asked being gone ends the child."""
    ended = os.pidfd_open(child)
    for each in (0, 1, 2):
        os.close(each)
    poll = select.poll()
    poll.register(ended, select.POLLIN)
    poll.register(control, select.POLLIN)
    while True:
        for ready, _ in poll.poll():
            if ready == ended:
                _say(control, {"exit": os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])})
                return
            name = control.recv(MESSAGE_BYTES).decode()
            if not name:
                _ask_to_kill(plan, signal.SIGKILL)
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                return
            if name in SIGNALS and not _ask_to_kill(plan, getattr(signal, f"SIG{name}")):
                _signal_group(child, getattr(signal, f"SIG{name}"))


def _signal_group(child: int, number: int) -> None:
    """To the whole job of a shell, as a terminal's Ctrl-C goes to it."""
    try:
        os.killpg(child, number)
    except ProcessLookupError:
        os.kill(child, number)


def _ask_to_kill(plan: dict[str, Any], number: int) -> bool:
    """Let the runtime send the signal, where only it can; False where the command is a process of ours."""
    if "kill" not in plan:
        return False
    known = {"{pid}": _read(plan["pid_file"]).strip(), "{signal}": str(int(number))}
    if known["{pid}"].isdigit() and (asked := os.fork()) == 0:
        try:
            for _ in range(3):  # our streams are closed
                os.open(os.devnull, os.O_RDWR)
            _drop(plan["uid"])
            _exec([known.get(each, each) for each in plan["kill"]], plan["env"])
        finally:
            os._exit(EXIT_NOT_EXECUTABLE)
    elif known["{pid}"].isdigit():
        os.waitpid(asked, 0)
    return True


def _say(control: socket.socket, message: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):
        control.send(json.dumps(message).encode())


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _read(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return file.read().decode(errors="replace")
    except OSError:
        return ""


if __name__ == "__main__":
    serve(int(sys.argv[1]))
