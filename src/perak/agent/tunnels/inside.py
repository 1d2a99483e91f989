"""A command started inside a run's sandbox by `perak.agent.tunnels.enter`, with its streams and its end."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import socket
import struct
import sys
import termios
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from perak.agent.sandbox import launch, process
from perak.agent.sandbox.spec import spec_from_json
from perak.agent.sandbox.tiers import gvisor
from perak.agent.tunnels import enter
from perak.domain.errors import Conflict

READY_SECONDS = 10.0
"""A start takes some 30 ms; past this the machine is stuck, or the run about to end."""
LOOK_SECONDS = 0.02
MESSAGE_BYTES = 4096
ENV_BYTES_MAX = 128 * 1024
"""What a client adds to the environment; the kernel takes some 2 MiB of arguments and environment in all."""
SHELL_EXIT_SIGNAL = 128
TIER = "bubblewrap"
CONTAINERS = ("crun", "runc")
"""Besides bubblewrap's the tiers whose containers are entered."""
ASKED = "gvisor"
"""The tier whose runtime is entered and asked for a process: the job's are none of the node's."""
CONTAINER_DEPTH = 3
"""Process namespaces of a container's process: the node's, bubblewrap's, the container's."""
LEVELS = 5
"""Of processes below the shim, down to the first of the job: bubblewrap's two, and a runtime's own."""
JOBS_FIRST = 2
"""The process id, in the sandbox, of what bubblewrap's first process starts: the job's own first."""
EXIT_NOT_STARTED = 126
EXIT_LOST = 137
"""A process that was killed, as shells say it."""


class CantEnter(Conflict):
    """The run can't be entered now; the message says why."""

    code = "cannot_enter"

    def __init__(self, detail: str, *, exit_code: int = EXIT_NOT_STARTED) -> None:
        super().__init__(detail)
        self.exit_code = exit_code


@dataclass(frozen=True, slots=True)
class Size:
    """Of a terminal, in characters."""

    rows: int
    columns: int


@dataclass(slots=True, kw_only=True)
class Inside:
    """A process in the sandbox. `input`, `output` and `errors` are our ends; with a terminal, one for all."""

    input: int | None
    output: int
    errors: int | None
    terminal: int | None
    exit_code: asyncio.Future[int]
    _control: socket.socket
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)

    def resize(self, size: Size) -> None:
        """Tell the terminal its new size; the kernel tells the programs (SIGWINCH)."""
        if self.terminal is not None:
            with contextlib.suppress(OSError):
                fcntl.ioctl(
                    self.terminal, termios.TIOCSWINSZ, struct.pack("HHHH", size.rows, size.columns, 0, 0)
                )

    def signal(self, name: str) -> None:
        """Send a signal such as INT to the command and its children."""
        with contextlib.suppress(OSError):
            self._control.send(name.encode()[:MESSAGE_BYTES])

    def close_input(self) -> None:
        """Nothing more comes; a terminal has no half end, so it is left open."""
        if self.input is not None and self.terminal is None:
            os.close(self.input)
            self.input = None

    def close(self) -> None:
        """End the command if it still runs, and close everything."""
        self._loop.remove_reader(self._control.fileno())
        self._control.close()
        for each in {self.input, self.output, self.errors, self.terminal} - {None}:
            assert each is not None
            with contextlib.suppress(OSError):
                os.close(each)
        self.input = self.errors = self.terminal = None
        if not self.exit_code.done():
            self.exit_code.set_result(EXIT_LOST)


def first_process(run_folder: Path) -> process.ProcessId:
    """The first process of the run's process namespace, once the job's own program runs under it.

    Before, the sandbox is still being made and may see the node. Raises CantEnter.
    """
    try:
        spec = spec_from_json((run_folder / "run.json").read_text())
        shim = json.loads((run_folder / "shim.json").read_text())
        ended = (run_folder / "exit.json").exists()
    except FileNotFoundError:
        raise CantEnter("the run has not begun yet; try again in a moment") from None
    in_container = spec.tier in CONTAINERS
    if spec.tier not in (None, ASKED, *CONTAINERS) and not spec.tier.startswith(TIER):
        known = ", ".join((TIER, *CONTAINERS))
        raise CantEnter(
            f"the job runs in {spec.tier}, and terminals are for {known} and {ASKED}; "
            "submit it with another `isolation`, or none"
        )
    if ended:
        raise CantEnter("the run has ended")
    for pid in _below(shim["pid"], levels=LEVELS):
        if spec.tier == ASKED:
            begun = _inner_pid(pid) == 1 and _stage_begun(launch.read(run_folder)) is not None
        elif in_container:
            begun = _inner_pid(pid, depth=CONTAINER_DEPTH) == 1 and _is_confined(pid)
        else:
            begun = _inner_pid(pid) == 1 and any(
                _inner_pid(each) == JOBS_FIRST and _is_confined(each) for each in _children(pid)
            )
        if begun:
            found = process.identify(pid)
            if found is not None:
                return found
    raise CantEnter("the job's command is not running yet, or no more; try again in a moment")


