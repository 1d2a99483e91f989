"""Bring a database's schema up to date, once, however many replicas start at the same time.

Alembic keeps the order of the steps and renders the pending ones as one SQL script; asyncpg carries it out as
it is, in one transaction, under an advisory lock. Alembic and SQLAlchemy are imported only in a child
process (`python -m perak.adapters.db.migrate`), so that the exchange never carries their memory.
"""

import asyncio
import os
import sys
from pathlib import Path

import asyncpg

from perak.domain.errors import Unavailable

MIGRATIONS = Path(__file__).parent / "migrations"
VERSIONS = MIGRATIONS / "versions"
URL_VARIABLE = "PERAK_DATABASE_URL"  # Not an argument: everyone on the machine can read those.
OLDEST_SERVER = 15  # The oldest PostgreSQL that the tests run on.
# Any number that nothing else in the database locks; this one spells "perak" in ASCII.
ADVISORY_LOCK = 0x706572616B
CONNECT_TIMEOUT_SECONDS = 10
# A replica that waits for another's migration waits this long; steps on large tables take minutes.
UPGRADE_TIMEOUT_SECONDS = 600


class MigrationFailed(Unavailable):
    """The schema could not be brought up to date; it is as it was before."""

    code = "migration_failed"


async def current_revision(url: str) -> str | None:
    """Return the revision of the database's schema, or None when it has none yet."""
    connection = await asyncpg.connect(url, timeout=CONNECT_TIMEOUT_SECONDS)
    try:
        return await _read_revision(connection)
    finally:
        await connection.close()


def newest_revision(versions: Path = VERSIONS) -> str:
    """Return the revision that this version of Perak needs."""
    return max(path.name.partition("_")[0] for path in versions.glob("[0-9]*_*.sql"))


async def upgrade(url: str, *, versions: Path = VERSIONS) -> None:
    """Bring the schema up to date; quick when it already is. Raises `MigrationFailed`."""
    if await current_revision(url) == newest_revision(versions):
        return
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "perak.adapters.db.migrate",
        str(versions),
        env={**os.environ, URL_VARIABLE: url},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        _, said = await asyncio.wait_for(child.communicate(), UPGRADE_TIMEOUT_SECONDS)
    except BaseException:
        child.kill()
        await child.wait()
        raise
    if child.returncode != 0:
        raise MigrationFailed(
            f"The database's schema could not be brought to revision {newest_revision(versions)}, and stays "
            f"as it was. {said.decode(errors='replace').strip()[-800:]}"
        )


async def _upgrade_here(url: str, versions: Path) -> None:
    """Carry out the pending steps in this process."""
    connection = await asyncpg.connect(url, timeout=CONNECT_TIMEOUT_SECONDS)
    try:
        if (version := connection.get_server_version()).major < OLDEST_SERVER:
            raise MigrationFailed(
                f"This server is PostgreSQL {version.major}; Perak needs {OLDEST_SERVER} or later."
            )
        # Held until the connection closes: a second replica waits here, then finds nothing to do.
        await connection.execute(f"SELECT pg_advisory_lock({ADVISORY_LOCK})")
        current = await _read_revision(connection)
        if script := _render(current, versions):
            await connection.execute(script)
    finally:
        await connection.close()


async def _read_revision(connection: "asyncpg.Connection[asyncpg.Record]") -> str | None:
    if await connection.fetchval("SELECT to_regclass('alembic_version')") is None:
        return None
    revision: str | None = await connection.fetchval("SELECT version_num FROM alembic_version")
    return revision


def _render(current: str | None, versions: Path) -> str:
    """Return the SQL that leads from `current` to the newest revision; empty when it is the newest."""
    import io

    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    rendered = io.StringIO()
    config = Config(output_buffer=rendered)
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("version_locations", str(versions).replace("%", "%%"))
    config.set_main_option("path_separator", "newline")
    script = ScriptDirectory.from_config(config)
    if current == script.get_current_head():
        return ""
    if current is not None and current not in {step.revision for step in script.walk_revisions()}:
        raise MigrationFailed(
            f"It is at revision {current}, which this version of Perak does not know: a newer version made "
            "it. Install that version or a later one."
        )
    command.upgrade(config, f"{current or 'base'}:head", sql=True)
    return rendered.getvalue()


def _main() -> None:
    try:
        asyncio.run(_upgrade_here(os.environ[URL_VARIABLE], Path(sys.argv[1])))
    except (MigrationFailed, asyncpg.PostgresError, OSError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    _main()
