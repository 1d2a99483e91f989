"""What the use cases need of the world outside.

One `Transaction` is one database transaction; its parts are small stores, one for each subject. The exchange
runs them on PostgreSQL (adapters/db). Rows that a use case changes are locked when it reads them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

from perak.app.records import (
    Caller,
    Connected,
    DeviceHistory,
    Engagement,
    Heat,
    HeldFunds,
    IdempotentReply,
    JobRecord,
    NewInspection,
    NewLease,
    NodeRecord,
    OpenChallenge,
    Provable,
    SessionHold,
    SettledRun,
    SettlementFacts,
    SignedReceipt,
    Unrated,
)
from perak.domain.carbon.signal import GridReading
from perak.domain.checklist import Checklist
from perak.domain.hardware.challenge import Answer, Challenge
from perak.domain.hardware.passport import Place
from perak.domain.hardware.standing import Standing
from perak.domain.hardware.wipe import WipeRecord
from perak.domain.job import JobSpec
from perak.domain.market.match import PendingJob
from perak.domain.offer import Offer, OfferAsk
from perak.domain.receipt import Json, Receipt
from perak.domain.report import Health, Metered, RunStarted


class GridFeed(Protocol):
    """Tells how much carbon a zone's electricity carries, hour by hour. It may be slow, wrong, or away."""

    @property
    def name(self) -> str: ...
    @property
    def tried_live(self) -> bool:
        """Whether anyone has seen it work against the real source; shown until then."""
        ...

    async def read(self, zone: str, *, now: datetime) -> GridReading:
        """What the source says of its `zone` now. Raises DomainError; anything else is a failure, too."""
        ...


class Ids(Protocol):
    """Makes public ids."""

    def __call__(self, kind: str) -> str: ...


class ReceiptSigner(Protocol):
    """Signs receipts with the exchange's key."""

    def __call__(self, receipt: Receipt) -> SignedReceipt: ...


class PassportSigner(Protocol):
    """Signs the entries of passports with the exchange's key."""

    def __call__(self, values: Mapping[str, Json]) -> str: ...


class JobStore(Protocol):
    async def insert(
        self,
        *,
        id: str,
        caller: Caller,
        spec: JobSpec,
        tree: dict[str, object],
        hold_mode: str,
        now: datetime,
    ) -> None: ...
    async def lock(self, id: str, *, project: str) -> JobRecord | None: ...
    async def step(
        self,
        id: str,
        *,
        state: str,
        now: datetime,
        reason: str | None = None,
        exit_code: int | None = None,
        ended: bool = False,
        avoid: str | None = None,
    ) -> None:
        """Set the state (and what goes with it); `avoid` adds a node that the next match leaves out."""

    async def started(self, id: str, *, state: str, now: datetime) -> None: ...
    async def event(self, id: str, *, kind: str, detail: str, now: datetime) -> None: ...
    async def encrypted(self, id: str, *, project: str) -> bool:
        """Whether the job's outputs are for its renter's key alone."""
        ...

    async def outputs(self, id: str, *, project: str) -> str | None:
        """The digest of the outputs of the job's last run that has some; None: no such job, or none."""

    async def any_pending(self) -> bool:
        """Whether a job is queued."""
        ...

    async def pending(self, *, after: str | None, limit: int) -> list[PendingJob]:
        """Queued jobs in their order, locked, without those that another transaction holds."""
        ...

    async def pending_deferrable(self, *, limit: int) -> list[PendingJob]:
        """The same of those that may wait: the batches ask often, and most queues hold few of them."""


