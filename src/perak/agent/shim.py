"""The small process that one run lives under: starts bubblewrap, keeps log and limits, says how it ended.

Run as ``python -I -S shim.py SOCKET`` it waits, loaded, for the folders of runs and forks a shim for each,
in a session of its own; so a start costs a fork and not an interpreter. It ends with the agent, the shims do
not. A shim reads launch.json (what to start; see `perak.agent.sandbox.launch`) and writes shim.json, log and
exit.json.

Standard library only: the interpreter that runs it has no other packages. One thread only, because the
sandbox's --die-with-parent follows the thread that started it.
"""

from __future__ import annotations

import base64
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
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

PATH_BYTES = 4096
READ_BYTES = 256 * 1024  # one read of the job's output
POKE_SECONDS = 0.01  # the agent is told of news at most this often
TICK_SECONDS = 0.5  # how often limits are looked at that the kernel doesn't hold
LINGER_SECONDS = 2.0  # for output, once every process is gone: none but a terminal could still hold the pipe
DETAIL_BYTES = 400  # of the sandbox's own last words
ROOM_LOOK_SECONDS = 0.5  # how often a shim looks whether the node's full disk has room again
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
LOG_PAUSE_SECONDS = 0.05  # how long the log's pipe is left alone at the least when a run writes too fast
FULL_BYTES = 256 * 1024  # a scratch with less room is full: ext4 refuses to write its last 100 KiB or so
SCRUBBED_BYTES_MIN = 6  # shorter secrets, such as "true", would blot out ordinary words
SCRUBBED_PIECE_BYTES = 512  # a longer secret is looked for by its pieces, so that little is held back
SCRUBBED_LINES_MAX = 200  # a secret of more lines is looked for as a whole only
SCRUBBED_BASE64_BYTES_MAX = 1024  # of what is also looked for in base64: tokens and passwords
HOLD_SECONDS = 0.5  # how long what may be the beginning of a secret is held back
SECRETS = "/run/secrets"
SECRET_MODE = "0400"  # noqa: S105 - of its file
GRACE_SECONDS = 10.0  # when a stop doesn't say
SHELL_EXIT_SIGNAL = 128  # a shell's exit code for "killed by signal N" is 128 + N
SIGNAL_MAX = 64
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h
CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000  # linux/sched.h
NS_GET_USERNS = 0xB701  # linux/nsfs.h
OUTLET_BACKLOG = 128  # connections that wait while the agent is away
NEVER = float("inf")

_libc = ctypes.CDLL(None, use_errno=True)


def serve(descriptor: int) -> None:
    """Fork a shim for each folder that arrives on the socket, and answer with its pid, until it closes."""
    _close_all_but((0, 1, 2, descriptor))
    os.umask(0o077)  # runs' folders can be passed through, what lies in them is ours
    agent = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, descriptor)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel itself then takes leave of ended shims
    while True:
        folder, descriptors, _, _ = socket.recv_fds(agent, PATH_BYTES, 1)
        if not folder:
            return
        pid = os.fork()
        if pid == 0:
            agent.close()
            _be_shim(folder.decode(), descriptors)
        for each in descriptors:
            os.close(each)
        agent.send(str(pid).encode())


def _close_all_but(kept: tuple[int, ...]) -> None:
    """Whatever the agent had inherited from who started it must not reach a job."""
    for each in map(int, os.listdir("/proc/self/fd")):
        if each not in kept:
            with contextlib.suppress(OSError):
                os.close(each)


