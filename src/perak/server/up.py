"""`perak up`: a whole Perak on this machine, in the foreground.

A light supervisor: it starts the embedded PostgreSQL, the exchange and this machine's agent, starts again
what dies, and ends them in the right order. It imports nothing heavy; the parts are processes of their own.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import select
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import click

from perak.domain.errors import Conflict, DomainError, Unavailable
from perak.server.child import Child, Plan
from perak.server.main import OPERATOR_KEY_VARIABLE, READY
from perak.server.settings import CURRENCY_DEFAULT, PORT_DEFAULT, is_loopback

EXCHANGE_START_SECONDS = 90.0
"""Two seconds as a rule, with the migration at the first start; a slow disk takes longer."""
AGENT_START_SECONDS = 60.0
AGENT_STOP_SECONDS = 30.0
"""The agent ends its runs and delivers their last reports."""
EXCHANGE_STOP_SECONDS = 15.0
LOOK_SECONDS = 0.5
BACKOFF_SECONDS = (0.1, 1.0, 2.0, 5.0, 15.0, 30.0)
"""Waits before a part is started again: hardly any after one death, longer ones while it goes on dying."""
DATABASE_RETRY_SECONDS = 5.0
"""Before a database that can't be started is tried again: a full disk is seldom empty any sooner."""
STABLE_SECONDS = 60.0
"""A part that lived this long starts with the shortest wait again."""
AGENT_GIVES_UP = frozenset({77, 78})
"""Exit codes after which the agent would only say the same again: refused, and configuration."""
FUND_DEFAULT = "100.00"


@click.command("up")
@click.option("--port", default=PORT_DEFAULT, show_default=True, help="On 127.0.0.1; 0 takes a free one.")
@click.option("--listen", metavar="HOST:PORT", help="Instead of --port; beyond this machine, TLS is on.")
@click.option("--host", "hosts", multiple=True, help="A name in the TLS certificate; repeat it.")
@click.option("--public-url", help="Where nodes reach it, if through a proxy.")
@click.option("--state-dir", type=click.Path(path_type=Path), help="Where everything is kept.")
@click.option("--no-agent", is_flag=True, help="Only the exchange: this machine offers nothing.")
@click.option("--price-cpu", default="0.02", show_default=True, help="Per core-hour.")
@click.option("--price-gpu", default="0.20", show_default=True, help="Per GPU-hour.")
@click.option(
    "--region", help="Where this machine stands, like DE; it decides the carbon of its electricity."
)
@click.option(
    "--provider-file",
    type=click.Path(path_type=Path, dir_okay=False, exists=True, resolve_path=True),
    help="What this machine offers besides: hours, reserve, caches; see the provider's guide.",
)
@click.option(
    "--grid",
    "grid_file",
    envvar="PERAK_GRID",
    type=click.Path(path_type=Path, dir_okay=False, exists=True, resolve_path=True),
    help="A file that names feeds of the grid by zone; without one, yearly averages count.",
)
@click.option("--name", help="The exchange's name; fixed at the first start.")
@click.option("--currency", help=f"Fixed at the first start.  [default: {CURRENCY_DEFAULT}]")
@click.option(
    "--fund", default=FUND_DEFAULT, show_default=True, help="Play money of the default project at first."
)
@click.option("--log-level", default="warning", show_default=True, help="Of what is shown here; STATE/logs "
              "has more.", type=click.Choice(["debug", "info", "warning", "error"]))  # fmt: skip
def command(
    port: int,
    listen: str | None,
    hosts: tuple[str, ...],
    public_url: str | None,
    state_dir: Path | None,
    no_agent: bool,
    price_cpu: str,
    price_gpu: str,
    region: str | None,
    provider_file: Path | None,
    grid_file: Path | None,
    name: str | None,
    currency: str | None,
    fund: str,
    log_level: str,
) -> None:
    """Run an exchange, its database and an agent on this machine, until Ctrl-C.

    Everything is kept in the state folder and found again at the next start.
    """
    from perak.client.paths import state_dir as default_state_dir

    options = Options(
        state_dir=(state_dir or default_state_dir()).absolute(),
        listen=listen or f"127.0.0.1:{port}",
        exposure=[word for host in hosts for word in ("--host", host)]
        + (["--public-url", public_url] if public_url else []),
        with_agent=not no_agent,
        prices={"--price-cpu": price_cpu, "--price-gpu": price_gpu},
        region=region,
        provider_file=provider_file,
        grid_file=grid_file,
        name=name,
        currency=currency,
        fund=fund,
        log_level=log_level,
    )
    try:
        with only_one(options):
            Supervisor(options).run()
    except DomainError as error:
        raise click.ClickException(error.detail) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What is asked for on the command line."""

    state_dir: Path
    listen: str
    exposure: list[str]
    """How others are to reach the exchange, in its own options."""
    with_agent: bool
    prices: dict[str, str]
    region: str | None
    provider_file: Path | None
    grid_file: Path | None
    name: str | None
    currency: str | None
    fund: str
    log_level: str

    @property
    def local_file(self) -> Path:
        """What tells clients on this machine where the exchange is, and keeps their key over restarts."""
        return self.state_dir / "local.json"

    @property
    def tls_chain(self) -> Path:
        """The exchange's own TLS certificate, its authority last, where it listens beyond this machine."""
        return self.state_dir / "exchange" / "tls" / "server.pem"

    @property
    def agent_dir(self) -> Path:
        return self.state_dir / "agent"

    def logging(self, part: str) -> list[str]:
        """What a part tells people on their terminal, and where it keeps its log."""
        return ["--log-level", self.log_level, "--log-file", str(self.state_dir / "logs" / f"{part}.log")]


