"""Puts one agent together: state folder, sandbox, identity, devices, journal; then lets it work."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import shutil
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from perak.agent import identity as identities
from perak.agent import provider as providers
from perak.agent.blobs import Blobs
from perak.agent.brought import Brought
from perak.agent.fetch.download import Downloads
from perak.agent.identity import Identity
from perak.agent.inspect.care import FILE_NAME as DEVICES_FILE_NAME
from perak.agent.inspect.care import Care
from perak.agent.journal import FILE_NAME, Journal
from perak.agent.link import SessionRefused
from perak.agent.loop import Node
from perak.agent.main import EXIT_CONFIG, EXIT_FAILED, EXIT_OK, EXIT_REFUSED, EXIT_UNAVAILABLE
from perak.agent.meter.amd import Amd
from perak.agent.meter.energy import EnergyMeter
from perak.agent.meter.rapl import Rapl
from perak.agent.network.book import RunBook
from perak.agent.network.proxy import NetworkProxy
from perak.agent.probe.ask import build_ask, unpriced
from perak.agent.probe.machine import Machine, probe_machine
from perak.agent.probe.nvidia import Nvidia
from perak.agent.probe.temperatures import Thermometer
from perak.agent.probe.tiers import END_SECONDS, Tiers
from perak.agent.provider import Provider, granted
from perak.agent.room import RESERVE_BYTES, Room, go_on_when_there_is_room, is_full
from perak.agent.sandbox import RunSpec, Sandbox, TierReport
from perak.agent.sandbox.tier import BrokenOff, Leave
from perak.agent.settings import AgentSettings
from perak.agent.tunnels.keeper import Keeper
from perak.agent.work import TEMPORARY, EnvironmentMaker, Work
from perak.domain.errors import DomainError, InvalidInput, Unavailable
from perak.domain.offer import Device, OfferAsk
from perak.domain.report import Body
from perak.domain.units import parse_price
from perak.logfile import LogFile
from perak.wire.invite import Invite

if TYPE_CHECKING:
    from perak.agent.images.images import Images
    from perak.agent.inputs.inputs import Inputs
    from perak.agent.probe.fitness import Fitness

log = logging.getLogger(__name__)

LOCK_NAME = "agent.lock"
ROOM_VARIABLE = "PERAK_AGENT_ROOM_BYTES"
"""How much of the disk is kept for the day when it is full; tests have small disks."""
UNPACK_UID = 60_591
"""Who unpacks images and archives when the agent is root; in the same range."""
INSTALL_UID = 60_590
"""Who installs packages when the agent is root: in the range that systemd keeps free (UIDS-GIDS.md), below
the runs' own."""


class CannotStart(InvalidInput):
    """This machine, or what it was told, does not allow an agent; the message says what to do."""

    code = "cannot_start"


def start(settings: AgentSettings) -> int:
    """Run one agent until a signal ends it; returns the exit code."""
    try:
        set_up_logging(settings.log_level, settings.log_file)
    except OSError as error:
        return _complain(f"the log can't be written: {error}; choose another --log-file", EXIT_CONFIG)
    try:
        with _state_dir(settings.state_dir) as state_dir:
            return asyncio.run(_agent(replace(settings, state_dir=state_dir)))
    except SessionRefused as error:
        return _complain(error.detail, EXIT_REFUSED)
    except Unavailable as error:
        return _complain(error.detail, EXIT_UNAVAILABLE)
    except DomainError as error:
        return _complain(error.detail, EXIT_CONFIG)
    except KeyboardInterrupt:
        return EXIT_OK
    except Exception as error:
        if is_full(error):
            go_on_when_there_is_room(_room(settings.state_dir), _start_anew)
        log.exception("the agent failed; its runs live on and the next start finds them")
        return EXIT_FAILED


def _room(state_dir: Path) -> Room:
    return Room(state_dir, int(os.environ.get(ROOM_VARIABLE, RESERVE_BYTES)))


