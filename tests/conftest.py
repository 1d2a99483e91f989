"""Fixtures that every folder of tests may use: a PostgreSQL server, and a fresh, migrated database each."""

import asyncio
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import HealthCheck, settings

# No test is timed: the first draw of text in a fresh clone builds Unicode tables, which takes seconds on a
# busy machine. The blob that repeats a failure is always printed.
settings.register_profile(
    "perak", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("perak")

# What `make` lays out where the machine's own runsc is too old (scripts/newer_runsc.py).
if (runsc := Path(__file__).parent.parent / ".tools" / "runsc").exists():
    os.environ.setdefault("PERAK_RUNSC", str(runsc))

# A shell has what it starts in the background ignore Ctrl-C, and nohup hangups; what tests start must not.
for ignorable in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
    if signal.getsignal(ignorable) is signal.SIG_IGN:
        signal.signal(ignorable, signal.default_int_handler if ignorable is signal.SIGINT else signal.SIG_DFL)

LONGEST = (
    "test_faults_cuts.py",
    "test_faults_restore.py",
    "test_clearing.py",  # The first of those that compile the market's loops; the others find them compiled.
    "test_faults_reboot.py",
    "test_notebook.py",
    "test_sandbox_tiers.py",
    "test_agent_lives.py",
    "test_demo.py",
    "test_faults_kills.py",
    "test_escape_checks.py",
    "test_a_job_end_to_end.py",
    "test_faults_full.py",
    "test_terminal.py",
    "test_gpu_jobs.py",
    "test_perak_up.py",
    "test_faults_disks.py",
    "test_two_machines.py",
    "test_openapi.py",
    "test_market_way.py",
    "test_embedded.py",
    "test_environments.py",
)
"""Files of tests that take half a minute or near it, the longest first."""
FOLDERS = ("acceptance", "integration", "unit")
_numbers = itertools.count(1)
DEBIAN_15 = Path("/usr/lib/postgresql/15/bin")
_TEMPLATE = "migrated"
MEMORY_FOLDER = Path("/dev/shm")
"""Hundreds of databases of a thousand files each are made and dropped, which the journal of a disk that
others use, too, makes dear: the 118 tests of use cases took 75 s of the processor there, and 35 s here."""
MEMORY_FOLDER_BYTES_MIN = 4 * 2**30
"""Free, for three workers' servers, which keep up to half a GiB of log each."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long files first, so that pytest's workers end together."""
    items.sort(key=lambda item: _place(item.path))


def _place(path: Path) -> tuple[int, int]:
    longest = LONGEST.index(path.name) if path.name in LONGEST else len(LONGEST)
    return longest, min((FOLDERS.index(each) for each in path.parts if each in FOLDERS), default=len(FOLDERS))


def _reachable_folder(parent: Path | None = None) -> Path:
    """Make a folder that other users may pass through: pytest's own `tmp_path` is closed to them, and as
    root the database server and each run have users of their own."""
    folder = Path(tempfile.mkdtemp(prefix="perak-test-", dir=parent))
    folder.chmod(0o711)
    return folder


def _folder_of_databases() -> Path:
    """In memory where there is room: no disk and no journal for what the tests make and drop."""
    in_memory = MEMORY_FOLDER.is_dir() and shutil.disk_usage(MEMORY_FOLDER).free >= MEMORY_FOLDER_BYTES_MIN
    return _reachable_folder(MEMORY_FOLDER if in_memory else None)


@pytest.fixture
def state_dir() -> Iterator[Path]:
    """An empty state folder, as `perak up --state-dir` would take it."""
    folder = _reachable_folder()
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a server that the tests of this process share; its default database stays empty."""
    from perak.adapters.postgres import EmbeddedPostgres

    folder = _folder_of_databases()
    server = EmbeddedPostgres(folder)
    try:
        url = server.start()
        asyncio.run(_stop_syncing(url))
        yield url
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_15() -> Iterator[str]:
    """The URL of a server of the oldest version that we support, where this machine has it."""
    from perak.adapters.postgres.account import initdb_account, server_account
    from perak.adapters.postgres.layout import hand_over

    if not (DEBIAN_15 / "initdb").exists():
        pytest.skip(f"no PostgreSQL 15 in {DEBIAN_15}")
    folder = _folder_of_databases()
    server, maker = server_account(), initdb_account(server_account())
    hand_over(folder, maker)
    make = [DEBIAN_15 / "initdb", "-D", folder / "data", "-U", "perak", "--auth", "trust", "--no-sync"]
    subprocess.run(make, check=True, stdout=subprocess.DEVNULL, cwd="/", **maker.identity)
    hand_over(folder, server)
    start = [DEBIAN_15 / "postgres", "-D", folder / "data", "-k", folder, "-c", "listen_addresses="]
    process = subprocess.Popen([*start, "-F"], stderr=subprocess.DEVNULL, cwd="/", **server.identity)
    try:
        pid_file = folder / "data" / "postmaster.pid"
        while not (pid_file.exists() and "ready" in pid_file.read_text()):
            assert process.poll() is None
            time.sleep(0.02)
        yield f"postgresql://perak@/postgres?host={folder}"
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=20)
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def run_sql(postgres: str) -> Iterator[Callable[[str], object]]:
    """Carries out a statement in the server's own database, by one connection for all tests."""
    import asyncpg

    with asyncio.Runner() as runner:
        connection = runner.run(asyncpg.connect(postgres))
        yield lambda statement: runner.run(connection.execute(statement))
        runner.run(connection.close())


@pytest.fixture(scope="session")
def migrated_template(postgres: str, run_sql: Callable[[str], object]) -> str:
    """The name of a database with the newest schema, to copy from."""
    from perak.adapters.db.migrate import upgrade

    run_sql(f"CREATE DATABASE {_TEMPLATE}")
    asyncio.run(upgrade(_with_database(postgres, _TEMPLATE)))
    asyncio.run(_fill_cache_file(_with_database(postgres, _TEMPLATE)))
    return _TEMPLATE


@pytest.fixture
def database_url(postgres: str, migrated_template: str, run_sql: Callable[[str], object]) -> Iterator[str]:
    """The URL of a database of this test's own, with the newest schema and no rows."""
    name = f"test_{next(_numbers)}"
    run_sql(f"CREATE DATABASE {name} TEMPLATE {migrated_template} STRATEGY file_copy")
    yield _with_database(postgres, name)
    run_sql(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def empty_database_url(postgres: str, run_sql: Callable[[str], object]) -> Iterator[str]:
    """The URL of a database of this test's own, without a schema."""
    name = f"test_{next(_numbers)}"
    run_sql(f"CREATE DATABASE {name}")
    yield _with_database(postgres, name)
    run_sql(f"DROP DATABASE {name} WITH (FORCE)")


async def _stop_syncing(url: str) -> None:
    """Trade durability, which the tests of the server itself look at, for databases made in no time."""
    import asyncpg

    socket_dir = parse_qs(urlsplit(url).query)["host"][0]
    connection = await asyncpg.connect(user="postgres", database="postgres", host=socket_dir)
    try:
        await connection.execute("ALTER SYSTEM SET fsync = off")
        await connection.execute("ALTER SYSTEM SET full_page_writes = off")
        # Its worker belongs to the superuser, and would stand in the way when a test's database is dropped.
        await connection.execute("ALTER SYSTEM SET autovacuum = off")
        await connection.execute("SELECT pg_reload_conf()")
    finally:
        await connection.close()


async def _fill_cache_file(url: str) -> None:
    """Connect once: the server writes down what each connection needs of the catalogs, and copies have it."""
    import asyncpg

    await (await asyncpg.connect(url)).close()


def _with_database(url: str, name: str) -> str:
    return urlsplit(url)._replace(path=f"/{name}").geturl()
