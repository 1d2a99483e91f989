"""What a node says: numbered reports, and the facts they carry.

A report travels as a JWS signed by the node's key. Its payload is the JSON of
``{"seq": int, "node": id, "at": ms, "type": name, "body": {...}}``; `seq` grows by one without gaps for the
life of the node, so the exchange applies each report once and in order. Times are Unix milliseconds (UTC).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from perak.domain.checklist import Checklist
from perak.domain.hardware.challenge import Answer
from perak.domain.hardware.inspection import DeviceInspection
from perak.domain.hardware.wipe import WipeRecord
from perak.domain.offer import OfferAsk


@dataclass(frozen=True, slots=True, kw_only=True)
class OfferPosted:
    """The node's standing offer as it is now; replaces what was there."""

    offer: OfferAsk


@dataclass(frozen=True, slots=True, kw_only=True)
class ChecklistPosted:
    """How the escape checklist came out in one sandbox tier; offers, leases and receipts name its digest."""

    checklist: Checklist


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPreparing:
    """The node is getting the work folder or the environment ready; `detail` is for people."""

    run: str
    lease: str
    epoch: int
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted:
    """The sandbox started."""

    run: str
    lease: str
    epoch: int
    started_at: int
    tier: str
    enforced: tuple[str, ...] = ()
    unenforced: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogChunk:
    """Bytes of the run's log (stdout and stderr together) from `offset`; a repeated chunk is harmless."""

    run: str
    lease: str
    epoch: int
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Metered:
    """Evidence that the run was alive until `until`. Money follows it.

    `memory_bytes`: what it uses now; None where the node can't tell.
    """

    run: str
    lease: str
    epoch: int
    until: int
    cpu_seconds: float
    memory_bytes: int | None
    energy_joules: float
    energy_method: str
    energy_hours: tuple[tuple[int, float], ...] = ()
    """(hour since 1970, joules drawn in it), which sum to `energy_joules`; empty: not said."""
    energy_samples: int | None = None
    """Readings that the energy rests on; None: not said."""
    energy_modelled: tuple[str, ...] = ()
    """What nothing measured: ``cpu``, or devices' UUIDs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputBlob:
    """The packed outputs of a run. `digest` is ``sha256:<hex>``; None: all that was there is in `skipped`.

    `missing`: what the job named and did not leave; `skipped`: what it left and can't be taken, each with the
    reason (a pipe, a link out of the work folder).
    """

    digest: str | None
    size_bytes: int
    file_count: int
    missing: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkUse:
    """Bytes of a run that went out and came in through the node's proxy, and requests that it refused."""

    sent_bytes: int
    received_bytes: int
    refused: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunExited:
    """The run ended. `cause` is one of CAUSES; `started_at` is None when the sandbox never started.

    `memory_peak_bytes`: None where it never started, or the node can't tell.
    """

    run: str
    lease: str
    epoch: int
    started_at: int | None
    ended_at: int
    exit_code: int | None
    cause: str
    detail: str | None
    cpu_seconds: float
    memory_peak_bytes: int | None
    energy_joules: float
    energy_method: str
    energy_uncertainty_percent: float
    log_bytes: int
    outputs: OutputBlob | None = None
    network: NetworkUse | None = None
    """None: the run had no network."""
    energy_hours: tuple[tuple[int, float], ...] = ()
    """As in `Metered`."""
    energy_samples: int | None = None
    energy_modelled: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRefused:
    """The node can't run this lease; nothing is billed. `cause` is one of CAUSES."""

    run: str
    lease: str
    epoch: int
    cause: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensor:
    """One temperature. `id` is a device's UUID, or names a sensor of the machine; `name` is for people.

    `hot_celsius`: where the part slows itself; `limit_source` says who says so.
    """

    id: str
    name: str
    celsius: float
    hot_celsius: float
    limit_source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """The temperatures of the node as they are at the report's time; a sensor that can't be read is absent.

    Sent when a part turns hot or cool, and every few minutes: what was missed comes again.
    """

    sensors: tuple[Sensor, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspected:
    """A device was inspected; the exchange grades it, and its passport keeps the digest."""

    inspection: DeviceInspection


@dataclass(frozen=True, slots=True, kw_only=True)
class Wiped:
    """The memory of a device was overwritten after a lease, or could not be."""

    record: WipeRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Faulted:
    """The driver told a fault of a device, between inspections; `kind`: one of FAULTS, `xid`: its number."""

    device: str
    xid: int | None = None
    kind: str = "xid"


@dataclass(frozen=True, slots=True, kw_only=True)
class Proved:
    """A device's answer to a challenge of the exchange's; a node with several sends one report for each."""

    answer: Answer


RunBody = RunPreparing | RunStarted | LogChunk | Metered | RunExited | RunRefused
"""What a node says of one run."""
NodeBody = OfferPosted | Health | ChecklistPosted | Inspected | Wiped | Proved | Faulted
"""What it says of itself and its devices."""
Body = NodeBody | RunBody
Evidence = Metered | RunExited | ChecklistPosted | Inspected | Wiped
"""What is shown to others as proof, and therefore travels with the node's certificates."""

REPORT_TYPES: dict[str, type[Body]] = {
    "offer_posted": OfferPosted,
    "health": Health,
    "checklist_posted": ChecklistPosted,
    "inspected": Inspected,
    "wiped": Wiped,
    "proved": Proved,
    "faulted": Faulted,
    "run_preparing": RunPreparing,
    "run_started": RunStarted,
    "log_chunk": LogChunk,
    "metered": Metered,
    "run_exited": RunExited,
    "run_refused": RunRefused,
}

FAULTS = ("xid", "lost", "uncorrected")
"""An Xid; the device answers its driver no more; new errors in its memory that could not be corrected."""

CAUSES = {
    "exited": "the job ended by itself",
    "signal": "the job was ended by a signal of its own making",
    "oom": "the job used more memory than it asked for",
    "max_duration": "the job reached its max_duration",
    "disk_full": "the job filled its disk",
    "setup": "the setup script failed",
    "environment": "the Python environment could not be made",
    "image": "the image could not be used",
    "inputs": "an input could not be had",
    "secrets": "a secret could not be given to the job",
    "workdir": "the work folder could not be unpacked",
    "outputs": "the outputs could not be collected",
    "cancelled": "the renter cancelled the job",
    "funds": "the wallet was empty",
    "max_cost": "the job reached its max_cost",
    "max_carbon": "the job would have passed its max_carbon",
    "fenced": "the lease had passed to another run",
    "node_lost": "the node was lost",
    "device_fault": "a device failed",
    "sandbox": "the sandbox could not be started or was lost",
    "preempted": "another run took its place",
    "reclaimed": "the owner took the machine back",
}
"""Why a run ended, and the words for it."""

NODE_CAUSES = frozenset({"node_lost", "device_fault", "sandbox", "preempted", "reclaimed", "fenced"})
"""Causes that are not the renter's doing: the job may be run again, and the run costs the renter nothing
where it never started."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One numbered report of a node. `jws` is the signed text it came in: the evidence."""

    seq: int
    node: str
    at: int
    body: Body
    jws: str