def _start_anew() -> None:
    """Be a new process of the same command: threads that were at work end with the old one."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, sys.orig_argv)  # noqa: S606 - our own command line


async def _agent(settings: AgentSettings) -> int:
    leave = Leave()
    stop = _stop_on_signals(leave)
    offer = Offer(settings=settings, returns=(settings.state_dir / FILE_NAME).exists())
    offer.provider()  # A mistake in the file is told before anything else is done.
    try:
        sandbox, tier = _sandbox(settings.state_dir, leave)
        return await _work(settings, offer, sandbox, tier, stop)
    except BrokenOff:
        return EXIT_OK
    finally:
        offer.end()


async def _work(
    settings: AgentSettings, offer: Offer, sandbox: Sandbox, tier: TierReport, stop: asyncio.Event
) -> int:
    node_id = _identity(settings, offer.provider())
    brought = Brought.of(offer.provider(), settings)
    offer.complete(sandbox, tier, environments := _environments(settings.state_dir, sandbox), brought)
    offer.ask()
    offer.tell()
    journal = Journal(settings.state_dir / FILE_NAME, sign=node_id.sign_report)
    limits = settings.limits
    blobs = Blobs(node_id, limits.http_timeout_seconds)
    node = Node(
        identity=node_id,
        journal=journal,
        sandbox=sandbox,
        tier=tier,
        work=Work(
            state_dir=settings.state_dir,
            sandbox=sandbox,
            blobs=blobs,
            images=_images(settings, sandbox, brought),
            inputs=_inputs(settings, sandbox, brought, blobs),
            environments=environments,
            tiers=offer.tiers,
            devices=offer.nvidia,
            log_bytes_max=limits.log_bytes_max,
            transfer_attempts_max=limits.transfer_attempts_max,
            grants=lambda: granted(offer.provider()),
        ),
        meter=EnergyMeter(rapl=Rapl.open(), nvidia=offer.nvidia, amd=Amd.open()),
        thermometer=Thermometer(nvidia=offer.nvidia),
        limits=limits,
        version=version("perak"),
        ask=offer.ask,
        network=NetworkProxy(RunBook(sandbox)),
        tunnels=Keeper(
            state_dir=settings.state_dir,
            url=node_id.url,
            log_level=settings.log_level,
            log_file=settings.log_file,
        ),
        make_care=offer.make_care,
    )
    try:
        await node.run(
            stop,
            drain=settings.drain_on_exit,
            on_ready=lambda: _tell_ready(node_id),
        )
    finally:
        journal.close()
    return EXIT_OK


@dataclass(slots=True, kw_only=True)
class Offer:
    """What this node offers now: the machine as it was at the start, the provider's file as it is."""

    settings: AgentSettings
    returns: bool = False
    """Whether this node has worked here before: then it comes back, with or without anything to offer."""
    nvidia: Nvidia | None = None
    tiers: Tiers | None = None
    _fitness: Fitness | None = None
    _check: threading.Thread | None = None
    _care: Care | None = None
    _seen: dict[str, Device] = field(default_factory=dict)
    """Devices as the driver last showed them, by UUID."""
    _torch_variants: tuple[str, ...] = ()
    _brought: Brought | None = None
    _machine: Machine | None = None
    _tier: TierReport | None = None
    _pythons: tuple[str, ...] = ()
    _file: tuple[int, Provider] | None = field(default=None)
    """(time of its last change, content)"""

    def complete(
        self, sandbox: Sandbox, tier: TierReport, environments: EnvironmentMaker | None, brought: Brought
    ) -> None:
        """Take in what the machine has, and try every device in the sandbox, which takes some seconds."""
        self._brought = brought
        self._machine = self._probe()
        self.tiers = Tiers(sandbox, wanted=self.settings.tiers)
        self.tiers.begin()
        self._tier = tier
        self._pythons = environments.versions if environments is not None else ()
        self._torch_variants = environments.torch_variants if environments is not None else ()
        self.nvidia = Nvidia.open()
        if self.nvidia is not None:
            from perak.agent.environments.pythons import interpreters
            from perak.agent.probe.fitness import Fitness

            found = interpreters()
            self._fitness = Fitness(
                sandbox=sandbox, nvidia=self.nvidia, interpreter=found[0] if found else None
            )
            self._fitness.check(each.device for each in self.nvidia.devices)

    def end(self) -> None:
        """Break off the checks of tiers and devices; returns when their runs are cleared away."""
        if self.tiers is not None:
            self.tiers.end()
        if self._check is not None:
            self._check.join(END_SECONDS)

    def ask(self) -> OfferAsk:
        """The ask of now. Raises NothingToOffer or ProviderFileError."""
        assert self._machine is not None
        assert self._tier is not None
        devices, left_out = self._devices()
        provider = self.provider()
        full = _room(self.settings.state_dir).keep()
        if self._machine.disk_bytes <= provider.reserve_disk_bytes:
            self._machine = self._probe()
        machine = self._machine
        if self.returns and machine.disk_bytes <= provider.reserve_disk_bytes:
            # It may have runs, and evidence to report: that comes before the offer.
            full = full or f"the disk of {self.settings.state_dir} has no more free than is reserved"
            machine = replace(machine, disk_bytes=provider.reserve_disk_bytes + 1)
        ask = build_ask(
            machine,
            provider,
            devices=devices,
            tier=self._tier,
            pythons=self._pythons,
            torch_variants=self._torch_variants,
            takes=self._brought.takes if self._brought is not None else (),
            tiers=self.tiers.offered() if self.tiers is not None else (),
            left_out=left_out
            | (self.tiers.left_out() if self.tiers is not None else {})
            | ({} if full is None else {"disk": full}),
        )
        return ask if full is None else replace(ask, devices=(), price_cpu=None, price_gpu=None)

    def _probe(self) -> Machine:
        """The machine now. What the caches may still grow by is no job's scratch."""
        machine = probe_machine(self.settings.state_dir)
        to_grow_bytes = self._brought.to_grow_bytes if self._brought is not None else 0
        return replace(machine, disk_bytes=max(0, machine.disk_bytes - to_grow_bytes))

    def _devices(self) -> tuple[list[Device], dict[str, str]]:
        """(those that are fit, why the others are not); a new one is checked in the background.

        One that a run has stays listed though the driver has lost it: the run's receipt is yet to name it.
        """
        if self.nvidia is None or self._fitness is None:
            return [], {}
        self.nvidia.reprobe()
        devices = [each.device for each in self.nvidia.devices]
        self._seen |= {each.uuid: each for each in devices}
        suspects: dict[str, str] = {}
        if self._care is not None:
            there = {each.uuid for each in devices}
            devices += [self._seen[uuid] for uuid in self._care.busy() if uuid in self._seen.keys() - there]
            suspects = self._care.suspects()
        idle = self._check is None or not self._check.is_alive()
        if idle and self._fitness.is_due(devices):
            self._check = threading.Thread(target=self._fitness.check, args=(devices,), daemon=True)
            self._check.start()
        unfit = self._fitness.unfit(devices)
        unfit |= {each.uuid: suspects[each.uuid] for each in devices if each.uuid in suspects}
        return [each for each in devices if each.uuid not in unfit], unfit

    def provider(self) -> Provider:
        """The provider's file, read again when it changed, with what the flags say on top."""
        path = self.settings.provider_file
        found = Provider()
        if path is not None:
            try:
                changed = path.stat().st_mtime_ns
            except OSError as error:
                raise providers.ProviderFileError(f"{path} can't be read: {error.strerror}") from None
            if self._file is None or self._file[0] != changed:
                self._file = (changed, providers.read(path))
            found = self._file[1]
        return _with_flags(found, self.settings)

    def make_care(self, report: Callable[[Body], object], busy: Callable[[], set[str]]) -> Care:
        """Who looks after the devices, and says which of them are not to be offered for now."""
        self._care = Care(
            path=self.settings.state_dir / DEVICES_FILE_NAME,
            limits=self.settings.limits,
            report=report,
            devices=self.uuids,
            busy=busy,
        )
        return self._care

    def uuids(self) -> tuple[str, ...]:
        """Every device there is, fit or not."""
        return () if self.nvidia is None else tuple(each.device.uuid for each in self.nvidia.devices)

    def tell(self) -> None:
        """Say what the machine has and does not offer."""
        devices = [each.device for each in self.nvidia.devices] if self.nvidia is not None else []
        for line in unpriced(self.provider(), devices):
            log.warning(line)


