"""`perak audit`, on a database or on the state folder of a `perak up`."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from perak.domain.errors import DomainError

if TYPE_CHECKING:
    from perak.server.audit import Report


@click.command("audit")
@click.option("--database", envvar="PERAK_DATABASE_URL", metavar="URL", help="PostgreSQL of an exchange.")
@click.option("--state-dir", type=click.Path(path_type=Path), help="Of a `perak up`, running or not.")
@click.option(
    "--against",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="A folder of receipt files that renters and providers hold.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(database: str | None, state_dir: Path | None, against: Path | None, as_json: bool) -> None:
    """Recompute every balance, receipt and passport from the entries.

    It only reads, in one snapshot, while the exchange goes on. It ends with 1 when something is wrong. With
    `--against` it also looks for receipts that this exchange signed and no longer knows, as after a restore.
    """
    try:
        with database_url(database, state_dir) as url:
            report = asyncio.run(audit_database(url, against))
    except DomainError as error:
        raise click.ClickException(error.detail) from None
    except OSError as error:
        raise click.ClickException(f"the database can't be reached: {error}; is the URL right?") from None
    click.echo(report.as_json() if as_json else "\n".join(report.lines()))
    raise click.exceptions.Exit(0 if report.sound else 1)


@contextlib.contextmanager
def database_url(database: str | None, state_dir: Path | None) -> Iterator[str]:
    """The database that is meant: by its URL, or that of a `perak up`. Raises DomainError."""
    if database is not None and state_dir is None:
        yield database
        return
    from perak.adapters.postgres.running import database_of
    from perak.client.paths import state_dir as default_state_dir

    with database_of(state_dir or default_state_dir()) as url:
        yield url


async def audit_database(url: str, against: Path | None) -> Report:
    """Audit the database, and compare it with a folder of receipt files if one is given."""
    from perak.adapters.db.audit import open_books
    from perak.server.audit import audit, compare

    async with open_books(url) as books:
        report = await audit(books)
        if against is not None:
            await compare(report, books, receipt_files(against))
    return report


def receipt_files(folder: Path) -> Iterator[tuple[str, str]]:
    """(name, text) of each receipt file below `folder`; other JSON is passed over."""
    for path in sorted(folder.rglob("*.json")):
        text = path.read_text(errors="replace")
        with contextlib.suppress(ValueError):
            tree = json.loads(text)
            if isinstance(tree, dict) and set(tree) == {"receipt", "jws"}:
                yield str(path.relative_to(folder)), text
