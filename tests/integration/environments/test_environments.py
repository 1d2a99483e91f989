"""Environments are really resolved, installed and used; and nothing but the index is reached on the way."""

import os
import socket
import stat
import subprocess
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from perak.agent.environments import (
    Environment,
    Environments,
    IndexSettings,
    Interpreter,
    NotInstalled,
    NotResolved,
    PythonNotOnNode,
    RequirementRefused,
)
from perak.agent.environments.sandbox import InstallSandbox, Outcome

if TYPE_CHECKING:
    from tests.integration.environments.conftest import LocalServer

# As in conftest.py: who installs, and who runs what was installed; both own nothing.
INSTALL_UID = 64_321 if os.geteuid() == 0 else None
JOB_UID = 64_322 if os.geteuid() == 0 else None


def python_says(environment: Environment, code: str) -> str:
    """What the environment's Python prints, run as a uid that owns nothing."""
    done = subprocess.run(
        [environment.python, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        user=JOB_UID,
        group=JOB_UID,
        cwd="/",
    )
    return done.stdout.strip()


def test_a_package_and_what_it_needs_can_be_imported_by_anyone(
    environments: Environments, python: Interpreter
) -> None:
    lines: list[str] = []
    made = environments.ensure(python.version, ["app"], log=lines.append)

    assert python_says(made, "import app, lib; print(app.version, lib.version)") == "1.0 1.0"
    assert any("app" in line for line in lines)
    assert made.path in made.mounts
    assert made.bin == made.path / "bin"
    assert list(made.path.rglob("lib/__pycache__/*.pyc")), "runs can't write bytecode, so it must be there"
    for path in made.path.rglob("*"):
        status = path.lstat()
        assert status.st_uid == os.geteuid()
        assert stat.S_ISLNK(status.st_mode) or not status.st_mode & 0o7222


def test_the_same_request_is_answered_from_disk_whatever_becomes_of_the_index(
    environments: Environments, python: Interpreter, wheels: Path
) -> None:
    first = environments.ensure(python.version, ["app", "lib"], log=print)
    for wheel in wheels.iterdir():
        wheel.unlink()
    lines: list[str] = []
    assert environments.ensure(python.version, ["lib", "app "], log=lines.append) == first
    assert lines == []


def test_requests_that_resolve_alike_share_an_environment(
    environments: Environments, python: Interpreter
) -> None:
    assert (
        environments.ensure(python.version, ["lib==2.0"], log=print).key
        == environments.ensure(python.version, ["lib>1"], log=print).key
        != environments.ensure(python.version, ["lib<2"], log=print).key
    )


def test_calls_at_once_do_the_work_once(environments: Environments, python: Interpreter) -> None:
    lines: list[str] = []
    made: list[Environment] = []
    threads = [
        threading.Thread(
            target=lambda: made.append(environments.ensure(python.version, ["app"], log=lines.append))
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({each.key for each in made}) == 1
    assert len(made) == 4
    assert sum(line.startswith("resolving") for line in lines) == 1
    assert sum(line.startswith("Installed") for line in lines) == 1


def test_no_packages_need_no_index(
    make_environments: Callable[[IndexSettings], Environments], python: Interpreter
) -> None:
    nowhere = IndexSettings(index_url="http://127.0.0.1:9/simple")
    made = make_environments(nowhere).ensure(python.version, [], log=print)
    assert python_says(made, "import sys; print(sys.prefix)") == str(made.path)


def test_a_package_does_not_run_code_while_it_is_installed(
    environments: Environments, python: Interpreter
) -> None:
    made = environments.ensure(python.version, ["sly"], log=print)
    assert list(made.path.rglob("sly.pth"))
    assert not (made.path / "pwned").exists()


@pytest.mark.parametrize(
    ("packages", "message", "blamed"),
    [
        (["nosuch"], "no package nosuch", ("nosuch",)),
        (["app", "lib>=2"], "can't be had together", ("app", "lib")),
        (["native"], "native.* has no wheel for Python", ("native",)),
        (["lib>9"], "can't be had together: Because only lib<=2.0 is available", ("lib",)),
    ],
)
def test_what_cannot_be_resolved_is_named(
    environments: Environments,
    python: Interpreter,
    packages: list[str],
    message: str,
    blamed: tuple[str, ...],
) -> None:
    with pytest.raises(NotResolved, match=message) as caught:
        environments.ensure(python.version, packages, log=print)
    assert caught.value.packages == blamed


def test_urls_and_absent_pythons_are_refused_before_anything_runs(
    environments: Environments, python: Interpreter
) -> None:
    lines: list[str] = []
    with pytest.raises(RequirementRefused, match="never from a URL"):
        environments.ensure(python.version, ["app @ https://example.org/app.whl"], log=lines.append)
    with pytest.raises(PythonNotOnNode, match=rf"no Python 2\.7; it has: .*{python.version}"):
        environments.ensure("2.7", [], log=lines.append)
    assert lines == []


def test_a_wheel_that_changed_since_it_was_resolved_is_not_installed(
    environments: Environments, python: Interpreter, wheels: Path
) -> None:
    made = environments.ensure(python.version, ["lib==1.0"], log=print)
    with zipfile.ZipFile(wheels / "lib-1.0-py3-none-any.whl", "a") as wheel:
        wheel.writestr("lib/evil.py", "changed")
    record = environments._store.root / f"{made.key}.json"
    record.unlink()
    for cached in (environments._store.root / "uv-cache").glob("*"):
        subprocess.run(["rm", "-rf", cached], check=True)
    with pytest.raises(NotInstalled, match="ash"):
        environments.ensure(python.version, ["lib==1.0"], log=print)
    assert not environments._store.has(made.key)


def test_a_private_state_folder_is_refused_at_the_start(state_dir: Path, bwrap: Path) -> None:
    if INSTALL_UID is None:
        pytest.skip("only root installs as another uid")
    (state_dir / "private").mkdir(mode=0o700)
    with pytest.raises(ValueError, match=r"chmod o\+x"):
        Environments(state_dir / "private", bwrap=bwrap, uid=INSTALL_UID)


# The index over HTTP, through the proxy


def make_index(folder: Path, wheels: Path, *, files_url: str = "../../files") -> None:
    """A simple index (PEP 503) of the folder's wheels."""
    (folder / "files").mkdir()
    for wheel in wheels.iterdir():
        (folder / "files" / wheel.name).write_bytes(wheel.read_bytes())
        page = folder / "simple" / wheel.name.split("-")[0] / "index.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        with page.open("a") as file:
            file.write(f'<a href="{files_url}/{wheel.name}">{wheel.name}</a>\n')


def test_an_index_over_http_is_reached_through_the_proxy(
    make_environments: Callable[[IndexSettings], Environments],
    python: Interpreter,
    wheels: Path,
    tmp_path: Path,
    serve: "Callable[[Path], LocalServer]",
) -> None:
    make_index(tmp_path, wheels)
    server = serve(tmp_path)
    index = IndexSettings(index_url=f"http://reader:s3cret@127.0.0.1:{server.port}/simple")
    lines: list[str] = []
    made = make_environments(index).ensure(python.version, ["app"], log=lines.append)
    assert python_says(made, "import app, lib; print(lib.version)") == "1.0"
    assert "/simple/app/" in server.requests
    assert "s3cret" not in "".join(lines)


def test_files_on_another_host_are_refused_unless_it_is_named(
    make_environments: Callable[[IndexSettings], Environments],
    python: Interpreter,
    wheels: Path,
    tmp_path: Path,
    serve: "Callable[[Path], LocalServer]",
) -> None:
    (tmp_path / "index").mkdir()
    files = serve(tmp_path / "index")
    make_index(tmp_path / "index", wheels, files_url=f"http://127.0.0.1:{files.port}/files")
    pages = serve(tmp_path / "index")
    index = IndexSettings(index_url=f"http://127.0.0.1:{pages.port}/simple")
    with pytest.raises(NotResolved, match=rf"127\.0\.0\.1:{files.port} is not the package index"):
        make_environments(index).ensure(python.version, ["lib"], log=print)
    assert files.requests == []

    index = IndexSettings(index_url=index.index_url, file_hosts=(("127.0.0.1", files.port),))
    make_environments(index).ensure(python.version, ["lib"], log=print)
    assert files.requests


def run_inside(
    sandbox: InstallSandbox, python: Interpreter, code: str, log: Callable[[str], None] = print
) -> Outcome:
    return sandbox.run(
        [[str(python.path), "-I", "-S", "-c", code]],
        interpreter=python,
        binds=[],
        variables={},
        online=True,
        timeout_seconds=30,
        log=log,
    )


def test_the_sandbox_reaches_the_index_and_nothing_else(
    bwrap: Path,
    python: Interpreter,
    tmp_path: Path,
    shared_folder: Path,
    serve: "Callable[[Path], LocalServer]",
) -> None:
    (tmp_path / "hello").write_text("hello")
    index, other = serve(tmp_path), serve(tmp_path)
    with socket.create_server(("0.0.0.0", 0)) as everywhere:
        code = f"""
import os, socket, urllib.error, urllib.request

def fetch(port):
    try:
        return urllib.request.urlopen(f"http://127.0.0.1:{{port}}/hello", timeout=5).read().decode()
    except urllib.error.HTTPError as error:
        return error.code

def connect(address):
    try:
        socket.create_connection(address, timeout=5).close()
        return "connected"
    except OSError as error:
        return type(error).__name__

def tunnel(port):
    proxy = os.environ["HTTPS_PROXY"].removeprefix("http://").split(":")
    with socket.create_connection((proxy[0], int(proxy[1])), timeout=5) as connection:
        connection.sendall(f"CONNECT 127.0.0.1:{{port}} HTTP/1.1\\r\\n\\r\\n".encode())
        return connection.recv(100).split()[1].decode()

print("index", fetch({index.port}), tunnel({index.port}))
print("other", fetch({other.port}), tunnel({other.port}))
print("direct", connect(("127.0.0.1", {other.port})), connect(("127.0.0.1", {everywhere.getsockname()[1]})))
print("interfaces", sorted(name for _, name in socket.if_nameindex()))
print("root", os.path.exists("/root"), os.path.exists("/home"), os.path.exists("/etc/passwd"))
"""
        sandbox = InstallSandbox(
            bwrap=bwrap, uid=INSTALL_UID, disk=shared_folder,
            index=IndexSettings(index_url=f"http://127.0.0.1:{index.port}/simple"),
        )  # fmt: skip
        lines: list[str] = []
        outcome = run_inside(sandbox, python, code, lines.append)
    assert outcome.output.splitlines()[-5:] == [
        "index hello 200",
        "other 403 403",
        "direct ConnectionRefusedError ConnectionRefusedError",
        "interfaces ['lo']",
        "root False False False",
    ]
    assert other.requests == []
    assert outcome.refused == (f"127.0.0.1:{other.port} is not the package index",) * 2
    assert f"refused a connection: 127.0.0.1:{other.port} is not the package index" in lines


def test_a_download_over_its_limit_is_cut(
    bwrap: Path,
    python: Interpreter,
    tmp_path: Path,
    shared_folder: Path,
    serve: "Callable[[Path], LocalServer]",
) -> None:
    (tmp_path / "big").write_bytes(b"x" * 3_000_000)
    server = serve(tmp_path)
    sandbox = InstallSandbox(
        bwrap=bwrap,
        uid=INSTALL_UID,
        disk=shared_folder,
        index=IndexSettings(index_url=f"http://127.0.0.1:{server.port}/simple"),
        download_bytes_max=2**20,
    )
    code = f"import urllib.request; urllib.request.urlopen('http://127.0.0.1:{server.port}/big').read()"
    with pytest.raises(NotInstalled, match="more than 1 MiB to download"):
        run_inside(sandbox, python, code)


def test_an_installation_that_takes_too_long_is_ended_with_all_it_started(
    bwrap: Path, python: Interpreter, shared_folder: Path
) -> None:
    sandbox = InstallSandbox(bwrap=bwrap, uid=INSTALL_UID, disk=shared_folder, index=IndexSettings())
    code = "import os, time; os.fork(); time.sleep(3600)"
    with pytest.raises(NotInstalled, match="not installed within"):
        sandbox.run(
            [[str(python.path), "-c", code]],
            interpreter=python, binds=[], variables={}, online=False, timeout_seconds=1, log=print,
        )  # fmt: skip


def test_root_may_not_be_the_sandbox(bwrap: Path, shared_folder: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("this is about root")
    with pytest.raises(ValueError, match="name a uid"):
        InstallSandbox(bwrap=bwrap, uid=None, index=IndexSettings(), disk=shared_folder)


def test_the_nodes_configured_index_works(
    make_environments: Callable[[IndexSettings], Environments], python: Interpreter
) -> None:
    """The one test that needs the outside: whatever pip is configured to use here."""
    environments = make_environments(IndexSettings.from_environment())
    try:
        made = environments.ensure(python.version, ["six"], log=print)
    except NotResolved as error:
        if "could not be read" in str(error):
            pytest.skip(f"the package index is out of reach: {error}")
        raise
    assert python_says(made, "import six; print(six.__name__)") == "six"
