"""The tunnels of one replica: who asked for them, how many there may be, and how long they wait.

A tunnel lives in the memory of the replica that the client asked. The node is told through its session, on
whichever replica that is, and dials in here.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Protocol

from perak.adapters.db.views.tunnels import TunnelTarget
from perak.app.records import Caller
from perak.domain.errors import Conflict, TooManyRequests
from perak.server.hub import DialHint, Hub
from perak.server.logging import get_logger
from perak.wire.tunnel import keep_buffers

PER_JOB_MAX = PER_NODE_MAX = PER_PROJECT_MAX = 64
"""A browser opens some 20 connections to a notebook, and each is a tunnel."""
TUNNELS_MAX = 256
"""On one replica: each holds a message a way and what the sockets' buffers hold, some 2 MiB at most."""

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class TunnelPeriods:
    """How long tunnels wait, so that tests can be short."""

    dial_again_seconds: float = 1.0
    """A wake-up may be lost; the node takes a repetition for what it is."""
    dial_seconds_max: float = 20.0
    """The node dials within milliseconds, over a bad line within seconds."""
    idle_seconds_max: float = 3600.0
    """An editor or a notebook that is left alone over lunch stays."""
    look_seconds: float = 5.0
    """Hints that a run ended or a key was revoked may be lost; then it is seen this late."""


class End(Protocol):
    """One of the two connections of a tunnel."""

    closed: asyncio.Future[None]

    def join(self, other: End) -> None:
        """Copy what comes from here to `other`, from now on."""
        ...

    def close(self, reason: str) -> None:
        """Say why, and hang up; one that does not listen is cut."""
        ...


def _future() -> asyncio.Future[End]:
    return asyncio.get_running_loop().create_future()


@dataclass(slots=True, kw_only=True, eq=False)
class Tunnel:
    """One tunnel from its request to its end."""

    id: str
    target: TunnelTarget
    caller: Caller
    hint: DialHint
    client: asyncio.Future[End] = field(default_factory=_future)
    node: asyncio.Future[End] = field(default_factory=_future)
    over: asyncio.Event = field(default_factory=asyncio.Event)
    moved_at: float = field(default_factory=time.monotonic)


class Tunnels:
    """The tunnels of one replica."""

    def __init__(self, hub: Hub, *, url: str, periods: TunnelPeriods) -> None:
        self._hub = hub
        self.url = url
        """Where the nodes of other replicas' sessions reach this one."""
        self.periods = periods
        self._tunnels: dict[str, Tunnel] = {}

    def open(self, target: TunnelTarget, caller: Caller, *, certificate: str) -> Tunnel:
        """A tunnel to a running job, its node told. Raises Conflict, OverLimit."""
        _check(target)
        keep_buffers()
        assert target.run is not None
        assert target.lease is not None
        assert target.node is not None
        self._check_limits(target, caller)
        id = secrets.token_urlsafe(24)
        hint = DialHint(
            node=target.node,
            tunnel=id,
            lease=target.lease,
            run=target.run,
            client=certificate,
            url=self.url,
        )
        tunnel = self._tunnels[id] = Tunnel(id=id, target=target, caller=caller, hint=hint)
        asyncio.get_running_loop().call_later(self.periods.dial_seconds_max, self._expire, tunnel)
        self._hub.dial(hint)
        _log.info("tunnel opened", tunnel=id[:8], job=target.job, node=target.node, key=caller.key)
        return tunnel

    def find(self, id: str) -> Tunnel | None:
        return self._tunnels.get(id)

    def forget(self, tunnel: Tunnel) -> None:
        tunnel.over.set()
        self._tunnels.pop(tunnel.id, None)

    def dial_again(self, tunnel: Tunnel) -> None:
        self._hub.dial(tunnel.hint)

    def __len__(self) -> int:
        return len(self._tunnels)

    def _expire(self, tunnel: Tunnel) -> None:
        """Nobody came for it."""
        if not tunnel.client.done():
            self.forget(tunnel)

    def _check_limits(self, target: TunnelTarget, caller: Caller) -> None:
        open_now = list(self._tunnels.values())
        jobs = Counter(each.target.job for each in open_now)
        nodes = Counter(each.target.node for each in open_now)
        projects = Counter(each.caller.project for each in open_now)
        for count, limit, what in (
            (jobs[target.job], PER_JOB_MAX, "this job"),
            (nodes[target.node], PER_NODE_MAX, "this job's node"),
            (projects[caller.project], PER_PROJECT_MAX, "this project"),
            (len(open_now), TUNNELS_MAX, "this exchange"),
        ):
            if count >= limit:
                raise TooManyRequests(f"{what} has {count} tunnels open and may have {limit}; close some")


def _check(target: TunnelTarget) -> None:
    if target.run is None or target.run_state != "running":
        state = target.job_state if target.run is None else target.run_state
        raise Conflict(
            f"the job is not running, it is {state}; a terminal opens while it runs: `perak logs -f` shows it"
            if target.job_state in ("queued", "leased", "running")
            else f"the job is over, it is {target.job_state}",
            code="not_running",
        )
    if not target.terminals:
        raise Conflict(
            "the provider of this job's node forbids terminals, or its agent can't enter sandboxes; "
            "`perak offer show` says what an offer grants",
            code="no_terminals",
        )
