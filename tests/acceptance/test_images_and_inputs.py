"""Images and inputs end to end: a tag in a job file, a real registry, and jobs that run in what it holds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from benchmarks.local import perak_up

from acceptance.conftest import Shell
from integration.images.image_samples import Layer, build, busybox_layer
from integration.images.image_world import RegistryServer, serve_registry

SAYS_WHERE_IT_IS = "id; pwd; echo $GREETING; cat /etc/os-release; ls /usr; touch /usr/x 2>&1"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    with serve_registry(tmp_path_factory.mktemp("registry")) as server:
        config = {
            "Env": ["PATH=/bin", "GREETING=hello there"],
            "Entrypoint": ["/bin/sh", "-c"],
            "Cmd": [SAYS_WHERE_IT_IS],
            "User": "alice",
            "WorkingDir": "/srv/app",
        }
        upper = Layer().add("etc/os-release", b"ID=from-the-image\n")
        server.push(build([busybox_layer().tar, upper.tar], config=config), "tiny")
        yield server


@pytest.fixture(scope="module")
def perak(registry: RegistryServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    file = tmp_path_factory.mktemp("provider") / "provider.yaml"
    file.write_text(f"private_hosts: ['{registry.address}']\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PERAK_TIERS", "bubblewrap")
        with perak_up("--fund", "100", "--provider-file", str(file)) as local:
            yield Shell(local)


def run(perak: Shell, folder: Path, **job: object) -> tuple[int, str, str]:
    """(exit code, the job's log, what was said besides)."""
    (folder / "job.yaml").write_text(json.dumps({"name": "test"} | job))
    done = perak("run", str(folder / "job.yaml"))
    return done.returncode, done.stdout, done.stderr


def test_an_image_runs_as_it_says(perak: Shell, registry: RegistryServer, tmp_path: Path) -> None:
    code, log, said = run(perak, tmp_path, image=f"{registry.address}/tiny:latest")

    assert code != 0, "its last command could not write to the root"
    assert "uid=1234(alice)" in log
    assert "/srv/app" in log
    assert "hello there" in log
    assert "ID=from-the-image" in log
    assert "Read-only file system" in log
    assert f"pulling {registry.address}/tiny: 2 layers" in log, said
    shown = perak("show", "test", "--json")
    assert shown.returncode == 0, shown.stderr
    job = json.loads(shown.stdout)
    assert f"{registry.address}/tiny:latest@sha256:" in json.dumps(job), "the tag was pinned at submit"
    whole = perak("receipt", "show", job["id"], "--json").stdout
    assert f"{registry.address}/tiny:latest@sha256:" in whole


def test_a_script_in_an_image_uses_its_shell_and_the_work_folder(
    perak: Shell, registry: RegistryServer, tmp_path: Path
) -> None:
    (tmp_path / "mine.txt").write_text("brought along\n")
    script = "pwd; cat mine.txt; test ! -e /usr/bin/python3 && echo no node in sight; cat /proc/self/mounts"

    code, log, said = run(
        perak, tmp_path, image=f"{registry.address}/tiny:latest", workdir=".", setup="echo set up", run=script
    )

    assert code == 0, said + log
    assert "set up\n/work\nbrought along\nno node in sight" in log
    assert "pulling" not in log, "the image was there already"


def test_outputs_become_inputs(perak: Shell, tmp_path: Path) -> None:
    code, _, said = run(
        perak, tmp_path, name="makes", run="mkdir out; echo 42 > out/answer", outputs=["out/"]
    )
    assert code == 0, said
    made = json.loads(perak("show", "makes", "--json").stdout)["id"]

    code, log, said = run(
        perak,
        tmp_path,
        name="reads",
        run="cat before/out/answer answer; (echo 43 > before/out/answer) 2>&1 || ls -d before",
        inputs={"before/": f"job:{made}", "answer": f"job:{made}/out/answer"},
        outputs=["before/"],
    )

    assert code == 0, said + log
    assert "42\n42\n" in log
    assert "Read-only file system" in log
    perak("download", "reads", cwd=tmp_path)
    assert not (tmp_path / "reads" / "before" / "out").exists(), "inputs are no outputs"


def test_what_can_not_be_had_fails_with_its_reason(
    perak: Shell, registry: RegistryServer, tmp_path: Path
) -> None:
    code, log, said = run(perak, tmp_path, image=f"{registry.address}/missing:1")
    assert code != 0
    assert "could not be pinned" in said + log

    nowhere = f"{registry.address}/tiny@sha256:{'0' * 64}"
    code, log, said = run(perak, tmp_path, image=nowhere)
    assert code != 0
    assert "the image could not be used" in said + log

    wrong = hashlib.sha256(b"").hexdigest()
    code, log, said = run(perak, tmp_path, run="true", inputs={"in": f"https://127.0.0.1:1/x@sha256:{wrong}"})
    assert code != 0
    assert "an input could not be had" in said + log
