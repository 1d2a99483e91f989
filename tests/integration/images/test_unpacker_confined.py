"""What the unpacking process can still do once it is confined, were it taken over by what it reads."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from integration.images.image_samples import Layer
from integration.images.image_world import UNPACK_UID

LOOK = """
import json, os, socket, sys
from perak.agent.images import unpacker
become, folder = json.loads(sys.argv[1])
if become is not None:
    os.setgroups([]); os.setresgid(become, become, become); os.setresuid(become, become, become)
    unpacker._libc.prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE: as a process that was started by this user
status = os.open("/proc/self/status", os.O_RDONLY)
links = lambda: [name for _, name in socket.if_nameindex()]
unpacker.confine(folder, uid=None if become is not None else {uid}, file_bytes_max=10**6)
def tried(what):
    try:
        what()
    except OSError as error:
        return error.strerror
    return "done"
found = {{
    "status": os.pread(status, 100_000, 0).decode(),
    "there": [name for name in ("/tree", "/etc", "/proc", "/usr") if os.path.exists(name)],
    "who": [os.getuid(), os.getgid(), os.getgroups()],
    "links": links(),
    "setuid": tried(lambda: os.setuid(0)),
    "chroot": tried(lambda: os.chroot("..")),
    "escape": tried(lambda: os.listdir("../../../../../etc")),
    "own file": tried(lambda: os.close(os.open("tree/made", os.O_CREAT | os.O_WRONLY))),
}}
print(json.dumps(found))
"""

UNPACK = """
import json, os, sys
from perak.agent.images import unpacker
os.setgroups([]); os.setresgid({uid}, {uid}, {uid}); os.setresuid({uid}, {uid}, {uid})
unpacker._libc.prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE: as a process that was started by this user
unpacker.main()
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("needs root, to become others")
    path = Path(tempfile.mkdtemp(prefix="perak-unpacker-", dir="/var/tmp"))
    path.chmod(0o711)
    (path / "tree").mkdir(mode=0o755)
    os.chown(path / "tree", UNPACK_UID, UNPACK_UID)
    yield path
    shutil.rmtree(path)


def look(folder: Path, *, become: int | None) -> dict[str, Any]:
    arguments = json.dumps([become, str(folder)])
    command = [sys.executable, "-I", "-c", LOOK.format(uid=UNPACK_UID), arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_as_root_it_becomes_nobody_in_one_folder(folder: Path) -> None:
    found = look(folder, become=None)

    assert found["who"] == [UNPACK_UID, UNPACK_UID, []]
    assert found["there"] == ["/tree"]
    assert found["links"] == ["lo"]
    status = dict(line.split(":\t", 1) for line in found["status"].splitlines() if ":\t" in line)
    for capabilities in ("CapInh", "CapPrm", "CapEff"):
        assert int(status[capabilities], 16) == 0, capabilities
    assert status["NoNewPrivs"].strip() == "1"
    assert found["setuid"] == found["chroot"] == "Operation not permitted"
    assert found["escape"] == "No such file or directory"
    assert found["own file"] == "done"


def test_without_root_a_user_namespace_does_the_same(folder: Path) -> None:
    found = look(folder, become=UNPACK_UID)

    if found["there"] != ["/tree"]:
        pytest.skip("no user namespaces for ordinary users here: it only follows no links")
    assert found["who"][0] == UNPACK_UID
    assert found["links"] == ["lo"]
    assert found["escape"] == "No such file or directory"
    assert found["own file"] == "done"


def test_without_root_layers_are_unpacked_too(folder: Path) -> None:
    layer = Layer().add("bin/tool", b"#!", mode=0o4755).link("l", "bin/tool").hard_link("h", "bin/tool").tar
    request = {
        "action": "unpack",
        "root": str(folder),
        "target": "tree",
        "diff_id": None,
        "plain": False,
        "packed_bytes": len(layer),
        "uid": None,
        "limit_bytes": 10**6,
        "limit_files": 100,
    }
    command = [sys.executable, "-I", "-c", UNPACK.format(uid=UNPACK_UID), json.dumps(request)]

    done = subprocess.run(command, input=layer, capture_output=True, check=True)

    answer = json.loads(done.stdout)
    assert answer.get("ok", {}).get("files") == 3, answer
    tool = (folder / "tree/bin/tool").stat()
    assert (tool.st_uid, tool.st_mode & 0o7777, tool.st_nlink) == (UNPACK_UID, 0o555, 2)
