"""What a node's core is told (`perak.agent.core`). Any event may come twice, late or out of order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from perak.domain.report import OutputBlob
from perak.wire.session import LeaseOrder

if TYPE_CHECKING:
    from perak.agent.sandbox import RunStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class DesiredReceived:
    """The exchange's whole list of leases."""

    leases: tuple[LeaseOrder, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFound:
    """A run of an earlier life of the agent, from the journal and the sandbox. `status` None: no trace of it.

    `start_asked`: the start was journalled, whether or not it came to pass.
    """

    order: LeaseOrder
    status: RunStatus | None
    start_asked: bool = False
    started_reported: bool = False
    stop_cause: str | None = None
    exit_journalled: bool = False
    exit_acknowledged: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class WasReleased:
    """A run that an earlier life of the agent released: it is never started again."""

    run: str
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareDone:
    run: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The work under way on a run failed; `cause` is one of CAUSES."""

    run: str
    cause: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusChanged:
    """What the sandbox says of a run now."""

    status: RunStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class LogDrained:
    """The whole log of an ended run is in the journal."""

    run: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputsPacked:
    """The outputs are with the exchange. `outputs` None: nothing matched. `failure`: why there are none."""

    run: str
    outputs: OutputBlob | None
    failure: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitJournalled:
    """The last report of a run is on disk."""

    run: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitAcknowledged:
    """The exchange has applied the last report of a run."""

    run: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """The folder of a run is deleted."""

    run: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceFaulted:
    """A device (UUID) failed so that no run can go on with it; `detail` names both. `at`: Unix seconds."""

    device: str
    detail: str
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """Time passes; `now` in seconds on any steady clock."""

    now: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """A reading of a running run: `joules` drawn in all by `at`, in Unix seconds."""

    run: str
    joules: float
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """The exchange can be asked again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CutOff:
    """The exchange can't be asked any more, until Joined."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """The agent leaves for good: end every run and take no new one."""


Event = (
    DesiredReceived
    | RunFound
    | WasReleased
    | PrepareDone
    | Failed
    | StatusChanged
    | LogDrained
    | OutputsPacked
    | ExitJournalled
    | ExitAcknowledged
    | Released
    | DeviceFaulted
    | Tick
    | Drawn
    | Joined
    | CutOff
    | Drain
)
