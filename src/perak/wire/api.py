"""The versioned HTTP models, shared by the exchange and the client.

Money is a string of units in the currency of the exchange (``"0.0123"``), never a float; times are ISO 8601,
UTC; memory is bytes. Every list is a page with a cursor. Errors are `Problem` (RFC 9457).
"""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

PAGE_LIMIT_DEFAULT = 50
PAGE_LIMIT_MAX = 200
"""A page stays well under a megabyte."""
IDEMPOTENCY_KEY_MAX = 128
BODY_BYTES_MAX = 2**20
"""JSON bodies; work folders go as blobs."""

Role = Literal["renter", "provider", "operator"]
Scope = Literal["full", "submit", "read"]
"""What of its roles a key may do: all; submit and cancel jobs, and read; or only read."""
Money = Annotated[str, StringConstraints(pattern=r"^-?[0-9]+(\.[0-9]{1,6})?$")]
Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]

TRUST = (
    "You trust the operator of this exchange for matching and money, and the provider for the privacy of "
    "what runs on its machine: whoever owns the machine can read it."
)
"""Said wherever something is quoted."""


class Model(BaseModel):
    """Requests refuse unknown keys; replies may grow new ones, which older clients ignore."""

    model_config = ConfigDict(frozen=True, defer_build=True)