def _be_shim(folder: str, descriptors: list[int]) -> None:
    """In the forked child: leave the agent's session and streams, run what the folder says, once; exits.

    `descriptors`: of the run's secrets, if it has any.
    """
    code = 1
    try:
        os.setsid()
        secrets = _take_secrets(descriptors)
        errors = os.open(os.path.join(folder, "shim.err"), os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
        os.dup2(errors, 2)
        with open(os.path.join(folder, "launch.json"), "rb") as file:
            plan = json.load(file)
        started_at = time.time()
        if _claim(folder, started_at):
            Shim(folder, plan, started_at, secrets).run()
        code = 0
    except BaseException as error:
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
        raise
    finally:
        os._exit(code)


def _take_secrets(descriptors: list[int]) -> dict[str, tuple[str, bytes]]:
    """(kind, value) by name, from the agent's file without a name; from now on our memory is never dumped."""
    if not descriptors:
        return {}
    # One and not zero: a zero does not keep the kernel from handing a dump to a program (fs/coredump.c).
    resource.setrlimit(resource.RLIMIT_CORE, (1, 1))
    (file,) = descriptors
    content = os.pread(file, os.fstat(file).st_size, 0)
    os.close(file)
    return {name: (kind, base64.b64decode(value)) for name, (kind, value) in json.loads(content).items()}


def _claim(folder: str, started_at: float) -> bool:
    """Write shim.json; False when another shim has: its agent may have been killed before it noted that."""
    record = {
        "pid": os.getpid(),
        "start_ticks": int(_stat_fields("self")[19]),
        "boot_id": _read("/proc/sys/kernel/random/boot_id").strip(),
        "started_at": started_at,
    }
    draft = os.path.join(folder, f".shim.json.{os.getpid()}")
    with open(draft, "w") as file:
        json.dump(record, file)
    try:
        os.link(draft, os.path.join(folder, "shim.json"))
    except FileExistsError:
        return False
    finally:
        os.unlink(draft)
    return True


class Stage:
    """One script of the run in its sandbox: bubblewrap's process and the pipes from it."""

    __slots__ = ("code", "has_children", "inner_pid", "log", "name", "news", "pid", "started", "unblock")

    def __init__(self, name: str, pid: int, log: int, news: int, unblock: int) -> None:
        self.name = name
        self.pid = pid
        self.log: int | None = log
        self.news: int | None = news
        self.unblock: int | None = unblock
        self.inner_pid: int | None = None
        self.started = False
        self.code: int | None = None
        self.has_children = True


class Shim:
    """The run's whole life: stages one after the other, one loop over pipes, signals and deadlines."""

    def __init__(
        self, folder: str, plan: dict[str, Any], started_at: float, secrets: dict[str, tuple[str, bytes]]
    ) -> None:
        self.folder = folder
        self.secrets = secrets
        self.scrub = Scrub([value for _, value in secrets.values()])
        self.plan = plan
        self.started_at = self.ended_at = started_at
        self.deadline = time.monotonic() + plan["max_duration_seconds"]
        self.kill_at = NEVER
        self.next_tick = time.monotonic() + TICK_SECONDS
        self.end_cause: str | None = None
        self.detail: str | None = None
        self.log_file = os.open(
            os.path.join(folder, "log"), os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600
        )
        self.log_room: int = plan["log_bytes_max"]
        self.log_cut = False
        self.log_rate = Rate(plan["log_bytes_per_second"], plan["log_burst_bytes"])
        self.last_words = b""
        self.cpu_seconds = 0.0
        self.memory_seen = 0
        self.disk_full = False
        self.poke = Poke(plan["poke_folder"], plan["run_id"])
        port = plan.get("proxy_port")
        self.outlet = Outlet(plan["poke_folder"], plan["run_id"], port) if port else None
        self.unwritten = bytearray()  # of the log, while the node's disk is full
        self.wake_read, self.wake_write = os.pipe()
        self._watch_signals()
        # What bubblewrap leaves behind becomes our child, so that we see it end and count what it used.
        _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def run(self) -> None:
        """All stages, then exit.json, when no process of the run is left.

        Whoever reads it may give the run's devices, user id and memory to the next. A process that can't be
        killed, because a driver holds it, is waited for.
        """
        stage = None
        for name in self.plan["stages"]:
            stage = self._run_stage(name)
            if stage.code != 0 or self.end_cause is not None:
                break
        assert stage is not None
        self._finish(stage)

    def _watch_signals(self) -> None:
        for each in (self.wake_read, self.wake_write):
            os.set_blocking(each, False)
        signal.signal(signal.SIGTERM, lambda *_: None)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self.wake_write)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    def _run_stage(self, name: str) -> Stage:
        stage = _spawn(name, self.plan, self.secrets)
        self.poke.due()
        while stage.code is None or stage.has_children:
            self._wait(stage, NEVER)
            was_running = stage.code is None
            self._reap(stage)
            if stage.code is None:
                self._keep_limits(stage)
            elif was_running or time.monotonic() >= self.next_tick:
                self.next_tick = time.monotonic() + TICK_SECONDS
                self._kill_rest(stage)
        linger_until = time.monotonic() + LINGER_SECONDS
        while stage.log is not None and time.monotonic() < linger_until:
            self._wait(stage, linger_until)
        self._take_scrubbed(self.scrub.end())
        for each in (stage.log, stage.news, stage.unblock):
            if each is not None:
                os.close(each)
        if self.outlet is not None:
            self.outlet.close()
        return stage

    def _wait(self, stage: Stage, linger_until: float) -> None:
        """Wait for output, news, a signal or the next deadline, and take in what came."""
        poll = select.poll()
        # What the job writes too fast stays in its pipe, so that it waits; what it left there when it ended
        # is little, and is taken.
        paused = self.log_rate.pause_seconds() if stage.code is None else 0.0
        if self.unwritten:
            self._log(b"")
            paused = ROOM_LOOK_SECONDS if self.unwritten and stage.code is None else paused
        for each in (None if paused else stage.log, stage.news, self.wake_read):
            if each is not None:
                poll.register(each, select.POLLIN)
        until = min(linger_until, self.poke.at, self.scrub.show_at)
        if paused:
            until = min(until, time.monotonic() + paused)
        if stage.has_children:
            until = min(until, self.next_tick)
        if stage.code is None:
            until = min(until, self.deadline, self.kill_at)
        events = poll.poll(max(0.0, (until - time.monotonic()) * 1000) + 0.5)
        for ready, _ in events:
            if ready == stage.log:
                stage.log = self._take_output(ready)
            elif ready == stage.news:
                self._take_news(stage)
            elif signal.SIGTERM in os.read(self.wake_read, 4096):
                self._take_stop(stage)
        if time.monotonic() >= self.scrub.show_at:
            self._take_scrubbed(self.scrub.show())
        self.poke.send_if_due()

    def _take_output(self, source: int) -> int | None:
        """Take some of the job's output; returns the pipe, or None once it is closed."""
        data = os.read(source, READ_BYTES)
        if not data:
            os.close(source)
            return None
        self.log_rate.take(len(data))
        self._take_scrubbed(self.scrub.feed(data))
        return source

    def _take_scrubbed(self, data: bytes) -> None:
        """Append to the log up to its limit."""
        self.last_words = (self.last_words + data)[-DETAIL_BYTES:]
        kept = data[: self.log_room]
        self._log(kept)
        self.log_room -= len(kept)
        if len(kept) < len(data) and not self.log_cut:
            self.log_cut = True
            limit = self.plan["log_bytes_max"]
            self._log(f"\n[perak] the log ends here: its limit of {limit} bytes is reached\n".encode())

    def _log(self, data: bytes) -> None:
        self.unwritten += data
        while self.unwritten:
            try:
                del self.unwritten[: os.write(self.log_file, self.unwritten)]
            except OSError as error:
                # The node's own disk is full: what the job writes waits in its pipe, and the job with it.
                if error.errno not in NO_ROOM:
                    self.log_cut, self.log_room = True, 0
                    self.unwritten.clear()
                return
            self.poke.due()

    def _take_news(self, stage: Stage) -> None:
        """bubblewrap's own reports: the process it made, and that the job ended by itself."""
        assert stage.news is not None
        try:
            data = os.read(stage.news, 4096)
        except BlockingIOError:
            return
        if not data:
            os.close(stage.news)
            stage.news = None
            return
        pid = number_after(data, b'"child-pid"')
        if pid is not None:
            stage.inner_pid = pid
            self._unblock(stage)
        if b'"exit-code"' in data:
            mark = self.plan["marks"].get(stage.name)
            stage.started = mark is None or os.path.exists(mark)

    def _unblock(self, stage: Stage) -> None:
        """Let the sandbox start its command, once it stands under its limits.

        bubblewrap sets itself up meanwhile: to move a process into a v1 control group takes up to 15 ms.
        """
        assert stage.inner_pid is not None
        limit = self.plan["pids_rlimit"]
        try:
            if limit is not None:
                resource.prlimit(stage.inner_pid, resource.RLIMIT_NPROC, (limit, limit))
            for path in self.plan["joins"]:
                with open(path, "w") as file:
                    file.write(str(stage.inner_pid))
        except ProcessLookupError:  # bubblewrap failed meanwhile, and has said why
            return
        except OSError as error:
            self._end(stage, "sandbox", f"the run can't be put under its limits: {error}", 0.0)
            return
        if self.outlet is not None and (problem := self.outlet.open(stage.inner_pid)) is not None:
            self._end(stage, "sandbox", f"the run can't be given its proxy: {problem}", 0.0)
            return
        if stage.unblock is not None:
            os.write(stage.unblock, b"\0")
            os.close(stage.unblock)
            stage.unblock = None

    def _take_stop(self, stage: Stage) -> None:
        """SIGTERM: end the job; the agent's stop.json says why and with how much grace."""
        try:
            with open(os.path.join(self.folder, "stop.json"), "rb") as file:
                reason, grace = json.load(file)
        except (OSError, ValueError, TypeError):
            reason, grace = "the shim was asked to end", GRACE_SECONDS
        self._end(stage, "stopped", reason, grace)

    def _keep_limits(self, stage: Stage) -> None:
        now = time.monotonic()
        if now >= self.deadline:
            self.deadline = NEVER
            seconds = self.plan["max_duration_seconds"]
            self._end(
                stage, "max_duration", f"reached max_duration of {seconds:g} s", self.plan["grace_seconds"]
            )
        if now >= self.kill_at:
            self.kill_at = NEVER
            self._kill(stage)
        if now >= self.next_tick:
            self.next_tick = now + TICK_SECONDS
            self._look(stage)
            if self.outlet is not None:
                self.outlet.hand_over()

    def _look(self, stage: Stage) -> None:
        """What the kernel doesn't hold or count for us."""
        self._look_at_disk(stage)
        limit = self.plan["memory_watch_bytes"]
        if stage.inner_pid is None or limit is None:
            return
        resident = sum(_resident_bytes(pid) for pid in _below(stage.inner_pid))
        self.memory_seen = max(self.memory_seen, resident)
        if resident > limit:
            self._end(stage, "oom", f"used {resident} bytes of memory, its limit is {limit}", 0.0)

    def _look_at_disk(self, stage: Stage) -> None:
        limit = self.plan["disk_watch_bytes"]
        if limit is None:
            self.disk_full = self.disk_full or _is_full(self.plan["scratch"])
            return
        used, files = tree_use(self.plan["scratch"])
        files_max = self.plan.get("files_watch")
        if used > limit:
            self._end(stage, "disk_full", f"used {used} bytes of disk, its limit is {limit}", 0.0)
        elif files_max is not None and files > files_max:
            self._end(stage, "disk_full", f"made {files} files, its limit is {files_max}", 0.0)

    def _end(self, stage: Stage, cause: str, detail: str, grace_seconds: float) -> None:
        """Ask the job to end, and note why; the first reason stays, a shorter grace wins."""
        if stage.code is not None:  # it has, and what it left is being killed
            return
        if self.end_cause is None:
            self.end_cause, self.detail = cause, detail
        if stage.inner_pid is None:  # nothing of the job has begun
            grace_seconds = 0.0
        self.kill_at = min(self.kill_at, time.monotonic() + grace_seconds)
        if grace_seconds > 0:
            for pid in self._to_terminate(stage):
                _signal(pid, signal.SIGTERM)

    def _to_terminate(self, stage: Stage) -> Iterator[int]:
        """Every process of the job but a shell that merely waits: its death would take the others' grace.

        Where the job's own processes can't be told from the runtime's, the runtime itself passes it on.
        """
        if stage.inner_pid is None:
            return
        top = stage.inner_pid
        for _ in range(self.plan["layers"]):
            top = next(iter(_children(top)), top)
        if self.plan["stop_by"] == "runtime":
            yield from _children(top)
            return
        tree = _below(top)
        parents = {_parent(pid) for pid in tree}
        for pid in tree:
            waits = pid in parents and _parent(pid) == top
            if not waits or _catches_term(pid):
                yield pid

    def _kill(self, stage: Stage) -> None:
        """SIGKILL to bubblewrap takes its whole process namespace along (--die-with-parent)."""
        _signal(stage.pid, signal.SIGKILL)

    def _kill_rest(self, stage: Stage) -> None:
        """Nothing may be left: what the job put into the background dies with its first process."""
        for path in self.plan["joins"]:
            for line in _read(path).split():
                _signal(int(line), signal.SIGKILL)
        if not stage.started and self.plan["uid"] is not None:  # it may not have joined any group yet
            for pid in _owned_by(self.plan["uid"]):
                _signal(pid, signal.SIGKILL)

    def _reap(self, stage: Stage) -> None:
        """Take leave of bubblewrap and of all that it left to us, and count what they used."""
        while stage.has_children:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                stage.has_children = False
                return
            if pid == 0:
                return
            self.cpu_seconds += usage.ru_utime + usage.ru_stime
            self.memory_seen = max(self.memory_seen, usage.ru_maxrss * 1024)
            if pid == stage.pid:
                stage.code = os.waitstatus_to_exitcode(status)
                self.ended_at = time.time()
                if stage.news is not None:  # its last words
                    self._take_news(stage)

    def _finish(self, stage: Stage) -> None:
        """Decide the cause, measure, and write exit.json durably."""
        assert stage.code is not None
        code = stage.code if stage.code >= 0 else SHELL_EXIT_SIGNAL - stage.code
        cause = self._cause(stage, code)
        killed_by = code - SHELL_EXIT_SIGNAL if 0 < code - SHELL_EXIT_SIGNAL <= SIGNAL_MAX else None
        counted = _counter(self.plan, "cpu")
        os.fsync(self.log_file)
        record = {
            "run_id": self.plan["run_id"],
            "state": "exited",
            "started_at": self.started_at,
            "ended_at": self.ended_at,
            "exit_code": code,
            "cause": cause,
            "signal": killed_by,
            "cpu_seconds": self.cpu_seconds if counted is None else counted,
            "memory_peak_bytes": self._memory_peak(),
            "log_bytes": os.fstat(self.log_file).st_size,
            "detail": self.detail,
        }
        while self.unwritten:
            time.sleep(ROOM_LOOK_SECONDS)
            self._log(b"")
        record["log_bytes"] = os.fstat(self.log_file).st_size
        _write_when_there_is_room(self.folder, "exit.json", record)
        self.poke.send()

    def _cause(self, stage: Stage, code: int) -> str:
        if self.end_cause is not None:
            return self.end_cause
        if code != 0 and (_counter(self.plan, "oom") or 0) > 0:
            self.detail = f"out of memory (limit {self.plan['memory_bytes']} bytes) in {stage.name}"
            return "oom"
        if not stage.started:
            self.detail = self.last_words.decode(errors="replace").strip() or "the sandbox did not start"
            return "sandbox"
        if code == 0:
            return "exited"
        if self.disk_full or (self.plan["disk_watch_bytes"] is None and _is_full(self.plan["scratch"])):
            files = _files_taken(self.plan["scratch"])
            by = f" of files: all {files} that it has room for are made," if files else ""
            self.detail = f"the scratch of {self.plan['disk_bytes']} bytes was full{by} in {stage.name}"
            return "disk_full"
        if stage.name == "setup":
            self.detail = f"setup ended with exit code {code}"
            return "setup"
        return "signal" if 0 < code - SHELL_EXIT_SIGNAL <= SIGNAL_MAX else "exited"

    def _memory_peak(self) -> int | None:
        counted = _counter(self.plan, "memory_peak")
        return int(counted) if counted is not None else self.memory_seen or None


