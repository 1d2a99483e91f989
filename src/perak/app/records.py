"""What the use cases read and write, as values. Times are aware UTC datetimes, money micro-units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from perak.domain.hardware.challenge import Answer, Challenge
from perak.domain.hardware.inspection import DeviceInspection
from perak.domain.hardware.passport import Use
from perak.domain.hardware.reference import Reference
from perak.domain.job import JobSpec
from perak.domain.offer import OfferAsk
from perak.domain.outcome import Settlement
from perak.domain.report import Metered, NetworkUse, OutputBlob
from perak.domain.whereabouts import CLAIMED, Whereabouts


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeFacts:
    """What is fixed at an exchange's first start."""

    name: str
    currency: str
    fee_basis_points: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who asks: a key of a project, with its roles; `scope` is one of SCOPES."""

    key: str
    key_name: str
    project: str
    project_name: str
    roles: frozenset[str]
    scope: str = "full"
    expires_at: datetime | None = None
    used_at: datetime | None = None
    """When the key was last used, some time ago."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRecord:
    id: str
    project: str
    name: str
    state: str
    spec: JobSpec
    epoch: int
    attempts: int
    hold_mode: str
    created_at: datetime
    started_at: datetime | None
    brought_bytes: int = 0
    """What each run of it has to be brought by the exchange: its work folder, outputs of earlier jobs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRecord:
    id: str
    job: str
    project: str
    offer: str
    offer_version: int
    node: str
    provider: str
    epoch: int
    state: str
    price: int
    devices_milli: int
    devices: tuple[str, ...]
    cpu_milli: int
    memory_bytes: int
    disk_bytes: int
    max_duration_seconds: int
    duration_limited_by: str
    stop_cause: str | None
    granted_at: datetime
    checklist: str | None = None
    """The digest of the escape checklist's result in the tier that the job is to have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    id: str
    lease: str
    attempt: int
    state: str
    tier: str | None
    enforced: tuple[str, ...]
    unenforced: dict[str, str]
    started_at: datetime | None
    log_bytes: int
    evidence: Metered | None
    evidence_jws: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Engagement:
    """A job with its lease and run: what a report or a watch duty works on, locked together."""

    job: JobRecord
    lease: LeaseRecord
    run: RunRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldFunds:
    """A pending transfer from a wallet to the escrow."""

    transfer: int
    amount: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Accounts:
    """The ledger's numbers of the accounts that a settlement moves money between."""

    wallet: int
    escrow: int
    earnings: int
    fees: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SettlementFacts:
    """What a settlement has to know besides the engagement; read once that is locked."""

    held: tuple[HeldFunds, ...]
    """Oldest first."""
    accounts: Accounts
    ask: OfferAsk
    """What the offer says now; the lease has the price."""
    where: Whereabouts = CLAIMED
    """What supports the offer's region."""
    emitted_grams: float = 0.0
    """Operational CO2e of the job's runs before this one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewLease:
    """A lease and its run as the applier commits them."""

    lease: LeaseRecord
    run: str
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnd:
    """How a run ended, by the node's signed word or its silence. Times in Unix ms by the node's clock.

    `reported_cause` is the node's own word, which the receipt repeats; `cause` is what it means here.
    """

    cause: str
    reported_cause: str
    started_at_ms: int | None
    until_ms: int
    exit_code: int | None
    detail: str | None
    energy_joules: float
    energy_method: str
    energy_uncertainty_percent: float
    log_bytes: int | None
    outputs: OutputBlob | None
    evidence_jws: str | None
    network: NetworkUse | None = None
    energy_hours: tuple[tuple[int, float], ...] = ()
    energy_samples: int | None = None
    energy_modelled: tuple[str, ...] = ()
    fenced: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRecord:
    id: str
    project: str
    name: str
    state: str
    mode: str
    sign_key: bytes
    certificate_chain: str
    certificate_expires_at: datetime
    report_seq: int
    agent_id: str | None


@dataclass(frozen=True, slots=True)
class SessionHold:
    """Which replica has a node's session, if any, and when that last heard of the node."""

    replica: int | None
    seen_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Connected:
    """What a node's new session changes on it. `session`: a number of this session alone."""

    node: str
    state: str
    agent: str
    agent_version: str
    boot: str
    session: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Heat:
    """Which sensors of a node count as hot, and since when the node is as it is, hot or cool."""

    hot: tuple[str, ...] = ()
    turned_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewInspection:
    """An inspection as it is kept. `model`: what the device is compared with; `jws`: the node's report."""

    digest: str
    inspection: DeviceInspection
    model: str
    throughputs: Mapping[str, float]
    jws: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Provable:
    """A node whose devices are all free. `steps_per_second`: of each alone; None: it was never measured."""

    node: str
    devices: tuple[str, ...]
    steps_per_second: tuple[float | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenChallenge:
    """A challenge that waits to be judged. `elapsed_seconds`: by our clock; None: no answer came."""

    node: str
    challenge: Challenge
    allowed_seconds: float | None
    answer: Answer
    elapsed_seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceHistory:
    """What is known of a device, its model and its host, when it is graded; inspections oldest first.

    `spread`: deciles of its model's throughputs. Rates as `perak.domain.hardware.hazard` takes them.
    """

    inspections: tuple[DeviceInspection, ...]
    grade: str | None
    reference: Reference
    spread: Mapping[str, Sequence[float]]
    use: Use
    class_failures: float
    class_years: float
    host_departures: float
    host_hours: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Unrated:
    """A standing whose failures per hour are to be counted again, of what they come from."""

    node: str
    device: str
    score: float | None
    class_failures: float
    class_years: float
    host_departures: float
    host_hours: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedReceipt:
    """A receipt as it is stored: the exchange's signature over all of it, and its figures to search by."""

    id: str
    payload: dict[str, object]
    """What is signed, without `evidence`: that is most of it, and the token has it already."""
    jws: str
    energy_joules: float | None
    carbon_grams: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SettledRun:
    """All that the end of a run changes, as one write: money, lease, run, receipt and the job's step.

    A job that has not ended keeps what is left of its hold, and avoids the node in its next match.
    """

    at: Engagement
    end: RunEnd
    facts: SettlementFacts
    money: Settlement
    receipt: SignedReceipt | None
    lease_state: str
    run_state: str
    job_state: str
    job_ended: bool
    reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class IdempotentReply:
    """What was answered to an earlier request with the same key."""

    status: int
    body: bytes
