"""`perak backup` and `perak restore`."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import click

from perak.domain.errors import Conflict, DomainError
from perak.domain.units import format_bytes


@click.command("backup")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--state-dir", type=click.Path(path_type=Path), help="Of a `perak up`, running or not.")
def backup(folder: Path, state_dir: Path | None) -> None:
    """Copy the exchange of a `perak up` into FOLDER while it runs.

    The folder holds the database, the blobs, and the exchange's secret: whoever has it can sign as this
    exchange, so keep it as you keep a private key.
    """
    from perak.adapters.postgres.running import database_of, tools
    from perak.client.paths import state_dir as default_state_dir
    from perak.server.backup import back_up

    home = (state_dir or default_state_dir()).absolute()
    try:
        with database_of(home) as url:
            sizes = back_up(url, folder.absolute(), state_dir=home, tools=tools(home))
    except DomainError as error:
        raise click.ClickException(error.detail) from None
    parts = ", ".join(f"{name} {format_bytes(size)}" for name, size in sizes.items())
    click.echo(f"{folder}: {parts}")


@click.command("restore")
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False), required=False)
@click.option("--state-dir", type=click.Path(path_type=Path), help="A folder without a database in it.")
@click.option("--database", metavar="URL", help="Instead of FOLDER: a PostgreSQL that you restored yourself.")
@click.option(
    "--secret-file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="With --database: the exchange's secret.",
)
@click.option(
    "--receipts",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Receipt files that renters and providers got since the back-up.",
)
def restore(
    folder: Path | None,
    state_dir: Path | None,
    database: str | None,
    secret_file: Path | None,
    receipts: Path | None,
) -> None:
    """Bring a back-up to life in the state folder of a new `perak up`, and audit it.

    With --database, do the same in a database that was restored by other means, before an exchange serves it.

    What was live in the back-up ends: a run whose receipt is in --receipts is settled by the node's signed
    evidence in it, the others are fenced and their jobs run again. Receipts of runs that the back-up does not
    know are named. Ends with 1 where the audit finds something.
    """
    from perak.client.paths import state_dir as default_state_dir

    if (folder is None) == (database is None) or (database is None) != (secret_file is None):
        raise click.UsageError("give the FOLDER of a back-up, or --database with --secret-file")
    home = (state_dir or default_state_dir()).absolute()
    try:
        if folder is not None:
            sound = _restore(folder, home, receipts)
        else:
            assert database is not None
            assert secret_file is not None
            sound = asyncio.run(_restored(database, secret_file, receipts))
    except DomainError as error:
        raise click.ClickException(error.detail) from None
    raise click.exceptions.Exit(0 if sound else 1)


async def _restored(database: str, secret_file: Path, receipts: Path | None) -> bool:
    """What is left to do in a database that its operator restored: end what was live, and audit."""
    from perak.adapters.db.migrate import upgrade
    from perak.server.audit_command import audit_database, receipt_files
    from perak.server.backup import check_alone, settle_live

    await check_alone(database)
    await upgrade(database)
    held = receipt_files(receipts) if receipts else iter(())
    settled, fenced = await settle_live(database, secret=secret_file, held=held)
    report = await audit_database(database, receipts)
    click.echo(f"{settled} runs settled by receipts, {fenced} fenced")
    click.echo("\n".join(report.lines()))
    return report.sound


def _restore(folder: Path, home: Path, receipts: Path | None) -> bool:
    from perak.adapters.db.migrate import upgrade
    from perak.adapters.postgres import EmbeddedPostgres
    from perak.adapters.postgres.running import tools
    from perak.server.audit_command import audit_database, receipt_files
    from perak.server.backup import SECRETS, check, put_back, settle_live

    made_at = check(folder)
    if (home / "postgres").exists():
        raise Conflict(f"{home} has a database already; name another --state-dir, or move it away first")
    try:
        with EmbeddedPostgres(home) as url:
            put_back(folder, url, state_dir=home, tools=tools(home))
            asyncio.run(upgrade(url))
            held = receipt_files(receipts) if receipts else iter(())
            settled, fenced = asyncio.run(
                settle_live(url, secret=home / SECRETS["exchange.secret"], held=held)
            )
            report = asyncio.run(audit_database(url, receipts))
    except BaseException:
        shutil.rmtree(home / "postgres", ignore_errors=True)
        raise
    click.echo(f"restored the state of {made_at}: {settled} runs settled by receipts, {fenced} fenced")
    click.echo("\n".join(report.lines()))
    return report.sound