class Scrub:
    """Blots the values of secrets out of a stream: an asterisk for each byte, line feeds stay.

    A value is found however the stream is cut: what may be the beginning of one is held back, at most
    SCRUBBED_PIECE_BYTES - 1, until more comes or `show_at`. What is then shown is remembered: of a value that
    is written slowly at most SCRUBBED_BYTES_MIN - 1 bytes are seen. It is also found in base64, by its lines,
    and by its pieces. A job that wants to show a secret can: by any other spelling.
    """

    def __init__(self, values: list[bytes]) -> None:
        self.patterns = sorted({pattern for value in values for pattern in _patterns(value)})
        self.held = bytearray()
        self.blots = bytearray()  # for each held byte: 1 where it is to be blotted out
        self.shown = 0  # of the held bytes, how many were shown already
        self.show_at = NEVER

    def feed(self, data: bytes) -> bytes:
        """What can be shown now that `data` has come."""
        if not self.patterns:
            return data
        known = len(self.held)
        self.held += data
        self.blots += bytes(len(data))
        for pattern in self.patterns:
            self._blot_out(pattern, known)
        keep = len(self.held) - self._beginning()
        shown = self._blotted(self.shown, keep)
        del self.held[:keep], self.blots[:keep]
        self.shown = max(0, self.shown - keep)
        self.show_at = time.monotonic() + HOLD_SECONDS if len(self.held) > self.shown else NEVER
        return shown

    def show(self) -> bytes:
        """What was held back long enough: a prompt must be seen. Most of a secret is not."""
        held = self._blotted(self.shown, len(self.held))
        self.shown, self.show_at = len(self.held), NEVER
        return held if len(self.held) < SCRUBBED_BYTES_MIN else _asterisks(held)

    def end(self) -> bytes:
        """What is left, as no more will come."""
        rest = self._blotted(self.shown, len(self.held))
        self.held.clear()
        self.blots.clear()
        self.shown, self.show_at = 0, NEVER
        return rest

    def _blot_out(self, pattern: bytes, known: int) -> None:
        """Mark each place where `pattern` ends among the bytes after the first `known`."""
        at = self.held.find(pattern, max(0, known - len(pattern) + 1))
        while at >= 0:
            self.blots[at : at + len(pattern)] = b"\1" * len(pattern)
            at = self.held.find(pattern, at + 1)

    def _beginning(self) -> int:
        """The length of the longest end of what is held that a pattern begins with, without being whole."""
        longest = 0
        for pattern in self.patterns:
            at = max(0, len(self.held) - len(pattern) + 1)
            last = len(self.held) - longest
            while (at := self.held.find(pattern[:1], at, last)) >= 0:
                if pattern.startswith(self.held[at:]):
                    longest = len(self.held) - at
                    break
                at += 1
        return longest

    def _blotted(self, start: int, end: int) -> bytes:
        shown = self.held[start:end]
        at = self.blots.find(1, start, end)
        while at >= 0:
            until = self.blots.find(0, at, end)
            until = end if until < 0 else until
            shown[at - start : until - start] = _asterisks(self.held[at:until])
            at = self.blots.find(1, until, end)
        return bytes(shown)