def _with_flags(provider: Provider, settings: AgentSettings) -> Provider:
    def price(text: str | None, default: int | None) -> int | None:
        return default if text is None else parse_price(text)

    return replace(
        provider,
        name=settings.name or provider.name,
        region=providers.region(settings.region) if settings.region else provider.region,
        price_cpu=price(settings.price_cpu, provider.price_cpu),
        price_gpu=price(settings.price_gpu, provider.price_gpu),
    )


def _images(settings: AgentSettings, sandbox: Sandbox, brought: Brought) -> Images | None:
    """None, with the reason in the log, where jobs can bring no images."""
    from perak.agent.images.images import ImageLimits, Images

    if not brought.images_bytes:
        log.warning("no images are taken: too little room for them; see `cache:` in the provider file")
        return None

    def in_use() -> set[str]:
        return {Path(spec.image.root).name for spec in _specs(sandbox) if spec.image is not None}

    try:
        return Images(
            settings.state_dir,
            uid=UNPACK_UID if os.geteuid() == 0 else None,
            reach=brought.reach,
            downloads=Downloads(attempts_max=settings.limits.transfer_attempts_max),
            limits=ImageLimits(cache_bytes=brought.images_bytes),
            in_use=in_use,
        )
    except OSError as error:
        log.warning("no images are taken: %s", error)
        return None