def plan(
    run_folder: Path,
    *,
    argv: Sequence[str],
    env: Mapping[str, str],
    size: Size | None,
    start_folder: str | None = None,
) -> dict[str, Any]:
    """What `enter` is told, for a run under bubblewrap or in a container. Raises CantEnter."""
    target = first_process(run_folder)
    launched = launch.read(run_folder)
    job = _job(launched)
    if sum(len(name) + len(value) for name, value in env.items()) > ENV_BYTES_MAX:
        raise CantEnter(f"the environment that is added may have {ENV_BYTES_MAX} bytes")
    terminal = [size.rows, size.columns] if size is not None else None
    if (stage := _stage_begun(launched)) is not None and launched["stop_by"] == "runtime":
        job = replace(job, cwd=start_folder or job.cwd, env={**job.env, **env})
        asked = gvisor.entry(stage, _process(job, argv, with_terminal=size is not None))
        return _limits(launched, target) | asked | {"terminal": terminal}
    return _limits(launched, target) | {
        "uid": job.uid,
        "seccomp": launched["filter"],
        "cwd": start_folder or job.cwd,
        "argv": list(argv),
        "env": {**job.env, **env},
        "terminal": terminal,
    }


def _limits(launched: launch.Launch, target: process.ProcessId) -> dict[str, Any]:
    """Where to enter, and under which limits."""
    return {
        "pid": target.pid,
        "start_ticks": target.start_ticks,
        "joins": launched["joins"],
        "nofile_max": launched["nofile_max"],
        "pids_rlimit": launched["pids_rlimit"],
    }


def _stage_begun(launched: launch.Launch) -> str | None:
    """The last stage that a runtime says it has started."""
    marks = launched["marks"]
    return next((each for each in reversed(launched["stages"]) if os.path.exists(marks.get(each, ""))), None)


def _process(job: _Job, argv: Sequence[str], *, with_terminal: bool) -> dict[str, Any]:
    """What a runtime is asked for, in the words of its config.json."""
    return {
        "terminal": with_terminal,
        "user": {"uid": job.uid, "gid": job.uid},
        "args": list(argv),
        "env": [f"{name}={value}" for name, value in job.env.items()],
        "cwd": job.cwd,
        "noNewPrivileges": True,
        "capabilities": {
            each: [] for each in ("bounding", "effective", "inheritable", "permitted", "ambient")
        },
    }


@dataclass(frozen=True, slots=True)
class _Job:
    """Who the job is in its sandbox, and where and with what it starts."""

    uid: int
    cwd: str
    env: dict[str, str]


def _job(launched: launch.Launch) -> _Job:
    """As the runtime's config.json says, or bubblewrap's arguments where there is none."""
    if "run" in launched["configs"]:
        with open(launched["configs"]["run"][0], "rb") as file:
            told = json.load(file)["process"]
        return _Job(
            uid=told["user"]["uid"], cwd=told["cwd"], env=dict(each.split("=", 1) for each in told["env"])
        )
    arguments = launched["arguments"]
    settings = {name: arguments[arguments.index(name) + 1] for name in ("--uid", "--chdir")}
    env = {
        arguments[i + 1]: arguments[i + 2] for i, each in enumerate(arguments) if each == "--setenv"
    }  # a value that looks like the option can't come first: names of variables have no dashes
    return _Job(uid=int(settings["--uid"]), cwd=settings["--chdir"], env=env)


async def start(entry: Mapping[str, Any]) -> Inside:
    """Start the command of a `plan`. Raises CantEnter, with the shell's exit code for it in `exit_code`."""
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    with_terminal = entry["terminal"] is not None
    pairs = [] if with_terminal else [os.pipe(), os.pipe(), os.pipe()]
    streams: list[int] | None = [pairs[0][0], pairs[1][1], pairs[2][1]] if pairs else None
    mine = [pairs[0][1], pairs[1][0], pairs[2][0]] if pairs else []
    try:
        _spawn(entry, theirs, streams)
        terminal = await _await_start(loop, ours)
    except BaseException:
        ours.close()
        for each in mine:
            os.close(each)
        raise
    finally:
        theirs.close()
        for each in streams or ():
            os.close(each)
    if terminal is not None:
        mine = [terminal, terminal, -1]
    for each in {*mine} - {-1}:
        os.set_blocking(each, False)
    exit_code: asyncio.Future[int] = loop.create_future()
    inside = Inside(
        input=mine[0],
        output=mine[1],
        errors=None if mine[2] == -1 else mine[2],
        terminal=terminal,
        exit_code=exit_code,
        _control=ours,
    )
    loop.add_reader(ours.fileno(), _on_end, ours, exit_code)
    return inside