def _asterisks(data: bytes | bytearray) -> bytes:
    return b"\n".join(b"*" * len(line) for line in data.split(b"\n"))


def _patterns(value: bytes) -> Iterator[bytes]:
    """What a value may look like in a log."""
    value = value.strip(b"\r\n")
    forms = [value]
    lines = value.splitlines()
    if 1 < len(lines) <= SCRUBBED_LINES_MAX:
        forms += [line.strip() for line in lines]
    if len(value) <= SCRUBBED_BASE64_BYTES_MAX:
        forms += _in_base64(value)
    for form in forms:
        if len(form) >= SCRUBBED_BYTES_MIN:
            for at in range(0, max(1, len(form) - SCRUBBED_PIECE_BYTES + 1), SCRUBBED_PIECE_BYTES):
                yield form[at : at + SCRUBBED_PIECE_BYTES]
            yield form[-SCRUBBED_PIECE_BYTES:]


def _in_base64(value: bytes) -> Iterator[bytes]:
    """The characters that are the value's alone, at each of the three places that it may have in more."""
    for before, shared in ((0, 0), (1, 2), (2, 3)):  # bytes before it, and characters that these take part in
        whole = 8 * (before + len(value)) // 6
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            yield encode(bytes(before) + value)[shared:whole]


class Rate:
    """A token bucket: `burst` bytes at once, `per_second` in the long run."""

    def __init__(self, per_second: int, burst: int) -> None:
        self.per_second = per_second
        self.burst = burst
        self.room = float(burst)
        self.at = time.monotonic()

    def take(self, amount: int) -> None:
        """Note what was taken; a read may overdraw the bucket by its own size."""
        now = time.monotonic()
        self.room = min(self.burst, self.room + (now - self.at) * self.per_second) - amount
        self.at = now

    def pause_seconds(self) -> float:
        """How long to take nothing."""
        missing = -self.room - (time.monotonic() - self.at) * self.per_second
        return max(LOG_PAUSE_SECONDS, missing / self.per_second) if missing > 0 else 0.0


