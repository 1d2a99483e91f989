"""The parent's side: starts the inspecting process, follows it, and knows what it means when it dies.

OpenCL takes 200 MiB and its drivers crash; so nothing of it is ever loaded into the agent. A process that
dies on a device leaves a report too: what was being tried failed, what came after did not run. The next
process goes on with the devices that are left.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from queue import Empty, SimpleQueue

import msgspec

from perak.agent.inspect import talk
from perak.domain.errors import Unavailable
from perak.domain.hardware import inspection as i
from perak.domain.hardware.challenge import Answer, Challenge
from perak.domain.hardware.inspection import Check, DeviceIdentity, DeviceInspection, complete
from perak.domain.hardware.wipe import WipeRecord

SILENT_SECONDS_MAX = 600.0
"""Between two lines; the longest test of one card (141 GiB, nine passes) takes a tenth of it."""
STDERR_BYTES_MAX = 8192
DEVICES_MAX = 64

Say = Callable[[talk.Said], None]


class CannotInspect(Unavailable):
    """There is nothing to inspect, or nothing to inspect it with; the message says what to do."""

    code = "cannot_inspect"


class Cancelled(Exception):
    """The process was ended by `Runner.cancel`; what it had found is not told."""


@dataclass(slots=True, kw_only=True)
class Runner:
    """Runs one thing, in one process after another; `cancel` may come from another thread at any time."""

    python: str = sys.executable
    env: Mapping[str, str] = field(default_factory=dict)
    silent_seconds_max: float = SILENT_SECONDS_MAX
    _process: subprocess.Popen[bytes] | None = None
    _cancelled: bool = False

    def cancel(self) -> None:
        """End it now: a lease wants the device."""
        self._cancelled = True
        process = self._process
        if process is not None and process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

    def inspect(self, request: talk.Inspect, *, say: Say = lambda _: None) -> list[DeviceInspection]:
        """Inspect devices; blocks until all are done. Raises CannotInspect where nothing can be."""
        found: list[DeviceInspection] = []
        done: list[str] = []
        for _ in range(DEVICES_MAX):
            turn = _Turn(request)
            end = self._run(msgspec.structs.replace(request, skip=tuple(done)), partial(turn.hear, say=say))
            found += turn.inspections
            done += turn.places
            if turn.trouble is not None:
                raise CannotInspect(turn.trouble)
            if turn.began is None:
                if end and not found:
                    raise CannotInspect(f"The inspecting process could not begin: {end}")
                return found
            lost = turn.lost(end or "it said no more")
            found.append(lost)
            done.append(turn.began.place)
            say(talk.Inspected(place=turn.began.place, inspection=lost))
        return found

    def wipe(self, devices: tuple[str, ...], *, lease: str, cpu: bool = False) -> list[WipeRecord]:
        """Overwrite devices after a lease; a record for each, whatever happens."""
        started_at = time.time_ns() // 1_000_000
        records: list[WipeRecord] = []
        trouble: list[str] = []

        def hear(message: talk.Said) -> None:
            if isinstance(message, talk.Wiped):
                records.append(message.record)
            elif isinstance(message, talk.Trouble):
                trouble.append(message.why)

        end = self._run(talk.Wipe(devices=devices, lease=lease, cpu=cpu), hear)
        told = {record.device for record in records}
        return records + [
            WipeRecord(
                device=device,
                lease=lease,
                status="not_run" if trouble else "failed",
                reason=(trouble[0] if trouble else f"the wiping process ended: {end}")[:500],
                started_at=started_at,
                ended_at=time.time_ns() // 1_000_000,
            )
            for device in devices
            if device not in told
        ]

    def prove(self, challenge: Challenge) -> Answer:
        """Answer a challenge; an answer comes whatever happens."""
        answers: list[Answer] = []

        def hear(message: talk.Said) -> None:
            if isinstance(message, talk.Proved):
                answers.append(message.answer)
            elif isinstance(message, talk.Trouble):
                answers.append(Answer(challenge=challenge.id, problem=message.why[:500]))

        end = self._run(talk.Prove(challenge=challenge), hear)
        return answers[0] if answers else Answer(challenge=challenge.id, problem=f"its process ended: {end}")

    def _run(self, request: talk.Request, hear: Say) -> str | None:
        """Run one process to its end; why it ended, where it did not end well."""
        if self._cancelled:
            raise Cancelled
        process = self._process = subprocess.Popen(
            [self.python, "-m", "perak.agent.inspect"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **self.env},
            start_new_session=True,
        )
        assert process.stdin is not None
        if self._cancelled:
            self.cancel()
        try:
            process.stdin.write(talk.encode(request))
            process.stdin.close()
        except BrokenPipeError:
            pass  # It ended at once; its exit tells.
        last_words: list[bytes] = []
        reader = threading.Thread(target=_keep_end, args=(process, last_words), daemon=True)
        reader.start()
        silent = False
        try:
            for line in _lines(process, self.silent_seconds_max):
                if line is None:
                    silent = True
                    os.killpg(process.pid, signal.SIGKILL)
                    break
                hear(talk.decode_said(line))
        finally:
            _end(process)
            reader.join(timeout=1.0)
        if self._cancelled:
            raise Cancelled
        if silent:
            return f"it said nothing for {self.silent_seconds_max:g} s, and was ended"
        return _why(process.returncode, b"".join(last_words))


@dataclass(slots=True)
class _Turn:
    """What one process has said."""

    request: talk.Inspect
    began: talk.Began | None = None
    """The device under inspection, until it is done."""
    inspections: list[DeviceInspection] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    trouble: str | None = None
    _checks: list[Check] = field(default_factory=list)
    _trying: tuple[str, ...] = ()
    _started_at: int = 0

    def hear(self, message: talk.Said, say: Say) -> None:
        match message:
            case talk.Began():
                self.began = message
                self._checks, self._trying = [], ()
                self._started_at = time.time_ns() // 1_000_000
            case talk.Checking(names=names):
                self._trying = names
            case talk.Checked(check=check):
                self._checks.append(check)
            case talk.Inspected(place=place, inspection=inspection):
                self.inspections.append(inspection)
                self.places.append(place)
                self.began = None
            case talk.Trouble(why=why):
                self.trouble = why
            case _:
                pass
        say(message)

    def lost(self, end: str) -> DeviceInspection:
        """The report of an inspection whose process died."""
        assert self.began is not None
        identity: DeviceIdentity = self.began.identity
        why = f"the inspecting process died on the device: {end}"[:500]
        done = {check.name for check in self._checks}
        tried = next((name for name in self._trying if name not in done), None)
        if tried is not None:
            unit = i.BY_NAME[tried].unit
            self._checks.append(Check(name=tried, status="failed", reason=why, unit=unit))
        return DeviceInspection(
            identity=replace(identity),
            kind=self.request.kind,
            trigger=self.request.trigger,
            started_at=self._started_at,
            ended_at=time.time_ns() // 1_000_000,
            checks=complete(self._checks, why=why),
        )


def _lines(process: subprocess.Popen[bytes], silent_seconds_max: float) -> Iterator[bytes | None]:
    """Its lines until it ends; None once it has been silent for too long."""
    queue: SimpleQueue[bytes | None] = SimpleQueue()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            queue.put(line)
        queue.put(None)

    threading.Thread(target=read, daemon=True).start()
    while True:
        try:
            line = queue.get(timeout=silent_seconds_max)
        except Empty:
            yield None
            return
        if line is None:
            return
        yield line


def _keep_end(process: subprocess.Popen[bytes], last_words: list[bytes]) -> None:
    assert process.stderr is not None
    kept = b""
    while chunk := process.stderr.read1(4096):  # type: ignore[attr-defined]
        kept = (kept + chunk)[-STDERR_BYTES_MAX:]
    last_words.append(kept)


def _end(process: subprocess.Popen[bytes]) -> None:
    """See to it that it is gone: it has a moment to end by itself."""
    try:
        process.wait(timeout=2.0)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _why(code: int, last_words: bytes) -> str | None:
    if code == 0:
        return None
    said = last_words.decode(errors="replace").strip().rsplit("\n", 1)[-1][:300]
    if code < 0:
        try:
            how = f"signal {signal.Signals(-code).name}"
        except ValueError:
            how = f"signal {-code}"
    else:
        how = f"exit {code}"
    return f"{how}: {said}" if said else how
