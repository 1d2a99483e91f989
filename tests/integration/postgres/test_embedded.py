"""The embedded PostgreSQL, as a real server on this machine."""

import asyncio
import contextlib
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest

from perak.adapters.postgres import (
    AlreadyRunning,
    ClosedFolder,
    EmbeddedPostgres,
    OtherMajorVersion,
    binaries,
)
from perak.adapters.postgres.account import SERVER_UID
from perak.adapters.postgres.leftovers import processes_in

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give the server a user of its own")

OWNER = """
import sys, threading, time
from pathlib import Path
from perak.adapters.postgres import EmbeddedPostgres
server = EmbeddedPostgres(Path(sys.argv[1]))
if sys.argv[2] == "main":
    server.start()
else:
    thread = threading.Thread(target=server.start)
    thread.start()
    thread.join()
print("ready", flush=True)
time.sleep(600)
"""


@pytest.fixture(scope="module")
def made_once() -> Iterator[Path]:
    """A state folder after its first start and stop, with one committed row."""
    folder = Path(tempfile.mkdtemp(prefix="perak-test-"))
    with EmbeddedPostgres(folder) as url:
        ask(url, "create table kept as select 42 as answer")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def state(made_once: Path, state_dir: Path) -> Path:
    """A copy of that folder, for one test."""
    subprocess.run(["cp", "-a", f"{made_once}/.", str(state_dir)], check=True)
    return state_dir


def ask(url: str, query: str) -> object:
    async def fetch() -> object:
        connection = await asyncpg.connect(url)
        try:
            return await connection.fetchval(query)
        finally:
            await connection.close()

    return asyncio.run(fetch())


def data_of(state: Path) -> Path:
    return state / "postgres" / "data"


def wait_until(done: Callable[[], bool], patience_seconds: float = 20.0) -> None:
    deadline = time.monotonic() + patience_seconds
    while not done():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def test_data_and_address_survive_a_stop(state_dir: Path) -> None:
    server = EmbeddedPostgres(state_dir)
    url = server.start()
    ask(url, "create table kept as select 42 as answer")
    assert server.ready
    server.stop()
    assert not server.ready
    assert not processes_in(data_of(state_dir))
    with EmbeddedPostgres(state_dir) as again:
        assert again == url
        assert ask(again, "select answer from kept") == 42


def test_commits_are_durable(state: Path) -> None:
    with EmbeddedPostgres(state) as url:
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            assert ask(url, f"show {setting}") == "on"


def test_only_the_password_opens_it_and_only_through_its_socket(state: Path) -> None:
    with EmbeddedPostgres(state) as url:
        parts = urlsplit(url)
        for stranger in ("perak:wrong", "perak", "nobody"):
            with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError)):
                ask(parts._replace(netloc=f"{stranger}@").geturl() + "&passfile=/nonexistent", "select 1")
        assert ask(url, "show listen_addresses") == ""
        assert ask(url, "select rolsuper from pg_roles where rolname = current_user") is False
    password = state / "postgres" / "password"
    assert stat.S_IMODE(password.stat().st_mode) == 0o600
    assert password.read_text().strip() == parts.password
    said = "".join(path.read_text() for path in (state / "postgres" / "log").iterdir())
    assert parts.password
    assert parts.password not in said


def test_a_crash_of_the_server_loses_nothing_committed(state: Path) -> None:
    server = EmbeddedPostgres(state)
    ask(server.start(), "insert into kept values (43)")
    for pid in processes_in(data_of(state)):
        with contextlib.suppress(ProcessLookupError):  # It came for the query, and left by itself.
            os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not server.ready)
    server.stop()
    with EmbeddedPostgres(state) as url:
        assert ask(url, "select count(*) from kept") == 2