class Poke:
    """Tells the agent that there is something new, at most once in POKE_SECONDS; nobody need listen."""

    def __init__(self, folder: str, run_id: str) -> None:
        # Through the open folder, because a socket's whole path may not exceed 107 bytes.
        self.address = f"/proc/self/fd/{os.open(folder, os.O_PATH | os.O_CLOEXEC)}/poke.sock"
        self.message = run_id.encode()
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.last = 0.0
        self.at = NEVER

    def due(self) -> None:
        """Something is new: say so at once, or as soon as it is allowed again."""
        self.at = min(self.at, max(time.monotonic(), self.last + POKE_SECONDS))
        self.send_if_due()

    def send_if_due(self) -> None:
        """Send what is due by now."""
        if time.monotonic() >= self.at:
            self.send()

    def send(self) -> None:
        """Send now."""
        self.at, self.last = NEVER, time.monotonic()
        with contextlib.suppress(OSError):
            self.socket.sendto(self.message, self.address)


class Outlet:
    """Where the job finds its proxy: a listening socket on the run's own loopback, handed to the agent.

    The agent may come and go: as long as none has it, connections wait in its backlog. Once this end of the
    connection to the agent closes, so does the run's way out.
    """

    def __init__(self, folder: str, run_id: str, port: int) -> None:
        # Through the open folder, because a socket's whole path may not exceed 107 bytes.
        self.address = f"/proc/self/fd/{os.open(folder, os.O_PATH | os.O_CLOEXEC)}/outlets.sock"
        self.run_id = run_id.encode()
        self.port = port
        self.listener: int | None = None
        self.agent: socket.socket | None = None

    def open(self, pid: int) -> str | None:
        """Listen in the network of process `pid`, and tell the agent; what went wrong, or None."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        child = os.fork()  # to enter a user namespace has no way back
        if child == 0:
            try:
                listener = _listen_inside(pid, self.port)
                socket.send_fds(theirs, [b"ok"], [listener.fileno()])
            except BaseException as error:
                theirs.send(str(error).encode()[:DETAIL_BYTES])
            finally:
                os._exit(0)
        theirs.close()
        with ours:
            said, descriptors, _, _ = socket.recv_fds(ours, DETAIL_BYTES, 1)
        os.waitpid(child, 0)
        if not descriptors:
            return said.decode(errors="replace") or "no socket came"
        self.listener = descriptors[0]
        self.hand_over()
        return None

    def hand_over(self) -> None:
        """See to it that the agent has the socket, also one that was started anew."""
        if self.listener is None or self._is_held():
            return
        agent = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        try:
            agent.connect(self.address)
            socket.send_fds(agent, [self.run_id], [self.listener])
        except OSError:  # no agent now; the next tick tries again
            agent.close()
        else:
            self.agent = agent

    def _is_held(self) -> bool:
        """Whether the agent that has it is still there: it never says a word, it only hangs up."""
        if self.agent is None:
            return False
        try:
            self.agent.recv(1)
        except BlockingIOError:
            return True
        except OSError:
            pass
        self.agent.close()
        self.agent = None
        return False

    def close(self) -> None:
        """The stage is over: nothing of it reaches the network any more."""
        if self.agent is not None:
            self.agent.close()
            self.agent = None
        if self.listener is not None:
            os.close(self.listener)
            self.listener = None


def _listen_inside(pid: int, port: int) -> socket.socket:
    """A socket that listens in the network namespace of `pid`, which has a loopback and nothing else.

    On all of its addresses, because the loopback may not have its own yet.
    """
    network = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    if os.geteuid() != 0:
        _enter(fcntl.ioctl(network, NS_GET_USERNS), CLONE_NEWUSER)
    _enter(network, CLONE_NEWNET)
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.bind(("0.0.0.0", port))  # noqa: S104
    listener.listen(OUTLET_BACKLOG)
    return listener


def _enter(namespace: int, kind: int) -> None:
    if _libc.setns(namespace, kind) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _spawn(name: str, plan: dict[str, Any], secrets: dict[str, tuple[str, bytes]]) -> Stage:
    """Start bubblewrap for one stage, from this (the main) thread."""
    log_read, log_write = os.pipe()
    news_read, news_write = os.pipe()
    block_read, block_write = os.pipe()
    os.set_blocking(news_read, False)
    shim_pid = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            _become(
                name,
                plan,
                shim_pid,
                secrets,
                log=log_write,
                news=news_write,
                block=block_read,
                unblock=block_write,
            )
        except BaseException as error:
            os.write(log_write, f"perak: the sandbox can't be started: {error}\n".encode())
        finally:
            os._exit(127)
    for each in (log_write, news_write, block_read):
        os.close(each)
    return Stage(name, pid, log_read, news_read, block_write)


def _become(
    name: str,
    plan: dict[str, Any],
    shim_pid: int,
    secrets: dict[str, tuple[str, bytes]],
    *,
    log: int,
    news: int,
    block: int,
    unblock: int,
) -> None:
    """In the child: limits first, then the run's own user, then bubblewrap. Never bubblewrap as root.

    It keeps the end of the pipe that lets it start, too: were the shim killed now, bubblewrap would take
    the pipe's closing for leave to run the job without limits.
    """
    os.set_inheritable(unblock, True)
    for target in (1, 2):
        os.dup2(log, target)
    os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
    arguments = [each.encode() for each in plan["arguments"]] + _secret_arguments(name, plan, secrets)
    inherited = {"--json-status-fd": news, "--block-fd": block, "--args": _arguments_file(arguments)}
    if plan["seccomp"]:
        inherited["--seccomp"] = os.open(plan["seccomp"], os.O_RDONLY)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    hard = min(plan["nofile_max"], resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    os.chdir("/")
    os.umask(0o022)
    if plan["uid"] is not None:
        os.setgroups([])
        os.setresgid(plan["uid"], plan["uid"], plan["uid"])
        os.setresuid(plan["uid"], plan["uid"], plan["uid"])
    assert os.getuid() != 0
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # until bubblewrap asks for the same itself
    if os.getppid() != shim_pid:
        os._exit(127)
    for each in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(each, signal.SIG_DFL)
    argv = [plan["bwrap"]]
    for option, descriptor in inherited.items():
        os.set_inheritable(descriptor, True)
        argv += [option, str(descriptor)]
    argv += ["--", *plan["programs"][name]]
    os.execve(plan["bwrap"], argv, {"PATH": "/usr/bin:/bin"})  # noqa: S606 - there is no shell on purpose


def _arguments_file(arguments: list[bytes]) -> int:
    return _memory_file("arguments", b"".join(each + b"\0" for each in arguments))


def _secret_arguments(stage: str, plan: dict[str, Any], secrets: dict[str, tuple[str, bytes]]) -> list[bytes]:
    """What bubblewrap is told of secrets. Descriptors and not paths: they are in nobody's folder."""
    variables = {name: value for name, (kind, value) in secrets.items() if kind == "env"}
    arguments: list[bytes] = []
    for name, (kind, value) in secrets.items():
        if kind == "file":
            path = f"{plan['root']}{SECRETS}/{name}"
            arguments += _file_arguments("--file", path, value)
    if len(variables) < len(secrets):
        arguments += [b"--remount-ro", f"{plan['root']}{SECRETS}".encode()]
    if variables and stage in plan["configs"]:
        source, path = plan["configs"][stage]
        with open(source, "rb") as file:
            config = json.load(file)
        named = tuple(f"{name}=" for name in variables)
        env = [each for each in config["process"]["env"] if not each.startswith(named)]
        config["process"]["env"] = env + [f"{name}={value.decode()}" for name, value in variables.items()]
        arguments += _file_arguments("--ro-bind-data", path, json.dumps(config).encode())
    elif variables:
        for name, value in variables.items():
            arguments += [b"--setenv", name.encode(), value]
    return arguments