@dataclass(frozen=True, slots=True)
class Local:
    """The content of local.json."""

    url: str
    api_key: str = field(repr=False)
    pid: int
    ca_certificate: str | None = None

    def write(self, path: Path) -> None:
        """Replace the file at once; only its owner may read it."""
        tree = {"url": self.url, "api_key": self.api_key, "pid": self.pid}
        text = json.dumps({**tree, "ca_certificate": self.ca_certificate}) + "\n"
        new = path.with_name(f".{path.name}.{os.getpid()}")
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)

    @classmethod
    def read(cls, path: Path) -> Local | None:
        """None where there is no file, or one that is damaged: a new key is made then."""
        try:
            tree = json.loads(path.read_text())
            return cls(str(tree["url"]), str(tree["api_key"]), int(tree["pid"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None


@contextlib.contextmanager
def only_one(options: Options) -> Iterator[None]:
    """Hold the state folder's lock. Raises Conflict where another `perak up` holds it."""
    # Others may pass through: the database server and, as root, each run have users of their own.
    options.state_dir.mkdir(parents=True, exist_ok=True, mode=0o711)
    lock = os.open(options.state_dir / "up.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        running = Local.read(options.local_file)
        who = f"process {running.pid}, at {running.url}" if running else "it is just starting"
        os.close(lock)
        raise Conflict(
            f"`perak up` runs already in {options.state_dir} ({who}); use it, or "
            "give this one another --state-dir"
        ) from None
    try:
        yield
    finally:
        os.close(lock)


class Stopped(Exception):
    """A signal asked us to end."""


class Supervisor:
    """One `perak up`, from its start to its end."""

    def __init__(self, options: Options) -> None:
        from perak.adapters.postgres import EmbeddedPostgres

        self._options = options
        self._postgres = EmbeddedPostgres(options.state_dir)
        earlier = Local.read(options.local_file)
        self._first = earlier is None
        self._key = earlier.api_key if earlier else f"perak_{secrets.token_urlsafe(32)}"
        self._exchange: Child | None = None
        self._agent: Child | None = None
        self._url = ""
        """Where the exchange is for others; beyond loopback this machine's agent goes there too."""
        self._authority: str | None = None
        self._database_at = 0.0
        """When to look at the database again (monotonic seconds)."""

    def run(self) -> None:
        """Start all parts and keep them running, until a signal comes."""
        with _signals_raise(), contextlib.suppress(Stopped):
            try:
                self._start()
                self._tell()
                while True:
                    self._look()
            finally:
                _ignore_signals()
                self._stop()

    def _start(self) -> None:
        database = self._postgres.start()
        self._exchange = Child(self._exchange_plan(database))
        self._exchange.start()
        line = self._exchange.wait_for_line(READY, EXCHANGE_START_SECONDS)
        if line is None:
            raise Unavailable("the exchange did not start; what it said is above")
        self._url = line.removeprefix(READY).strip()
        if self._url.startswith("https:"):
            self._authority = _authority(self._options.tls_chain)
        Local(self._url, self._key, os.getpid(), self._authority).write(self._options.local_file)
        if self._options.with_agent:
            self._start_agent()

    def _start_agent(self) -> None:
        """Enrol this machine where it is not, and start its agent. Without one the exchange goes on."""
        invite = (
            {} if self._is_enrolled() else {"PERAK_INVITE": _invite(self._url, self._key, self._authority)}
        )
        self._agent = Child(self._agent_plan(invite))
        self._agent.start()
        if self._agent.wait_for_line("agent ready", AGENT_START_SECONDS) is None and self._agent.has_ended:
            _say("this machine offers nothing, as its agent did not start; what it said is above")

    def _is_enrolled(self) -> bool:
        return (self._options.agent_dir / "node.json").exists()

    def _exchange_plan(self, database: str) -> Plan:
        options = self._options
        arguments = ["exchange", "--listen", options.listen, *options.exposure, "--fund", options.fund]
        arguments += ["--state-dir", str(options.state_dir / "exchange"), *options.logging("exchange")]
        arguments += ["--grid", str(options.grid_file)] if options.grid_file else []
        arguments += ["--name", options.name] if options.name else []
        arguments += ["--currency", options.currency] if options.currency else []
        if is_loopback(options.listen.rpartition(":")[0].strip("[]")):
            # Whoever provides or rents here is on this machine already, and so are those it wants told.
            arguments += ["--webhooks-to-private"]
        # Secrets go through the environment: everyone on the machine can read arguments.
        secret = {"PERAK_DATABASE_URL": database, OPERATOR_KEY_VARIABLE: self._key}
        return Plan("exchange", tuple(arguments), secret)

    def _agent_plan(self, invite: dict[str, str]) -> Plan:
        options = self._options
        arguments = ["agent", "--exchange", self._url, "--state-dir", str(options.agent_dir)]
        arguments += ["--drain-on-exit", *options.logging("agent")]
        arguments += [word for pair in options.prices.items() for word in pair]
        arguments += ["--region", options.region] if options.region else []
        arguments += ["--provider-file", str(options.provider_file)] if options.provider_file else []
        return Plan("agent", tuple(arguments), invite)

    def _tell(self) -> None:
        if self._first:
            _say(
                f"first start: the project `default` has {self._options.fund} of play money, the key is in "
                f"{self._options.local_file}"
            )
        _say(f"perak ready: {self._url}")

    def _look(self) -> None:
        """Wait a moment, take what the parts print, and start again what has died."""
        children = [child for child in (self._exchange, self._agent) if child is not None]
        pipes = [child.output for child in children if child.output is not None]
        ready, _, _ = select.select(pipes, [], [], LOOK_SECONDS)
        for child in children:
            if child.output in ready:
                child.take_output()
            self._revive(child)
        self._revive_database()

    def _revive_database(self) -> None:
        """One that can't start now may later: the runs of this machine must not die of a full disk."""
        if self._postgres.ready or time.monotonic() < self._database_at:
            return
        _say("the database ended and is started again")
        self._postgres.stop()
        try:
            self._postgres.start()
        except Unavailable as error:
            self._database_at = time.monotonic() + DATABASE_RETRY_SECONDS
            _say(f"{error.detail}\nThe database is tried again in {DATABASE_RETRY_SECONDS:g} s.")

    def _revive(self, child: Child) -> None:
        if not child.has_ended or child.given_up:
            return
        if child is self._agent and child.exit_code in AGENT_GIVES_UP:
            child.given_up = True
            _say("the agent can't go on; what it said is above. The exchange runs on")
            return
        if child.restarts_at is None:
            wait = child.next_wait(BACKOFF_SECONDS, stable_seconds=STABLE_SECONDS)
            _say(f"the {child.plan.name} ended with code {child.exit_code} and starts again in {wait:g} s")
        elif child.restarts_at <= time.monotonic():
            if child is self._exchange:  # Nodes and clients know the address of the first start.
                child.plan = child.plan.replaced("--listen", self._listening())
            elif self._is_enrolled():
                child.plan = Plan(child.plan.name, child.plan.arguments, {})
            child.start()

    def _listening(self) -> str:
        """The address of the first start: a free port that was taken then is kept."""
        host, _, port = self._options.listen.rpartition(":")
        return f"{host}:{self._url.rpartition(':')[2]}" if port == "0" else self._options.listen

    def _stop(self) -> None:
        """The agent first, so that its last reports arrive; the database last."""
        if self._agent is not None:
            self._agent.stop(AGENT_STOP_SECONDS)
        if self._exchange is not None:
            self._exchange.stop(EXCHANGE_STOP_SECONDS)
        self._postgres.stop()


def _authority(chain: Path) -> str | None:
    """The certificate of the exchange's own authority, as PEM; None where it serves another's certificate."""
    try:
        certificates = chain.read_text().partition("-----BEGIN CERTIFICATE-----")
    except FileNotFoundError:
        return None
    return "-----BEGIN CERTIFICATE-----" + "".join(certificates).rpartition("-----BEGIN CERTIFICATE-----")[2]


def _invite(url: str, key: str, authority: str | None) -> str:
    """An invite of our own exchange. Raises Unavailable."""
    import ssl

    request = urllib.request.Request(  # noqa: S310  # the URL is our own exchange's
        f"{url}/v1/invites",
        data=b'{"uses": 1}',
        headers={
            "Authorization": f"Bearer {key}",
            "Content-Type": "application/json",
            "Idempotency-Key": secrets.token_hex(16),
        },
    )
    # A proxy of the environment is not meant for loopback.
    handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
    if authority is not None:
        handlers.append(urllib.request.HTTPSHandler(context=ssl.create_default_context(cadata=authority)))
    opener = urllib.request.build_opener(*handlers)
    try:
        with opener.open(request, timeout=10) as answer:
            token: str = json.load(answer)["token"]
    except (OSError, ValueError, KeyError) as error:
        raise Unavailable(f"the exchange gave no invite for this machine's agent: {error}") from None
    return token


@contextlib.contextmanager
def _signals_raise() -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP raise Stopped in the main thread."""

    def stop(*_: object) -> None:
        raise Stopped

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ignore_signals() -> None:
    """While the parts end, which is bounded; an impatient second Ctrl-C leaves none behind."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
