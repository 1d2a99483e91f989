"""What an agent is told from outside, and its limits: every timeout is here, so that tests can be short."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSettings:
    """The settings of one agent. Prices are texts as people write them (``0.02/h``); None: not given."""

    state_dir: Path
    exchange: str | None = None
    invite: str | None = None
    provider_file: Path | None = None
    name: str | None = None
    region: str | None = None
    price_cpu: str | None = None
    price_gpu: str | None = None
    tiers: tuple[str, ...] | None = None
    """Sandbox tiers that may be offered beside the default one; None: whatever the machine can give."""
    drain_on_exit: bool = False
    log_level: str = "info"
    log_file: Path | None = None
    """Where JSON lines go; people then read words on stderr. None: the lines are on stderr."""
    limits: Limits


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How often, how long and how much; the defaults with their reasons."""

    meter_interval_seconds: float = 5.0
    """As often as a beat: money follows evidence, so no more than this is in doubt after a crash."""
    meter_interval_offline_seconds: float = 60.0
    """Nobody reads evidence while the exchange is away, and the journal keeps all of it."""
    tick_seconds: float = 1.0
    """A lost poke costs at most this; a look at a run is two small files."""
    log_interval_seconds: float = 0.05
    """After the first chunk, lines gather this long: 20 signatures per second and run at most."""
    log_bytes_max: int = 64 * 2**20
    """What a run may write; beyond it the sandbox drops, and says so in the log."""
    unacknowledged_max: int = 2048
    """With more reports waiting, logs stay in their files: the journal holds some 250 MiB at most."""
    silent_beats_max: int = 3
    """An exchange silent for so many beats is taken for gone, as it takes a node (design)."""
    open_timeout_seconds: float = 10.0
    reconnect_first_seconds: float = 0.3
    """A restart of the exchange takes about a second: the first tries come quickly."""
    reconnect_max_seconds: float = 30.0
    """Every agent of a large exchange then tries twice a minute, spread by jitter."""
    http_timeout_seconds: float = 30.0
    """Without a single byte; transfers as a whole take as long as they take."""
    transfer_attempts_max: int = 5
    """For downloads. An upload goes on trying: its report can't travel without the exchange either."""
    stop_grace_seconds: float = 10.0
    drain_seconds_max: float = 25.0
    """How long an agent that leaves for good waits for its runs to end and their reports to arrive."""
    offer_check_seconds: float = 10.0
    """How soon a change of the provider file or of the devices reaches the exchange."""
    health_check_seconds: float = 5.0
    """How often temperatures are read: as often as a beat; a card takes a minute from warm to hot."""
    health_report_seconds: float = 300.0
    """They are reported when a part turns hot or cool, and this often: 2,000 nodes say 7 of them a second."""
    health_report_hot_seconds: float = 60.0
    """While a part is hot."""
    device_check_seconds: float = 5.0
    """How often it is asked whether a device is due to be inspected, or wiped."""
    inspect_every_seconds: float = 7 * 86_400.0
    """A full inspection takes some minutes of an idle device: a thousandth of its week."""
    soak_every_seconds: float = 30 * 86_400.0
    """A grade wants a soak; this one is ended, and comes again, when a lease wants the device."""
    soak_seconds: float = 1_800.0
    """Until a card's temperature stands still (the grade's rule)."""
    inspect_idle_seconds: float = 600.0
    """How long a device has had no lease before anything but the first, quick inspection: not between two."""
    inspect_cpu: bool = False
    """Whether the processor of a machine without a GPU is inspected as a device (`--inspect-cpu`)."""
    slow_threads_max: int = 4
    """Environments, transfers and packing; more at once would only share two cores and one disk."""


def default_state_dir() -> Path:
    """The system's state folder for root, the user's own (XDG) otherwise."""
    if os.geteuid() == 0:
        return Path("/var/lib/perak/agent")
    base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(base).expanduser() / "perak" / "agent"