def _file_arguments(option: str, path: str, content: bytes) -> list[bytes]:
    file = _memory_file("secret", content)
    os.set_inheritable(file, True)
    return [b"--perms", SECRET_MODE.encode(), option.encode(), str(file).encode(), path.encode()]


def _memory_file(name: str, content: bytes) -> int:
    """An open file without a path, in memory only, to be read from its beginning."""
    file = os.memfd_create(name, os.MFD_CLOEXEC)
    with open(file, "wb", closefd=False) as stream:
        stream.write(content)
    os.lseek(file, 0, os.SEEK_SET)
    return file


def _counter(plan: dict[str, Any], name: str) -> float | None:
    """A number from the run's cgroup (path, key in the file or nothing, factor to our unit)."""
    if name not in plan["counters"]:
        return None
    path, key, scale = plan["counters"][name]
    for line in _read(path).splitlines():
        left, _, right = line.rpartition(" ")
        if left == key:
            return float(int(right) * scale)
    return None


def _read(path: str) -> str:
    """A small file's text, empty when it isn't there."""
    try:
        with open(path, "rb") as file:
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def _stat_fields(pid: str) -> list[str]:
    """/proc/PID/stat from its third field (state) on, empty when there is no such process."""
    return _read(f"/proc/{pid}/stat").rpartition(")")[2].split()