def _inputs(settings: AgentSettings, sandbox: Sandbox, brought: Brought, blobs: Blobs) -> Inputs | None:
    """None, with the reason in the log, where jobs can bring no inputs."""
    from perak.agent.inputs.inputs import InputLimits, Inputs

    if not brought.inputs_bytes:
        log.warning("no inputs are taken: too little room for them; see `cache:` in the provider file")
        return None

    def in_use() -> set[str]:
        folder = str(settings.state_dir / "inputs")
        sources = (mount.source for spec in _specs(sandbox) for mount in spec.inputs)
        return {Path(each).relative_to(folder).parts[0] for each in sources if each.startswith(f"{folder}/")}

    try:
        return Inputs(
            settings.state_dir,
            uid=UNPACK_UID if os.geteuid() == 0 else None,
            reach=brought.reach,
            downloads=Downloads(attempts_max=settings.limits.transfer_attempts_max),
            limits=InputLimits(cache_bytes=brought.inputs_bytes),
            outputs=blobs,
            s3_settings=brought.s3,
            in_use=in_use,
        )
    except OSError as error:
        log.warning("no inputs are taken: %s", error)
        return None


def _specs(sandbox: Sandbox) -> Iterator[RunSpec]:
    """What the runs that are here were asked to be."""
    for status in sandbox.find():
        with contextlib.suppress(KeyError, OSError, ValueError):
            yield sandbox.load(status.run_id)


def _sandbox(state_dir: Path, leave: Leave) -> tuple[Sandbox, TierReport]:
    from perak.agent.sandbox.probe import probe

    sandbox, tier = probe(state_dir, leave=leave)
    if sandbox is None or not tier.available:
        raise CannotStart(
            f"This machine has no safe sandbox, so it offers nothing: {tier.reason}. "
            "Jobs of strangers are only run inside one."
        )
    log.info("sandbox %s, %s, enforces %s", tier.tier, tier.runtime, ", ".join(tier.enforced))
    for limit, why in tier.unenforced.items():
        log.warning("not enforced on this machine, and told to renters: %s (%s)", limit, why)
    return sandbox, tier


def _identity(settings: AgentSettings, provider: Provider) -> Identity:
    """Who this node is; makes it one with the invite when it isn't yet."""
    found = identities.load(settings.state_dir, url=settings.exchange)
    if found is not None:
        if settings.invite is not None:
            log.info("this machine is the node %s already; the invite is not used", found.node)
        return found
    if settings.invite is None:
        raise CannotStart(
            f"This machine is no node yet ({settings.state_dir} holds no identity): "
            "start the agent once with --invite TOKEN. The exchange makes one with: perak node invite"
        )
    return identities.enrol(
        settings.state_dir,
        Invite.decode(settings.invite),
        name=provider.name or _host_name(),
        timeout_seconds=settings.limits.http_timeout_seconds,
        url=settings.exchange,
    )


