"""What a node's core asks to be done (`perak.agent.core`), to be carried out in order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from perak.domain.report import OutputBlob
from perak.wire.session import LeaseOrder

if TYPE_CHECKING:
    from perak.agent.sandbox import RunStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Adopt:
    """Write the order to the journal; comes before anything else that is done for a run."""

    order: LeaseOrder


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepare:
    """Make folder, environment and work folder; answer PrepareDone or Failed."""

    order: LeaseOrder


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Journal the intent, then start the sandbox; answer StatusChanged or Failed."""

    run: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """Journal the cause, then end the run; its end comes as StatusChanged."""

    run: str
    cause: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportStarted:
    order: LeaseOrder
    status: RunStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainLog:
    """Report the rest of the log of an ended run; answer LogDrained."""

    order: LeaseOrder
    status: RunStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectOutputs:
    """Pack and upload; answer OutputsPacked."""

    order: LeaseOrder


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportExit:
    """Journal the last report of a run; answer ExitJournalled. `status` None: it never started.

    `failed_at`: when its device failed, where that ended it (Unix seconds): nothing after is proven.
    """

    order: LeaseOrder
    cause: str
    detail: str | None
    status: RunStatus | None
    outputs: OutputBlob | None
    failed_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportRefused:
    """Journal that the run can't be made; answer ExitJournalled."""

    order: LeaseOrder
    cause: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Meter:
    """Report the evidence that a run is alive, and what it uses."""

    order: LeaseOrder


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """Delete the folder of a run and forget its journal entry; answer Released."""

    run: str


Instruction = (
    Adopt
    | Prepare
    | Start
    | Stop
    | ReportStarted
    | DrainLog
    | CollectOutputs
    | ReportExit
    | ReportRefused
    | Meter
    | Release
)