@pytest.mark.parametrize("thread", ["main", "other"])
def test_after_its_owner_was_killed_the_next_start_goes_on(state: Path, thread: str) -> None:
    owner = subprocess.Popen([sys.executable, "-c", OWNER, state, thread], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    assert owner.stdout.readline() == "ready\n"
    owner.kill()
    owner.wait()
    owner.stdout.close()
    if thread == "main":  # The kernel tells the server, which shuts down in order by itself.
        wait_until(lambda: not processes_in(data_of(state)))
        assert not (data_of(state) / "postmaster.pid").exists()
    with EmbeddedPostgres(state) as url:
        assert ask(url, "select answer from kept") == 42


def test_a_second_owner_is_told_who_the_first_is(state: Path) -> None:
    with EmbeddedPostgres(state) as url:
        with pytest.raises(AlreadyRunning, match=str(os.getpid())):
            EmbeddedPostgres(state).start()
        assert ask(url, "select answer from kept") == 42


def test_a_process_id_that_now_belongs_to_somebody_else_is_left_alone(state: Path) -> None:
    bystander = subprocess.Popen(["sleep", "600"], start_new_session=True)
    try:
        stale = data_of(state) / "postmaster.pid"
        stale.write_text(f"{bystander.pid}\n{data_of(state)}\n0\n5432\n\n\n\nready\n")
        with EmbeddedPostgres(state) as url:
            assert ask(url, "select answer from kept") == 42
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_another_major_version_is_refused_with_the_way_out(state: Path) -> None:
    marker = data_of(state) / "PG_VERSION"
    marker.write_text("17\n")
    with pytest.raises(OtherMajorVersion, match=r"written by PostgreSQL 17.*pg_dump.*pg_restore"):
        EmbeddedPostgres(state).start()
    assert not processes_in(data_of(state))
    marker.write_text("18\n")
    with EmbeddedPostgres(state) as url:  # Nothing was changed, and nothing is locked.
        assert ask(url, "select answer from kept") == 42


def test_a_lost_password_is_replaced(state: Path) -> None:
    (state / "postgres" / "password").unlink()
    with EmbeddedPostgres(state) as url:
        assert ask(url, "select answer from kept") == 42


def test_a_first_start_that_was_cut_short_is_begun_anew(state_dir: Path) -> None:
    half_made = state_dir / "postgres" / "new" / "data"
    half_made.mkdir(parents=True)
    (half_made / "PG_VERSION").write_text("18\n")
    with EmbeddedPostgres(state_dir) as url:
        assert ask(url, "select 1") == 1
    assert not half_made.exists()


def test_a_path_too_long_for_a_socket_gets_a_short_one(state: Path) -> None:
    deep = state.joinpath(*["folder" * 6] * 3)
    shutil.move(state / "postgres", state / "moved")
    deep.mkdir(parents=True)
    (state / "moved").rename(deep / "postgres")
    with EmbeddedPostgres(deep) as url:
        socket_dir = Path(parse_qs(urlsplit(url).query)["host"][0])
        assert ask(url, "select answer from kept") == 42
        assert stat.S_IMODE(socket_dir.stat().st_mode) == 0o700
    assert not socket_dir.exists()


def test_stop_is_harmless_at_any_time(state: Path) -> None:
    server = EmbeddedPostgres(state)
    server.stop()
    server.start()
    server.stop()
    server.stop()


def test_old_logs_go(state: Path) -> None:
    log = state / "postgres" / "log"
    for day in range(1, 20):
        (log / f"postgresql-202001{day:02}-000000.log").touch()
    with EmbeddedPostgres(state):
        assert len(list(log.iterdir())) <= 7


@as_root
def test_as_root_the_server_has_a_user_of_its_own_and_no_folder_of_others_is_opened(state: Path) -> None:
    before = stat.S_IMODE(state.parent.stat().st_mode)
    with EmbeddedPostgres(state):
        running = processes_in(data_of(state))
        assert running
        assert {os.stat(f"/proc/{pid}").st_uid for pid in running} == {SERVER_UID}
    assert {path.lstat().st_uid for path in data_of(state).rglob("*")} == {SERVER_UID}
    assert stat.S_IMODE(data_of(state).stat().st_mode) == 0o700
    assert stat.S_IMODE(state.parent.stat().st_mode) == before


@as_root
def test_as_root_a_closed_parent_is_named_and_left_closed(state_dir: Path) -> None:
    closed = state_dir / "home"
    closed.mkdir(mode=0o700)
    with pytest.raises(ClosedFolder, match=str(closed)):
        EmbeddedPostgres(closed / "state").start()
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


@as_root
def test_as_root_programs_in_a_private_environment_are_copied_once(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private = state / "private"
    private.mkdir(mode=0o700)
    package = binaries._package_folder()
    for source in (package, package.with_name(f"{package.name}.libs")):
        subprocess.run(["cp", "-al", str(source), str(private)], check=True)
    monkeypatch.setattr(binaries, "_package_folder", lambda: private / package.name)
    with EmbeddedPostgres(state) as url:
        assert ask(url, "select answer from kept") == 42
    (copied,) = (state / "postgres").glob("install-*")
    made_at = copied.stat().st_mtime_ns
    with EmbeddedPostgres(state):
        assert copied.stat().st_mtime_ns == made_at
    assert copied.stat().st_uid == 0  # The server runs them and can't change them.


def test_a_server_started_from_another_thread_outlives_that_thread(state: Path) -> None:
    server = EmbeddedPostgres(state)
    urls: list[str] = []
    thread = threading.Thread(target=lambda: urls.append(server.start()))
    thread.start()
    thread.join()
    try:
        assert ask(urls[0], "select answer from kept") == 42
    finally:
        server.stop()
