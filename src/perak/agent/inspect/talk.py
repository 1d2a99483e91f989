"""What an inspecting process and its parent say to each other: one JSON line each."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from perak.domain.hardware.challenge import Answer, Challenge
from perak.domain.hardware.inspection import Check, DeviceIdentity, DeviceInspection, Kind, Trigger
from perak.domain.hardware.wipe import WipeRecord

_T = TypeVar("_T")

CPU_MEMORY_BYTES = 256 * 2**20
CPU_MEMORY_BYTES_QUICK = 128 * 2**20
"""Of a machine's own memory, which others need too: halves of it are copied, and most caches hold less."""
RUN_SECONDS = 0.05
RUN_SECONDS_QUICK = 0.02
"""Of one timed run: long beside a launch (some 10 us), short before any watchdog."""


class Inspect(msgspec.Struct, tag="inspect", frozen=True, kw_only=True):
    """Inspect devices, by their places in the list of all; empty: every one.

    `skip`: places that were inspected already, by a process that died since. `earlier_uuids`: by place and
    serial number, what devices were called before.
    """

    kind: Kind = "full"
    trigger: Trigger = "hand"
    soak_seconds: float = 0.0
    devices: tuple[int, ...] = ()
    uuids: tuple[str, ...] = ()
    """In the place of `devices`, where the vendor's are known."""
    skip: tuple[str, ...] = ()
    cpu: bool = True
    cpu_memory_bytes: int | None = None
    """Here and below, None: what suits `kind`."""
    fade_seconds: float | None = None
    run_seconds: float | None = None
    product_size: int | None = None
    earlier_uuids: dict[str, tuple[str, ...]] = {}

    @property
    def cpu_bytes_max(self) -> int:
        """How much of a machine's own memory is tested and copied."""
        return self.cpu_memory_bytes or (CPU_MEMORY_BYTES_QUICK if self.kind == "quick" else CPU_MEMORY_BYTES)

    @property
    def timed_seconds(self) -> float:
        """How long one timed run takes."""
        return self.run_seconds or (RUN_SECONDS_QUICK if self.kind == "quick" else RUN_SECONDS)


class Wipe(msgspec.Struct, tag="wipe", frozen=True, kw_only=True):
    """Overwrite the memory of devices after a lease."""

    devices: tuple[str, ...]
    lease: str = ""
    cpu: bool = False


class Prove(msgspec.Struct, tag="prove", frozen=True, kw_only=True):
    """Answer a challenge, every device of it at once."""

    challenge: Challenge


class Began(msgspec.Struct, tag="began", frozen=True, kw_only=True):
    """A device's turn; `place` names it in `Inspect.skip`. `count` and `number`: of how many it is which."""

    place: str
    identity: DeviceIdentity
    number: int
    count: int


class Checking(msgspec.Struct, tag="checking", frozen=True, kw_only=True):
    """What is tried now: names of checks."""

    names: tuple[str, ...]


class Checked(msgspec.Struct, tag="checked", frozen=True, kw_only=True):
    check: Check


class Inspected(msgspec.Struct, tag="inspected", frozen=True, kw_only=True):
    place: str
    inspection: DeviceInspection


class Wiped(msgspec.Struct, tag="wiped", frozen=True, kw_only=True):
    record: WipeRecord


class Proved(msgspec.Struct, tag="proved", frozen=True, kw_only=True):
    answer: Answer


class Trouble(msgspec.Struct, tag="trouble", frozen=True, kw_only=True):
    """There is nothing to work on, and why."""

    why: str


Request = Inspect | Wipe | Prove
Said = Began | Checking | Checked | Inspected | Wiped | Proved | Trouble

_encoder = msgspec.json.Encoder()
_request: msgspec.json.Decoder[Request] = msgspec.json.Decoder(Request)
_said: msgspec.json.Decoder[Said] = msgspec.json.Decoder(Said)


def encode(message: Request | Said) -> bytes:
    return _encoder.encode(message) + b"\n"


def decode_request(line: bytes) -> Request:
    return _request.decode(line)


def decode_said(line: bytes) -> Said:
    return _said.decode(line)