def _parent(pid: int) -> int:
    fields = _stat_fields(str(pid))
    return int(fields[1]) if fields else 0


def _resident_bytes(pid: int) -> int:
    fields = _stat_fields(str(pid))
    return int(fields[21]) * resource.getpagesize() if fields else 0


def _children(parent: int) -> list[int]:
    return [int(each) for each in os.listdir("/proc") if each.isdigit() and _parent(int(each)) == parent]


def _below(root: int) -> list[int]:
    """The processes below `root`, without it."""
    parents = {int(each): _parent(int(each)) for each in os.listdir("/proc") if each.isdigit()}
    found: list[int] = []
    level = {root}
    while level:
        level = {pid for pid, parent in parents.items() if parent in level}
        found += level
    return found


def _owned_by(uid: int) -> list[int]:
    found = []
    for each in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            if each.isdigit() and os.stat(f"/proc/{each}").st_uid == uid:
                found.append(int(each))
    return found


def _catches_term(pid: int) -> bool:
    for line in _read(f"/proc/{pid}/status").splitlines():
        if line.startswith("SigCgt:"):
            return bool(int(line.split()[1], 16) >> (signal.SIGTERM - 1) & 1)
    return False


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(OSError):
        os.kill(pid, number)


def _is_full(folder: str) -> bool:
    try:
        room = os.statvfs(folder)
    except OSError:
        return False
    return room.f_bavail * room.f_frsize < FULL_BYTES or room.f_favail == 0