class _Enterer:
    """The process that enters for this one: it waits loaded, so that a start costs a fork."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None

    def ask(self, files: Sequence[int]) -> None:
        """Hand over what `enter` needs for one command. Raises OSError."""
        if self._socket is None:
            self._launch()
        assert self._socket is not None
        try:
            socket.send_fds(self._socket, [b"!"], files)
        except OSError:  # it was killed
            self._socket.close()
            self._launch()
            socket.send_fds(self._socket, [b"!"], files)

    def _launch(self) -> None:
        """The base interpreter, because a virtual environment's costs a search for its packages."""
        interpreter = getattr(sys, "_base_executable", None) or sys.executable
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.setblocking(False)
        with theirs, open(os.devnull, "r+b") as null:
            os.posix_spawn(
                interpreter,
                [interpreter, "-I", "-S", str(Path(enter.__file__)), "3"],
                {"PATH": "/usr/bin:/bin"},
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, theirs.fileno(), 3),
                    *((os.POSIX_SPAWN_DUP2, null.fileno(), number) for number in (0, 1, 2)),
                ],
                setsid=True,
            )


_enterer = _Enterer()


def _spawn(entry: Mapping[str, Any], control: socket.socket, streams: list[int] | None) -> None:
    told, null = os.memfd_create("plan"), os.open(os.devnull, os.O_RDWR)
    try:
        os.write(told, json.dumps(entry).encode())
        os.lseek(told, 0, os.SEEK_SET)
        _enterer.ask([control.fileno(), told, *(streams or [null, null, null])])
    finally:
        for each in (told, null):
            os.close(each)


async def _await_start(loop: asyncio.AbstractEventLoop, control: socket.socket) -> int | None:
    """The terminal's file, if there is one, once the command was started. Raises CantEnter."""
    terminal: int | None = None
    try:
        async with asyncio.timeout(READY_SECONDS):
            while True:
                await _readable(loop, control)
                data, files, _, _ = socket.recv_fds(control, MESSAGE_BYTES, 1)
                if files:
                    terminal = files[0]
                    os.set_inheritable(terminal, False)
                if not data:
                    raise CantEnter("the run ended while it was entered")
                message = json.loads(data)
                if "error" in message:
                    raise CantEnter(message["error"], exit_code=message.get("code", EXIT_NOT_STARTED))
                if "started" in message:
                    return terminal
    except TimeoutError:
        _close(terminal)
        raise CantEnter(f"the sandbox could not be entered within {READY_SECONDS:g} s") from None
    except BaseException:
        _close(terminal)
        raise


def _close(file: int | None) -> None:
    if file is not None:
        os.close(file)


async def _readable(loop: asyncio.AbstractEventLoop, source: socket.socket) -> None:
    ready: asyncio.Future[None] = loop.create_future()

    def tell() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(source.fileno(), tell)
    try:
        await ready
    finally:
        loop.remove_reader(source.fileno())


def _on_end(control: socket.socket, exit_code: asyncio.Future[int]) -> None:
    """The last word of `enter`; without one it was killed with the run."""
    try:
        data = control.recv(MESSAGE_BYTES)
    except BlockingIOError:
        return
    except OSError:
        data = b""
    message = json.loads(data) if data else {"exit": EXIT_LOST}
    code = message["exit"]
    if not exit_code.done():
        exit_code.set_result(SHELL_EXIT_SIGNAL - code if code < 0 else code)
    if not data:
        asyncio.get_running_loop().remove_reader(control.fileno())


def _children(pid: int) -> list[int]:
    """By each thread of it; a look at every process of a large machine would take tens of milliseconds."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")
        texts = [Path(f"/proc/{pid}/task/{thread}/children").read_text() for thread in threads]
    except OSError:  # The process is gone, or the kernel has no such file.
        return [each for each, stat in process.descendants(pid).items() if stat.parent == pid]
    return [int(each) for text in texts for each in text.split()]


def _below(pid: int, *, levels: int) -> Iterator[int]:
    """Its children, then theirs, so many levels deep."""
    level = [pid]
    for _ in range(levels):
        level = [child for each in level for child in _children(each)]
        yield from level


def _inner_pid(pid: int, *, depth: int = 2) -> int | None:
    """What the process is called in its own process namespace, so many deep; None where it is less deep."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines():
            if line.startswith("NSpid:"):
                names = line.split()[1:]
                return int(names[-1]) if len(names) >= depth else None
    return None


def _is_confined(pid: int) -> bool:
    """Whether a process holds no capability any more, as bubblewrap drops them last before the command."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines():
            if line.startswith("CapEff:"):
                return int(line.split()[1], 16) == 0
    return False
