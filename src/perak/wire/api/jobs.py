"""Jobs, their runs, events, tunnels and blobs."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from perak.wire.api.base import Digest, Model, Money, Request


class JobSubmit(Request):
    """`job` is the job file as parsed YAML; `workdir` the digest of the packed work folder, sent before.

    `workdir_key`: the age identity that an encrypted work folder opens with. `quote`: a held quote, which the
    job is placed at; where that can't be honoured, no job is made.
    """

    job: dict[str, Any]
    workdir: Digest | None = None
    workdir_key: Annotated[str, StringConstraints(pattern=r"^AGE-SECRET-KEY-1[0-9A-Z]{58}$")] | None = None
    quote: Annotated[str, StringConstraints(max_length=120)] | None = None


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
    reclaim_notice_seconds: int = 0
    """How long before the owner takes the node back the renter is told, by the offer; 0: no promise."""
    reclaim_at: datetime | None = None
    """When the owner takes the node back, as the renter was told; None: nothing was said."""
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


class ReservationView(Model):
    """A window that is kept for a job: on which node, at what price per device-hour, and what it costs whole.

    `state`: ``booked`` until it begins, ``begun``, ``ended``; ``cancelled`` before it began, or ``lost``: its
    node was gone and no other fitted. `note`: why it was moved or lost.
    """

    state: Literal["booked", "begun", "ended", "cancelled", "lost"]
    offer: str
    node: str
    node_name: str
    devices: list[str]
    price: Money
    cost: Money
    start_at: datetime
    end_at: datetime
    note: str | None = None


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
    reservation: ReservationView | None = None


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


class BlobView(Model):
    digest: Digest
    size_bytes: int