class Request(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    @field_validator("*")
    @classmethod
    def _no_nul(cls, value: object) -> object:
        """The database takes no NUL in a text."""
        if isinstance(value, str) and "\0" in value:
            raise ValueError("holds a NUL character, which no text has")
        return value


T = TypeVar("T")


class Page(Model, Generic[T]):
    """One page; `next_cursor` is None on the last."""

    items: list[T]
    next_cursor: str | None = None


class Problem(Model):
    """An error (RFC 9457). `code` is stable; `detail` says what happened, why, and what to do."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str
    instance: str | None = None
    errors: list[dict[str, Any]] = []


class Exchange(Model):
    """What anyone may know of an exchange."""

    name: str
    version: str
    currency: str
    fee_percent: float
    ca_fingerprint: str
    ca_certificate: str
    trust: str = TRUST


class Me(Model):
    """Who the key belongs to."""

    project: str
    project_name: str
    key: str
    key_name: str
    roles: list[Role]


# Jobs


class JobSubmit(Request):
    """`job` is the job file as parsed YAML; `workdir` the digest of the packed work folder, sent before.

    `workdir_key`: the age identity that an encrypted work folder opens with.
    """

    job: dict[str, Any]
    workdir: Digest | None = None
    workdir_key: Annotated[str, StringConstraints(pattern=r"^AGE-SECRET-KEY-1[0-9A-Z]{58}$")] | None = None


class TunnelCreate(Request):
    """`certificate`: the client's own for this one tunnel (PEM); the node lets in whoever holds its key."""

    certificate: str = Field(min_length=1, max_length=2_000)


class Tunnel(Model):
    """A tunnel that waits for its client: open a WebSocket at `path` with the same key, within seconds.

    `node`: whose certificate the other end has to show. `replica`: the address to open it at, where several
    replicas stand behind one.
    """

    id: str
    job: str
    node: str
    path: str
    replica: str | None = None


class RunView(Model):
    """One attempt of a job on a lease."""

    id: str
    attempt: int
    epoch: int
    state: str
    node: str
    node_name: str
    offer: str
    lease: str
    lease_state: str
    price: Money
    devices: list[str]
    detail: str | None
    tier: str | None
    started_at: datetime | None
    ended_at: datetime | None
    exit_code: int | None
    cause: str | None
    cost: Money | None
    receipt: str | None
    memory_bytes: int | None = None
    """What a live run used when it was last metered; None: not known."""
    memory_peak_bytes: int | None = None
    """The most that an ended run used, by the node's signed report; None: not known."""
    outputs_missing: list[str] = []
    """Outputs that the job file names and the run did not leave."""
    outputs_skipped: list[str] = []
    """What the run left and can't be taken, each with its reason."""


class EventView(Model):
    """A step in a job's life, for people."""

    seq: int
    at: datetime
    kind: str
    detail: str


class Job(Model):
    """A job as its project sees it. `cost` is what was charged so far, over all runs."""

    id: str
    name: str
    state: Literal["queued", "leased", "running", "cancelling", "succeeded", "failed", "cancelled"]
    reason: str | None
    exit_code: int | None
    attempts: int
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    held: Money
    cost: Money
    node_name: str | None
    node_silent: bool = False
    has_outputs: bool = False


class JobDetail(Job):
    """A job with its file, its runs and the steps of its life."""

    spec: dict[str, Any]
    runs: list[RunView]
    events: list[EventView]


# Events of a job, as a stream (SSE): `event:` names the type, `data:` is one of these, `id:` resumes.


class LogEvent(Model):
    """Bytes of the log of the job's attempt `attempt` from `offset`, in base64."""

    attempt: int
    offset: int
    data: str


class EndEvent(Model):
    """The job has ended and is settled; nothing follows."""

    job: Job


# Quotes


class MisfitView(Model):
    dimension: str
    needed: str
    available: str
    now_only: bool


class OfferQuote(Model):
    """What the job would cost on one offer. Money in the exchange's currency; carbon in grams CO2e.

    `cost_max` is for the job's max_duration; `per_hour` is price x devices.
    """

    offer: str
    node_name: str
    region: str
    device: str
    fits: bool
    misfits: list[MisfitView]
    price: Money | None
    per_hour: Money | None
    cost_max: Money | None
    energy_watts: float | None
    carbon_grams_per_hour: float | None
    carbon_source: str | None
    tier: str
    grants: list[str] = []
    unenforced: dict[str, str]
    cloud_comparison: str | None = None


class Quote(Model):
    """The fitting offers, cheapest first, then those that don't fit with what failed."""

    currency: str
    max_duration_seconds: int
    hold: Money
    affordable: bool
    offers: list[OfferQuote]
    trust: str = TRUST


# Nodes and offers


class DeviceView(Model):
    index: int
    kind: str
    model: str
    uuid: str
    memory_bytes: int
    compute_capability: str | None
    free: bool


class TemperatureView(Model):
    """One temperature of a node. It is `hot` from `hot_celsius` on, where the part slows itself."""

    id: str
    name: str
    celsius: float
    hot_celsius: float
    limit_source: str
    hot: bool


class Node(Model):
    """A provider's machine. A draining node is `drained` once it has no lease left."""

    id: str
    name: str
    project: str
    state: str
    mode: Literal["accepting", "paused", "draining", "drained"]
    last_seen: datetime | None
    enrolled_at: datetime
    agent_version: str | None
    notice: str | None = None
    """What the exchange last had to say to its owner: a wrong clock, a second agent with its key."""
    notice_at: datetime | None = None
    temperatures: list[TemperatureView] = []
    """As the node last reported them, at `health_at`; a part that tells none is absent."""
    health_at: datetime | None = None
    offer: str | None
    live_leases: int


class NodeChange(Request):
    """What the owner wants: `paused` and `draining` give the node no new leases; runs go on to their end."""

    mode: Literal["accepting", "paused", "draining"]


class TierView(Model):
    """A sandbox tier of an offer. `devices`: whether GPU jobs can be in it; `checklist`: the digest of the
    escape checklist's result."""

    tier: str
    runtime: str
    enforced: list[str]
    unenforced: dict[str, str]
    devices: bool
    checklist: str | None


class CheckView(Model):
    """One check of the escape checklist. `detail`: what was open, or why it did not run."""

    name: str
    outcome: Literal["passed", "failed", "not_run"]
    detail: str


class ChecklistView(Model):
    """How the escape checklist came out in one sandbox tier of a node. `at`: Unix milliseconds.

    `jws` is the node's report that says so, with its certificates; `digest` is of the document in it.
    """

    digest: str
    node: str
    tier: str
    runtime: str
    kernel: str
    agent_version: str
    at: int
    results: list[CheckView]
    jws: str


class Offer(Model):
    """A standing offer. Prices per device-hour; a CPU device is one core.

    `left_out`: devices of the node that are not offered, by UUID, and why. `tiers`: every sandbox tier, the
    default one first.
    """

    id: str
    version: int
    node: str
    node_name: str
    state: str
    accepting: bool
    region: str
    cpu_model: str
    cpu_milli: int
    memory_bytes: int
    disk_bytes: int
    free_cpu_milli: int
    free_memory_bytes: int
    free_disk_bytes: int
    devices: list[DeviceView]
    price_gpu: Money | None
    price_cpu: Money | None
    pythons: list[str]
    torch_variants: list[str] = []
    takes: list[str] = []
    grants: list[str] = []
    left_out: dict[str, str] = {}
    tier: str
    runtime: str
    enforced: list[str]
    unenforced: dict[str, str]
    tiers: list[TierView] = []


class OfferChange(Request):
    """What a provider may set on its offer. Leases that run keep their price. `default` restores a price to
    the node's provider file."""

    state: Literal["open", "paused"] | None = None
    price_gpu: Money | Literal["default"] | None = None
    price_cpu: Money | Literal["default"] | None = None


class WebhookCreate(Request):
    """`events` empty: all there are."""

    url: str = Field(min_length=8, max_length=2000)
    events: list[str] = Field(default=[], max_length=20)


class Webhook(Model):
    """Whom a provider wants told of its nodes."""

    id: str
    url: str
    events: list[str]
    created_at: datetime


class WebhookCreated(Webhook):
    """`secret` is shown once; it checks the signature of each message."""

    secret: str


class DeliveryView(Model):
    """A message and how its delivery stands; `id` is its header `webhook-id`."""

    id: str
    event: str
    state: Literal["waiting", "delivered", "failed"]
    attempts: int
    answer: str | None
    created_at: datetime
    next_at: datetime | None
    ended_at: datetime | None


class WebhookDetail(Webhook):
    """With its latest deliveries, newest first."""

    deliveries: list[DeliveryView]


class InviteCreate(Request):
    ttl_seconds: int = Field(default=3600, ge=60, le=30 * 86400)
    uses: int = Field(default=1, ge=1, le=1000)


class Invite(Model):
    """`token` is shown once."""

    id: str
    token: str
    expires_at: datetime
    uses: int


class Enrolment(Request):
    """A node's public keys (base64url of 32 bytes each) and its name, with the secret of the invite."""

    secret: str = Field(max_length=200)
    name: Name
    sign_key: str = Field(max_length=64)
    seal_key: str = Field(max_length=64)


class Enrolled(Model):
    """The node's id and its certificate chain (PEM: node, then CA)."""

    node: str
    exchange: str
    certificate_chain: str


# Money


class Wallet(Model):
    """`available` can be held for new jobs; `held` is for running ones; `earned` came in as a provider."""

    project: str
    currency: str
    available: Money
    held: Money
    earned: Money


class NodeEarnings(Model):
    """What a node's runs earned in the period; `earned` is after the fee."""

    node: str
    name: str
    runs: int
    earned: Money
    fee: Money


class DayEarnings(Model):
    """What all nodes earned on a day (UTC)."""

    day: date
    runs: int
    earned: Money
    fee: Money


class Earnings(Model):
    """What a provider's nodes earned since `since`, and what it has in all. Renters paid `earned` + `fee`.

    `balance` is what the operator still owes: all that was ever earned less `paid_out`. Only what earned
    something is listed: the nodes with the most first, the latest day first.
    """

    project: str
    currency: str
    fee_percent: float
    since: date
    runs: int
    earned: Money
    fee: Money
    earned_in_all: Money
    paid_out: Money
    balance: Money
    nodes: list[NodeEarnings]
    days: list[DayEarnings]


class Funding(Request):
    """An operator's record of money received from outside."""

    amount: Money
    project: str | None = None
    note: str = Field(default="", max_length=200)


class EntryView(Model):
    """One line of a project's account: positive came in, negative went out."""

    id: str
    at: datetime
    kind: str
    amount: Money
    job: str | None
    note: str | None


class ReceiptSummary(Model):
    id: str
    job: str
    run: str
    issued_at: datetime
    cost: Money
    energy_joules: float | None
    carbon_grams: float | None


class Receipt(Model):
    """The signed document as it stands in a receipt file: `receipt` for people, `jws` for verification."""

    receipt: dict[str, Any]
    jws: str


# Keys and projects


class KeyCreate(Request):
    """`ttl_seconds`: the key expires after that; None: never, or with the key that makes it."""

    name: Name
    roles: list[Role] = Field(min_length=1)
    project: str | None = None
    scope: Scope = "full"
    ttl_seconds: int | None = Field(default=None, ge=60, le=10 * 366 * 86_400)


class Key(Model):
    id: str
    name: str
    project: str
    roles: list[Role]
    scope: Scope = "full"
    created_at: datetime
    expires_at: datetime | None = None
    last_used_at: datetime | None = None
    """To the minute; None: never."""
    revoked_at: datetime | None


class KeyCreated(Key):
    """`secret` is shown once and kept nowhere."""

    secret: str


class ProjectCreate(Request):
    name: Name


class Project(Model):
    id: str
    name: str
    created_at: datetime


class TrailEntry(Model):
    """Who did what: a key, from an address. `outcome` is done, or refused and the problem's code."""

    id: str
    at: datetime
    project: str
    key: str
    key_name: str
    address: str
    action: str
    subject: str
    subject_project: str | None
    outcome: str


class Secret(Model):
    """A secret's name and times; its value is never given back."""

    name: str
    created_at: datetime
    changed_at: datetime

    @property
    def id(self) -> str:
        """A project's secret is known by its name."""
        return self.name


class SealedSecrets(Model):
    """Secrets for one lease, sealed to the node that holds it (`perak.wire.sealing`)."""

    sealed: str


class BlobView(Model):
    digest: Digest
    size_bytes: int
