"""A package index of the tests' own, made of wheels that they write, and a place for environments."""

import base64
import hashlib
import os
import shutil
import subprocess
import tempfile
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from perak.agent.environments import Environments, IndexSettings, Interpreter, interpreters
from perak.agent.environments.store import remove_tree
from perak.agent.sandbox.bwrap import candidates

INSTALL_UID = 64_321 if os.geteuid() == 0 else None


@pytest.fixture(scope="session")
def shared_folder() -> Iterator[Path]:
    """A folder that every uid can reach; pytest's own is private to the user."""
    folder = Path(tempfile.mkdtemp(prefix="perak-test-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    remove_tree(folder)


@pytest.fixture
def state_dir(shared_folder: Path) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(dir=shared_folder))
    folder.chmod(0o755)
    yield folder
    remove_tree(folder)


@pytest.fixture(scope="session")
def bwrap(shared_folder: Path) -> Path:
    for candidate in candidates(shared_folder / "programs"):
        command = [str(candidate.path), "--unshare-all", "--ro-bind", "/", "/", "true"]
        try:
            subprocess.run(command, check=True, capture_output=True, user=INSTALL_UID, group=INSTALL_UID)
        except (OSError, subprocess.CalledProcessError):
            continue
        return candidate.path
    pytest.skip("no bubblewrap here can make a sandbox")


@pytest.fixture(scope="session")
def python() -> Interpreter:
    found = interpreters()
    if not found:
        pytest.skip("there is no system Python that every uid can run")
    return found[0]


def write_wheel(
    folder: Path,
    name: str,
    version: str = "1.0",
    *,
    requires: tuple[str, ...] = (),
    files: Mapping[str, str] | None = None,
    tag: str = "py3-none-any",
) -> Path:
    """A wheel as an index would have it, with a module of its name that knows its version."""
    info = f"{name}-{version}.dist-info"
    contents = {
        f"{name}/__init__.py": f"version = {version!r}\n",
        **(files or {}),
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        + "".join(f"Requires-Dist: {each}\n" for each in requires),
    }
    record = "".join(f"{path},{_record_hash(text)},{len(text)}\n" for path, text in contents.items())
    wheel = folder / f"{name}-{version}-{tag}.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in contents.items():
            archive.writestr(path, text)
        archive.writestr(f"{info}/RECORD", f"{record}{info}/RECORD,,\n")
    return wheel


def _record_hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return "sha256=" + base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


@pytest.fixture
def wheels(state_dir: Path) -> Path:
    """A folder of wheels: `app` needs `lib`; `native` fits no Python; `sly` would run code when Python
    starts.
    """
    folder = state_dir / "wheels"
    folder.mkdir()
    write_wheel(folder, "lib", "1.0")
    write_wheel(folder, "lib", "2.0")
    write_wheel(folder, "app", requires=("lib<2",))
    write_wheel(folder, "native", tag="cp27-cp27m-win32")
    sly = "import sys, pathlib; pathlib.Path(sys.prefix, 'pwned').write_text('')"
    write_wheel(folder, "sly", files={"sly.pth": sly, "sitecustomize.py": sly.replace("; ", "\n")})
    return folder


@pytest.fixture
def make_environments(
    state_dir: Path, bwrap: Path, python: Interpreter
) -> Callable[[IndexSettings], Environments]:
    if shutil.which("uv") is None:
        pytest.importorskip("uv")
    return lambda index: Environments(state_dir, bwrap=bwrap, uid=INSTALL_UID, index=index)


@pytest.fixture
def environments(make_environments: Callable[[IndexSettings], Environments], wheels: Path) -> Environments:
    """Environments whose whole index is the folder of wheels."""
    return make_environments(IndexSettings(index_url=None, find_links=(str(wheels),)))


@dataclass
class LocalServer:
    """A web server on loopback: where it is and which paths it was asked for."""

    port: int
    requests: list[str]


@pytest.fixture
def serve() -> Iterator[Callable[[Path], LocalServer]]:
    servers: list[ThreadingHTTPServer] = []

    def start(folder: Path) -> LocalServer:
        requests: list[str] = []

        class Handler(SimpleHTTPRequestHandler):
            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                requests.append(self.path)

        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return LocalServer(server.server_address[1], requests)

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()
