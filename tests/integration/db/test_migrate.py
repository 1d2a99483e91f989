"""The schema's migrations, on the embedded PostgreSQL and on the oldest one that we support."""

import asyncio
import itertools
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from perak.adapters.db import migrate

_numbers = itertools.count(1)

FIRST = """
create table greeting (id integer primary key, words text not null);
-- Neither the colons nor the semicolons below may be taken for anything else.
create function loud(words text) returns text language plpgsql as $body$
begin
    return upper(words) || ':name;' || '12:30'::time::text;
end;
$body$;
insert into greeting values (1, 'halo; dunia');
"""
SECOND = """
alter table greeting add column loudly text;
update greeting set loudly = loud(words);
alter table greeting alter column loudly set not null;
"""


@pytest.fixture(params=["embedded", "postgresql-15"])
def empty_url(request: pytest.FixtureRequest) -> str:
    """A database without a schema, on each server that this machine has."""
    server = request.getfixturevalue("postgres" if request.param == "embedded" else "postgres_15")
    name = f"migration_{next(_numbers)}"
    asyncio.run(fetch(server, f"CREATE DATABASE {name}"))
    return urlsplit(server)._replace(path=f"/{name}").geturl()


@pytest.fixture
def versions(tmp_path: Path) -> Path:
    """A history of one step; `add_step` writes another."""
    add_step(tmp_path, "0001", None, FIRST)
    return tmp_path


def add_step(versions: Path, revision: str, previous: str | None, sql: str) -> None:
    ours = next(migrate.VERSIONS.glob("0001_*.py")).read_text()
    text = ours.replace('revision = "0001"', f'revision = "{revision}"')
    text = text.replace("down_revision = None", f"down_revision = {previous!r}")
    (versions / f"{revision}_step.py").write_text(text)
    (versions / f"{revision}_step.sql").write_text(sql)


async def fetch(url: str, query: str) -> object:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


async def test_perak_s_schema_lands_and_a_second_upgrade_changes_nothing(empty_url: str) -> None:
    assert await migrate.current_revision(empty_url) is None
    await migrate.upgrade(empty_url)
    assert await migrate.current_revision(empty_url) == migrate.newest_revision()
    await migrate.upgrade(empty_url)
    assert await migrate.current_revision(empty_url) == migrate.newest_revision()


async def test_an_earlier_schema_upgraded_keeps_its_data(empty_url: str, versions: Path) -> None:
    await migrate.upgrade(empty_url, versions=versions)
    await fetch(empty_url, "insert into greeting values (2, 'apa kabar')")
    add_step(versions, "0002", "0001", SECOND)
    await migrate.upgrade(empty_url, versions=versions)
    assert await migrate.current_revision(empty_url) == "0002"
    assert await fetch(empty_url, "select loudly from greeting where id = 1") == "HALO; DUNIA:name;12:30:00"
    assert await fetch(empty_url, "select count(*) from greeting") == 2


async def test_replicas_that_start_together_migrate_once(empty_database_url: str, versions: Path) -> None:
    upgrades = (migrate.upgrade(empty_database_url, versions=versions) for _ in range(3))
    await asyncio.gather(*upgrades)
    assert await fetch(empty_database_url, "select count(*) from greeting") == 1


async def test_a_failing_step_leaves_the_schema_as_it_was(empty_database_url: str, versions: Path) -> None:
    await migrate.upgrade(empty_database_url, versions=versions)
    add_step(versions, "0002", "0001", SECOND)
    add_step(versions, "0003", "0002", "create table more (); select 1 / 0;")
    with pytest.raises(migrate.MigrationFailed, match="division by zero"):
        await migrate.upgrade(empty_database_url, versions=versions)
    assert await migrate.current_revision(empty_database_url) == "0001"
    assert await fetch(empty_database_url, "select to_regclass('more')") is None


async def test_a_newer_schema_is_refused(empty_database_url: str, versions: Path, tmp_path: Path) -> None:
    add_step(versions, "0002", "0001", SECOND)
    await migrate.upgrade(empty_database_url, versions=versions)
    for path in versions.glob("0002_*"):
        path.unlink()
    with pytest.raises(migrate.MigrationFailed, match="a newer version made it"):
        await migrate.upgrade(empty_database_url, versions=versions)


def test_the_exchange_does_not_carry_alembic() -> None:
    code = "import sys, perak.adapters.db.migrate; print({'alembic', 'sqlalchemy'} & set(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "set()"