def _environments(state_dir: Path, sandbox: Sandbox) -> EnvironmentMaker | None:
    """None, with the reason in the log, where jobs can get no Python environments."""
    from perak.agent.environments import Environments

    def in_use() -> set[str]:
        keys: set[str] = set()
        for status in sandbox.find():
            with contextlib.suppress(KeyError, OSError, ValueError):
                keys |= {Path(mount.source).name for mount in sandbox.load(status.run_id).mounts}
        return keys

    try:
        return Environments(
            state_dir,
            bwrap=sandbox.host.binary,
            uid=INSTALL_UID if os.geteuid() == 0 else None,
            in_use=in_use,
        )
    except (ValueError, OSError) as error:
        log.warning("no Python environments are offered: %s", error)
        return None


@contextlib.contextmanager
def _state_dir(path: Path) -> Iterator[Path]:
    """The state folder, for this agent alone."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = os.open(path / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise CannotStart(f"{path} can't be used: {error.strerror}. Choose another --state-dir.") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise CannotStart(f"Another agent works in {path}. Stop it, or choose another --state-dir.") from None
    try:
        shutil.rmtree(path / TEMPORARY, ignore_errors=True)
        yield path.resolve()
    finally:
        os.close(lock)


def _tell_ready(node_id: Identity) -> None:
    """A line for scripts, and a word to systemd (sd_notify(3)), which waits for it after an upgrade."""
    print(f"agent ready: node={node_id.node} exchange={node_id.url}", flush=True)  # noqa: T201
    if address := os.environ.get("NOTIFY_SOCKET"):
        abstract = "\0" + address[1:] if address.startswith("@") else address
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
            systemd.sendto(b"READY=1", abstract)


def _stop_on_signals(leave: Leave) -> asyncio.Event:
    """Set by SIGTERM, SIGINT and SIGHUP; `leave` also while the loop waits for checks, as at the start."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def end(*_: object) -> None:
        leave.now = True
        with contextlib.suppress(RuntimeError):  # The loop has ended already.
            loop.call_soon_threadsafe(stop.set)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup
        signal.signal(signal.SIGHUP, end)
    return stop


def _host_name() -> str:
    name = "".join(c if (c.isalnum() and c.isascii()) or c in ".-_" else "-" for c in socket.gethostname())
    return name.strip("-._")[:63] or "node"


def set_up_logging(level: str, file: Path | None = None) -> None:
    """One JSON object a line on stderr, with the same keys as the exchange's.

    `file`: they go there, informational ones too, and stderr has `level` and above in words for people.
    """
    shown = logging.StreamHandler(sys.stderr)
    shown.setFormatter(_JsonLines() if file is None else _Words())
    shown.setLevel(level.upper())
    handlers: list[logging.Handler] = [shown]
    if file is not None:
        handlers.append(LogFile(file))
        handlers[-1].setFormatter(_JsonLines())
    root = logging.getLogger()
    root.handlers[:] = handlers
    root.setLevel(shown.level if file is None else min(shown.level, logging.INFO))
    logging.getLogger("websockets").setLevel(logging.WARNING)


class _Words(logging.Formatter):
    """One line; of an exception its last line, as the file has the rest."""

    def format(self, record: logging.LogRecord) -> str:
        why = ""
        if record.exc_info:
            why = f" ({self.formatException(record.exc_info).rpartition(chr(10))[2]})"
        return f"perak agent: {record.getMessage()}{why}"


class _JsonLines(logging.Formatter):
    """structlog is the exchange's, and not among the agent's dependencies; this is all that we need of it."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {
            "event": record.getMessage(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "timestamp": at.replace("+00:00", "Z"),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def _complain(message: str, code: int) -> int:
    print(f"perak agent: {message}", file=sys.stderr, flush=True)  # noqa: T201 - for the person who started us
    return code