def _files_taken(folder: str) -> int:
    """How many files the scratch has room for, where that is what it is full of; else 0."""
    try:
        room = os.statvfs(folder)
    except OSError:
        return 0
    return room.f_files if room.f_favail == 0 else 0


def tree_use(folder: str) -> tuple[int, int]:
    """(bytes on disk, files and folders) below `folder`; what vanishes meanwhile isn't counted."""
    total = files = 0
    folders = [folder]
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    total += entry.stat(follow_symlinks=False).st_blocks * 512
                    files += 1
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
        except OSError:
            continue
    return total, files


def number_after(data: bytes, key: bytes) -> int | None:
    _, found, rest = data.partition(key)
    digits = rest.split(b"\n")[0].split(b",")[0].strip(b" :}")
    return int(digits) if found and digits.isdigit() else None


def _write_when_there_is_room(folder: str, name: str, record: dict[str, Any]) -> None:
    """Nobody but the shim knows how the run ended: on a full disk it waits."""
    while True:
        try:
            return _write_durably(folder, name, record)
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            time.sleep(ROOM_LOOK_SECONDS)


def _write_durably(folder: str, name: str, record: dict[str, Any]) -> None:
    """In place at once, and still there after a power cut."""
    draft = os.path.join(folder, f".{name}")
    with open(draft, "w") as file:
        json.dump(record, file)
        file.flush()
        os.fsync(file.fileno())
    os.rename(draft, os.path.join(folder, name))


if __name__ == "__main__":
    serve(int(sys.argv[1]))
