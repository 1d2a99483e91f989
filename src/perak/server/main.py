"""`perak exchange`: serve one replica of the exchange on a PostgreSQL database."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import click

from perak.app.periods import Periods
from perak.domain.errors import DomainError
from perak.domain.units import parse_money
from perak.server import options
from perak.server.connections import ConnectionLimits
from perak.server.settings import (
    CURRENCY_DEFAULT,
    FEE_BASIS_POINTS_DEFAULT,
    HOST_DEFAULT,
    NAME_DEFAULT,
    PORT_DEFAULT,
    Quotas,
    Settings,
    parse_listen,
)

READY = "exchange ready: "
OPERATOR_KEY_VARIABLE = "PERAK_OPERATOR_KEY"


@click.command("exchange")
@click.option(
    "--database", envvar="PERAK_DATABASE_URL", required=True, metavar="URL", help="PostgreSQL 15 or later."
)
@click.option(
    "--listen",
    envvar="PERAK_LISTEN",
    default=f"{HOST_DEFAULT}:{PORT_DEFAULT}",
    show_default=True,
    help="Beyond this machine, TLS is on.",
)
@click.option(
    "--state-dir", envvar="PERAK_STATE_DIR", type=click.Path(path_type=Path), help="Secret file, blobs."
)
@click.option(
    "--name",
    envvar="PERAK_EXCHANGE_NAME",
    help=f"In every id; fixed at the first start.  [default: {NAME_DEFAULT}]",
)
@click.option("--currency", help=f"Fixed at the first start.  [default: {CURRENCY_DEFAULT}]")
@click.option(
    "--fee",
    "fee_basis_points",
    type=click.IntRange(0, 10_000),
    help=f"Basis points; fixed at the first start.  [default: {FEE_BASIS_POINTS_DEFAULT}]",
)
@click.option("--blobs", envvar="PERAK_BLOBS", metavar="URL", help="file:///folder or s3://bucket/prefix.")
@click.option(
    "--secret-file",
    envvar="PERAK_SECRET_FILE",
    type=click.Path(path_type=Path),
    help="Opens the exchange's keys; replicas share it.  [default: exchange.secret in the state folder]",
)
@click.option(
    "--tls-cert", type=click.Path(path_type=Path, exists=True), help="A certificate chain of your own."
)
@click.option("--tls-key", type=click.Path(path_type=Path, exists=True), help="Its key.")
@click.option(
    "--host", "hosts", multiple=True, help="A name in the exchange's own TLS certificate; repeat it."
)
@click.option("--public-url", envvar="PERAK_PUBLIC_URL", help="Where nodes reach it, if through a proxy.")
@click.option(
    "--replica-url", envvar="PERAK_REPLICA_URL", help="Where this very one of several replicas is reached."
)
@click.option(
    "--fund", default="0", help="What the default project gets at the first start.", show_default=True
)
@options.periods
@options.quotas
@click.option(
    "--webhooks-to-private",
    envvar="PERAK_WEBHOOKS_TO_PRIVATE",
    is_flag=True,
    help="Let webhooks reach private addresses, and go without TLS: where every provider is trusted.",
)
@click.option(
    "--grid",
    "grid_file",
    envvar="PERAK_GRID",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A file that names feeds of the grid by zone; without one, yearly averages count.",
)
@options.connections
@click.option(
    "--log-level", default="info", show_default=True, type=click.Choice(["debug", "info", "warning", "error"])
)
@click.option(
    "--log-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="JSON lines go there; stderr has words for people.",
)
def command(
    *,
    database: str,
    listen: str,
    state_dir: Path | None,
    name: str | None,
    currency: str | None,
    fee_basis_points: int | None,
    blobs: str | None,
    secret_file: Path | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    hosts: tuple[str, ...],
    public_url: str | None,
    replica_url: str | None,
    fund: str,
    webhooks_to_private: bool,
    periods: Periods,
    quotas: Quotas,
    grid_file: Path | None,
    connections: ConnectionLimits,
    log_level: str,
    log_file: Path | None,
) -> None:
    """Serve an exchange on a PostgreSQL database. Several may serve the same one.

    At the first start it prints the key of the operator, once.
    """
    import os

    from perak.client.paths import state_dir as default_state_dir

    try:
        host, port = parse_listen(listen)
        settings = Settings(
            database=database,
            state_dir=state_dir or default_state_dir() / "exchange",
            host=host,
            port=port,
            name=name,
            currency=currency,
            fee_basis_points=fee_basis_points,
            blobs=blobs,
            secret_file=secret_file,
            tls_certificate=tls_cert,
            tls_key=tls_key,
            tls_hosts=hosts,
            public_url=public_url,
            replica_url=replica_url.rstrip("/") if replica_url else None,
            operator_key=os.environ.pop(OPERATOR_KEY_VARIABLE, None),
            fund=parse_money(fund),
            webhooks_to_private=webhooks_to_private,
            grid_file=grid_file,
            connections=connections,
            periods=periods,
            quotas=quotas,
        )
        _serve(settings, log_level, log_file)
    except DomainError as error:
        raise click.ClickException(error.detail) from None


def _serve(settings: Settings, log_level: str, log_file: Path | None) -> None:
    """Heavy imports are here, so that `perak --help` stays quick."""
    from perak.server.imports import lighten, settle

    lighten()
    import asyncpg
    import uvloop

    from perak.server.bootstrap import FirstStart
    from perak.server.logging import configure_logging
    from perak.server.serving import serve

    try:
        configure_logging(level=log_level, file=log_file)
    except OSError as error:
        raise click.ClickException(f"the log can't be written: {error}; choose another --log-file") from None

    def first_start(first: FirstStart) -> None:
        if first.operator_key is not None:
            _say(f"operator key: {first.operator_key}")

    def ready(url: str) -> None:
        settle()
        _say(f"{READY}{url}")

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(settings, on_first_start=first_start, on_ready=ready))
    except KeyboardInterrupt:
        pass
    except (OSError, asyncpg.PostgresError) as error:
        raise click.ClickException(
            f"the database can't be used: {error}; is it there, and is the URL right?"
        ) from None


def _say(line: str) -> None:
    """Programs that start the exchange wait for these lines."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
