"""A run's whole life: its stages one after the other, its limits, its end."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import signal
import time
from typing import TYPE_CHECKING

from perak.agent.shim import ending, kernel, proc
from perak.agent.shim.limits import Watch, counter
from perak.agent.shim.log import Log
from perak.agent.shim.outlet import Outlet
from perak.agent.shim.poke import NEVER, Poke
from perak.agent.shim.stage import Stage, spawn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from perak.agent.sandbox.launch import Launch
    from perak.agent.shim.secret_files import Secrets

TICK_SECONDS = 0.5  # how often limits are looked at that the kernel doesn't hold
LINGER_SECONDS = 2.0  # for output, once every process is gone: none but a terminal could still hold the pipe
GRACE_SECONDS = 10.0  # when a stop doesn't say


class Shim:
    """One loop over pipes, signals and deadlines."""

    def __init__(self, folder: str, plan: Launch, started_at: float, secrets: Secrets) -> None:
        self.folder = folder
        self.secrets = secrets
        self.plan = plan
        self.started_at = self.ended_at = started_at
        self.deadline = time.monotonic() + plan["max_duration_seconds"]
        self.kill_at = NEVER
        self.next_tick = time.monotonic() + TICK_SECONDS
        self.end_cause: str | None = None
        self.detail: str | None = None
        self.cpu_seconds = 0.0
        self.memory_peak = 0
        self.watch = Watch(plan)
        self.poke = Poke(plan["poke_folder"], plan["run_id"])
        self.log = Log(folder, plan, secrets, self.poke)
        port = plan.get("proxy_port")
        self.outlet = Outlet(plan["poke_folder"], plan["run_id"], port) if port else None
        self.wake_read, self.wake_write = os.pipe()
        self._watch_signals()
        # What bubblewrap leaves behind becomes our child, so that we see it end and count what it used.
        kernel.adopt_orphans()

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
        stage = spawn(name, self.plan, self.secrets)
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
        self.log.end_stage()
        for each in (stage.log, stage.news, stage.unblock):
            if each is not None:
                os.close(each)
        if self.outlet is not None:
            self.outlet.close()
        return stage

    def _wait(self, stage: Stage, until: float) -> None:
        """Wait for output, news, a signal or the next deadline, and take in what came."""
        poll = select.poll()
        # What the job left in its pipe when it ended is little, and is taken.
        paused = self.log.pause_seconds() if stage.code is None else 0.0
        for each in (None if paused else stage.log, stage.news, self.wake_read):
            if each is not None:
                poll.register(each, select.POLLIN)
        until = min(until, self.poke.at, self.log.scrub.show_at)
        if paused:
            until = min(until, time.monotonic() + paused)
        if stage.has_children:
            until = min(until, self.next_tick)
        if stage.code is None:
            until = min(until, self.deadline, self.kill_at)
        events = poll.poll(max(0.0, (until - time.monotonic()) * 1000) + 0.5)
        for ready, _ in events:
            if ready == stage.log:
                stage.log = self.log.take(ready)
            elif ready == stage.news:
                self._take_news(stage)
            elif signal.SIGTERM in os.read(self.wake_read, 4096):
                self._take_stop(stage)
        self.log.show_due()
        self.poke.send_if_due()

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
            if limit is not None and self.plan["uid"] is None:  # else `stage` has set it already
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
            with contextlib.suppress(BrokenPipeError):  # bubblewrap failed meanwhile, and has said why
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
            # SIGKILL to bubblewrap takes its whole process namespace along (--die-with-parent).
            proc.send_signal(stage.pid, signal.SIGKILL)
        if now >= self.next_tick:
            self.next_tick = now + TICK_SECONDS
            if (broken := self.watch.look(stage.inner_pid)) is not None:
                self._end(stage, *broken, 0.0)
            if self.outlet is not None:
                self.outlet.hand_over()

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
                proc.send_signal(pid, signal.SIGTERM)

    def _to_terminate(self, stage: Stage) -> Iterator[int]:
        """Every process of the job but a shell that merely waits: its death would take the others' grace.

        Where the job's own processes can't be told from the runtime's, the runtime itself passes it on.
        """
        if stage.inner_pid is None:
            return
        top = stage.inner_pid
        for _ in range(self.plan["layers"]):
            top = next(iter(proc.children(top)), top)
        if self.plan["stop_by"] == "runtime":
            yield from proc.children(top)
            return
        tree = proc.below(top)
        parents = {proc.parent(pid) for pid in tree}
        for pid in tree:
            waits = pid in parents and proc.parent(pid) == top
            if not waits or proc.catches_term(pid):
                yield pid

    def _kill_rest(self, stage: Stage) -> None:
        """Nothing may be left: what the job put into the background dies with its first process."""
        for path in self.plan["joins"]:
            for line in proc.read(path).split():
                proc.send_signal(int(line), signal.SIGKILL)
        if not stage.started and self.plan["uid"] is not None:  # it may not have joined any group yet
            for pid in proc.owned_by(self.plan["uid"]):
                proc.send_signal(pid, signal.SIGKILL)

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
            self.memory_peak = max(self.memory_peak, usage.ru_maxrss * 1024)
            if pid == stage.pid:
                stage.code = os.waitstatus_to_exitcode(status)
                self.ended_at = time.time()
                if stage.news is not None:  # its last words
                    self._take_news(stage)

    def _finish(self, stage: Stage) -> None:
        """Decide the cause, measure, and write exit.json durably."""
        cause, detail = self.end_cause, self.detail
        if cause is None:
            cause, why = ending.cause(stage, self.plan, self.watch, self.log.last_words)
            detail = why or detail
        code = ending.exit_code(stage)
        cpu, memory = counter(self.plan, "cpu"), counter(self.plan, "memory_peak")
        seen = max(self.memory_peak, self.watch.memory_seen)
        record = {
            "run_id": self.plan["run_id"],
            "state": "exited",
            "started_at": self.started_at,
            "ended_at": self.ended_at,
            "exit_code": code,
            "cause": cause,
            "signal": ending.killed_by(code),
            "cpu_seconds": self.cpu_seconds if cpu is None else cpu,
            "memory_peak_bytes": int(memory) if memory is not None else seen or None,
            "log_bytes": self.log.close(),
            "detail": detail,
        }
        ending.write_when_there_is_room(self.folder, "exit.json", record)
        self.poke.send()


def number_after(data: bytes, key: bytes) -> int | None:
    """The number after `key` in bubblewrap's JSON, which may come in pieces."""
    _, found, rest = data.partition(key)
    digits = rest.split(b"\n")[0].split(b",")[0].strip(b" :}")
    return int(digits) if found and digits.isdigit() else None
