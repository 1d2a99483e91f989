"""Puts one agent together: state folder, sandbox, identity, devices, journal; then lets it work."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import shutil
import signal
import socket
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from perak.agent import identity as identities
from perak.agent import stores
from perak.agent.blobs import Blobs
from perak.agent.brought import Brought
from perak.agent.identity import Identity
from perak.agent.journal import FILE_NAME, Journal
from perak.agent.link import SessionRefused
from perak.agent.loop import Node
from perak.agent.main import EXIT_CONFIG, EXIT_FAILED, EXIT_OK, EXIT_REFUSED, EXIT_UNAVAILABLE
from perak.agent.meter.amd import Amd
from perak.agent.meter.energy import EnergyMeter
from perak.agent.meter.rapl import Rapl
from perak.agent.network.book import RunBook
from perak.agent.network.proxy import NetworkProxy
from perak.agent.own_log import set_up_logging
from perak.agent.probe.temperatures import Thermometer
from perak.agent.provider import Provider, granted
from perak.agent.room import Room, go_on_when_there_is_room, is_full
from perak.agent.sandbox import Sandbox, TierReport
from perak.agent.sandbox.tier import BrokenOff, Leave
from perak.agent.settings import AgentSettings
from perak.agent.supply import Supply
from perak.agent.tunnels.keeper import Keeper
from perak.agent.work import TEMPORARY, Work
from perak.domain.errors import DomainError, InvalidInput, Unavailable
from perak.wire.invite import Invite

log = logging.getLogger(__name__)

LOCK_NAME = "agent.lock"


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
            go_on_when_there_is_room(Room.of(settings.state_dir), _start_anew)
        log.exception("the agent failed; its runs live on and the next start finds them")
        return EXIT_FAILED


def _start_anew() -> None:
    """Be a new process of the same command: threads that were at work end with the old one."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, sys.orig_argv)  # noqa: S606 - our own command line


async def _agent(settings: AgentSettings) -> int:
    leave = Leave()
    stop = _stop_on_signals(leave)
    supply = Supply(settings=settings, returns=(settings.state_dir / FILE_NAME).exists())
    supply.provider()  # A mistake in the file is told before anything else is done.
    try:
        sandbox, tier = _sandbox(settings.state_dir, leave)
        return await _work(settings, supply, sandbox, tier, stop)
    except BrokenOff:
        return EXIT_OK
    finally:
        supply.end()


async def _work(
    settings: AgentSettings, supply: Supply, sandbox: Sandbox, tier: TierReport, stop: asyncio.Event
) -> int:
    node_id = _identity(settings, supply.provider())
    brought = Brought.of(supply.provider(), settings)
    supply.complete(sandbox, tier, environments := stores.environments(settings.state_dir, sandbox), brought)
    supply.ask()
    supply.tell()
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
            images=stores.images(settings, sandbox, brought),
            inputs=stores.inputs(settings, sandbox, brought, blobs),
            environments=environments,
            tiers=supply.tiers,
            devices=supply.nvidia,
            log_bytes_max=limits.log_bytes_max,
            transfer_attempts_max=limits.transfer_attempts_max,
            grants=lambda: granted(supply.provider()),
        ),
        meter=EnergyMeter(rapl=Rapl.open(), nvidia=supply.nvidia, amd=Amd.open()),
        thermometer=Thermometer(nvidia=supply.nvidia),
        limits=limits,
        version=version("perak"),
        ask=supply.ask,
        network=NetworkProxy(RunBook(sandbox)),
        tunnels=Keeper(
            state_dir=settings.state_dir,
            url=node_id.url,
            log_level=settings.log_level,
            log_file=settings.log_file,
        ),
        make_care=supply.make_care,
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


def _complain(message: str, code: int) -> int:
    print(f"perak agent: {message}", file=sys.stderr, flush=True)  # noqa: T201 - for the person who started us
    return code