class LeaseStore(Protocol):
    async def grant(self, new: NewLease, *, hold_mode: str, now: datetime) -> bool:
        """Take the part of the offer and give it to the job, whole or not at all.

        False, and nothing is written, where the offer is of another version, paused, or lacks the part now.
        """

    async def of_run(self, run: str) -> Engagement | None:
        """The run with its lease and job, locked (job first, so that all use cases lock in one order)."""

    async def of_runs(self, runs: Sequence[str]) -> dict[str, Engagement]:
        """Those of the runs that there are, the same way, in the order of their jobs' ids."""
        ...

    async def live_of_job(self, job: str) -> Engagement | None: ...
    async def ask_stop(self, lease: str, *, cause: str, now: datetime) -> None: ...
    async def allow(self, lease: str, *, joules_max: float | None) -> None: ...
    async def started(self, run: str, started: RunStarted) -> None: ...
    async def preparing(self, run: str, *, detail: str) -> None: ...
    async def metered(self, run: str, evidence: Metered, *, jws: str) -> None: ...
    async def refuse(self, engagement: Engagement, *, cause: str, detail: str, now: datetime) -> None: ...
    async def append_log(self, run: str, *, offset: int, data: bytes) -> int:
        """Append what is new of a chunk; the log's length after it. A gap raises Conflict."""

    async def suspect(self, *, node: str, now: datetime) -> list[str]:
        """Suspect the live leases of a node; their jobs."""

    async def unreported(
        self, *, start_within_seconds: float, report_within_seconds: float, now: datetime, limit: int
    ) -> list[tuple[str, str]]:
        """(run, node): the node is heard, and did not say in time that the run began or ended."""
        ...

    async def overdue(self, *, now: datetime, limit: int) -> list[str]:
        """Runs whose lease has been suspected for longer than their job's disconnect_grace."""


class LedgerStore(Protocol):
    async def wallet_available(self, project: str) -> int: ...
    async def hold(self, *, project: str, job: str, amount: int, now: datetime) -> None:
        """Reserve from the wallet. Raises InsufficientFunds."""

    async def held(self, job: str) -> list[HeldFunds]: ...
    async def release(self, *, job: str, held: Sequence[HeldFunds], now: datetime) -> None: ...
    async def fund(self, *, project: str, amount: int, note: str, now: datetime) -> int: ...


class NodeStore(Protocol):
    async def lock(self, id: str) -> NodeRecord | None: ...
    async def get(self, id: str) -> NodeRecord | None: ...
    async def insert(
        self,
        *,
        id: str,
        project: str,
        name: str,
        sign_key: bytes,
        seal_key: bytes,
        certificate_chain: str,
        certificate_expires_at: datetime,
        now: datetime,
    ) -> None:
        """Raises Conflict where the project has a node of that name, or the key is known."""

    async def certified(self, id: str, *, chain: str, expires_at: datetime) -> None: ...
    async def applied(self, seqs: Mapping[str, int], *, now: datetime) -> None:
        """The number of the last applied report of each of these nodes, which were heard of now."""

    async def silent(self, *, before: datetime) -> list[NodeRecord]:
        """Online nodes that have not been seen since `before`, locked."""

    async def lost(self, *, before: datetime) -> list[NodeRecord]:
        """Suspected nodes that have not been seen since `before`, locked."""

    async def notice(self, id: str, *, text: str, now: datetime) -> None:
        """Keep what the node's owner should know; it stands until another takes its place."""

    async def heat(self, id: str) -> Heat: ...
    async def set_health(self, id: str, *, health: Health, at: datetime, heat: Heat) -> None:
        """Keep the node's latest temperatures, and which of them are hot."""

    async def set_state(self, id: str, *, state: str) -> None: ...
    async def set_mode(self, id: str, *, mode: str) -> None: ...
    async def take_invite(self, *, secret_hash: bytes, now: datetime) -> str | None:
        """Use the invite once; its project, or None where it is unknown, used up or expired."""

    async def invited_to(self, *, secret_hash: bytes) -> str | None:
        """The project that an invite is of, used up and expired ones included; None: there is none such."""

    async def insert_invite(
        self, *, id: str, project: str, secret_hash: bytes, uses: int, now: datetime, expires_at: datetime
    ) -> None: ...
    async def exchange_alive(self, *, now: datetime) -> datetime:
        """Note that the exchange is alive; when it was before."""

    async def renew_windows(self, *, away_seconds: float, now: datetime) -> None:
        """Forget every node's silence, as it was the exchange that was away."""


class SessionStore(Protocol):
    """The nodes' sessions, of many nodes at once. A session is known by its node and the number it drew."""

    async def lock(self, nodes: Sequence[str]) -> list[tuple[NodeRecord, SessionHold]]:
        """Those of the nodes that there are, locked in the order of their ids."""

    async def live_replicas(self, *, since: datetime) -> set[int]:
        """The replicas that are connected to the database now and were alive since then."""

    async def connected(self, nodes: Sequence[Connected], *, replica: int, now: datetime) -> None: ...
    async def restore(self, nodes: Sequence[str], *, now: datetime) -> list[tuple[str, str]]:
        """Take suspicion from the leases of nodes that returned; (node, job) of each."""

    async def seen(self, last_seen: Sequence[tuple[str, int, datetime]]) -> set[str]:
        """Note when each (node, session) was last heard of; the nodes whose session it still is."""

    async def released(self, sessions: Sequence[tuple[str, int]]) -> None:
        """These sessions ended; a newer one of the same node stays."""

    async def replica_alive(self, replica: int, *, now: datetime) -> None: ...


class OfferStore(Protocol):
    async def post(self, *, id: str, node: NodeRecord, ask: OfferAsk, now: datetime) -> None:
        """Insert or replace the node's offer; a change makes a new version."""

    async def all_open(self) -> list[Offer]: ...
    async def of_node(self, node: str) -> Offer | None: ...
    async def lock(self, id: str, *, project: str) -> Offer | None: ...
    async def set(
        self,
        id: str,
        *,
        state: str,
        price_gpu: int | None,
        keep_price_gpu: bool,
        price_cpu: int | None,
        keep_price_cpu: bool,
        now: datetime,
    ) -> None: ...
    async def cheapest_price(self, spec: JobSpec) -> int | None:
        """The least price of the open offers of the kind and size for the job, whoever uses them now."""


class ChecklistStore(Protocol):
    async def keep(self, *, node: str, checklist: Checklist, jws: str, now: datetime) -> None:
        """Keep what a node sent, by its digest; the same again changes nothing."""

    async def of_node(self, node: str, *, digest: str) -> Checklist | None: ...


class DeviceStore(Protocol):
    async def lock(self, device: str) -> None:
        """One transaction at a time writes of a device."""

    async def keep(self, new: NewInspection, *, node: NodeRecord, now: datetime) -> bool:
        """False, and nothing is written, where the same inspection is there."""
        ...

    async def keep_wipe(self, record: WipeRecord, *, node: NodeRecord, jws: str, now: datetime) -> bool: ...
    async def offered_elsewhere(self, device: str, *, project: str) -> bool:
        """Whether an online node of another project offers a device of that UUID now."""
        ...

    async def history(
        self, device: str, *, node: str, project: str, model: str | None, now: datetime
    ) -> DeviceHistory:
        """The device's inspections of this owner that still count, and what else its grade rests on."""
        ...

    async def last_entry(self, device: str) -> tuple[int, str] | None:
        """(number, digest) of the newest entry of its passport; None: it has none."""

    async def append(
        self,
        place: Place,
        *,
        kind: str,
        digest: str,
        credential: str,
        node: NodeRecord,
        now: datetime,
        incident: str | None = None,
    ) -> None: ...
    async def is_of(self, device: str, *, node: str) -> bool:
        """Whether the node has had it inspected."""
        ...

    async def is_leased(self, device: str, *, node: str) -> bool: ...
    async def has_incident(self, device: str, what: str, *, since: datetime) -> bool: ...
    async def unrated(self, *, rated_before: datetime, limit: int, now: datetime) -> list[Unrated]:
        """Standings, now locked, whose rate was counted before that time, or before a run was lost or an
        incident came."""
        ...

    async def rate(self, device: str, *, node: str, failures_per_hour: float, now: datetime) -> None: ...
    async def show(self, nodes: Sequence[str]) -> None:
        """Copy standings to the nodes' offers."""

    async def set_standing(
        self, device: str, *, node: str, standing: Standing, rejected: bool, now: datetime
    ) -> bool:
        """Keep it and show it on the node's offer; whether grade or rejection changed."""
        ...


class ChallengeStore(Protocol):
    async def provable(self, nodes: Sequence[str]) -> list[Provable]:
        """Those of the nodes that are online and whose devices, of which there is one at least, are free."""
        ...

    async def ask(
        self, challenge: Challenge, *, node: str, allowed_seconds: float | None, now: datetime
    ) -> None: ...
    async def answer(self, answer: Answer, *, node: str, now: datetime) -> None:
        """Add a part of the answer; with the last one it is complete. What comes later is passed over."""

    async def open(self, *, asked_before: datetime) -> OpenChallenge | None:
        """One that is answered, or was asked before that time, and is not judged."""
        ...

    async def judge(self, id: str, *, problems: Sequence[str], unmet: bool, now: datetime) -> bool:
        """Write down what came of it; False: another replica has."""
        ...

    async def unmet(self, device: str, *, node: str) -> tuple[str, ...]:
        """Why the last challenge of the device was not met; empty: it was, or there was none."""
        ...


class SecretStore(Protocol):
    async def missing(self, names: Sequence[str], *, project: str) -> list[str]:
        """Those of the names that the project has no secret of."""
        ...

    async def keep_for_job(self, job: str, *, name: str, sealed: bytes) -> None:
        """A secret of one job's own."""


class SettlementStore(Protocol):
    async def emitted(self, job: str) -> float:
        """Operational grams CO2e on the receipts of the job so far."""
        ...

    async def facts(self, of: Sequence[Engagement]) -> list[SettlementFacts]:
        """What settlements need to know besides their engagements, which are locked; for each, in order.

        Read after the lock: a statement that waits for one still sees the holds of before.
        """
        ...

    async def write(self, settled: Sequence[SettledRun], *, now: datetime) -> None:
        """Move the money, end leases and runs, keep the receipts and step the jobs, in one statement.

        Wallets are locked in their order. The leases' parts go back to their offers at the commit.
        """


class KeyStore(Protocol):
    async def find(self, *, secret_hash: bytes) -> Caller | None: ...
    async def insert(
        self, *, id: str, project: str, name: str, secret_hash: bytes, roles: Sequence[str], now: datetime
    ) -> None: ...
    async def revoke(self, id: str, *, project: str | None, now: datetime) -> bool: ...
    async def insert_project(self, *, id: str, name: str, now: datetime) -> None:
        """With its wallet and earnings accounts. Raises Conflict where the name is taken."""

    async def project_exists(self, id: str) -> bool: ...


class IdempotencyStore(Protocol):
    async def begin(self, *, project: str, key: str, fingerprint: bytes) -> IdempotentReply | None:
        """Claim the key, or wait for whoever has it and return their reply.

        Raises Conflict where the key was used for another request.
        """

    async def finish(self, *, project: str, key: str, reply: IdempotentReply) -> None: ...


class BlobStore(Protocol):
    async def known(self, *, project: str, digest: str) -> bool: ...
    async def note(
        self, *, project: str, digest: str, size_bytes: int, now: datetime, node: str | None = None
    ) -> None: ...


class WebhookStore(Protocol):
    async def enqueue(
        self,
        *,
        project: str,
        event: str,
        node: str | None,
        subject: str | None,
        body: str,
        unless_since: datetime | None,
        now: datetime,
    ) -> None:
        """A message for each webhook of the project that wants `event`, but for one that was told the same
        `subject` of this node since `unless_since`; `node` None: of a machine that is no node."""


class Transaction(Protocol):
    """One database transaction with its stores."""

    @property
    def jobs(self) -> JobStore: ...
    @property
    def leases(self) -> LeaseStore: ...
    @property
    def ledger(self) -> LedgerStore: ...
    @property
    def nodes(self) -> NodeStore: ...
    @property
    def sessions(self) -> SessionStore: ...
    @property
    def offers(self) -> OfferStore: ...
    @property
    def checklists(self) -> ChecklistStore: ...
    @property
    def devices(self) -> DeviceStore: ...
    @property
    def challenges(self) -> ChallengeStore: ...
    @property
    def secrets(self) -> SecretStore: ...
    @property
    def settlements(self) -> SettlementStore: ...
    @property
    def keys(self) -> KeyStore: ...
    @property
    def idempotency(self) -> IdempotencyStore: ...
    @property
    def blobs(self) -> BlobStore: ...
    @property
    def webhooks(self) -> WebhookStore: ...
    async def single(self, duty: str) -> None:
        """Be the only transaction with this duty, among all replicas, until the end of this one."""
