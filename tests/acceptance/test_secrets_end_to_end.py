"""A secret goes from a renter's keyboard to the job, and nowhere else."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from acceptance.conftest import Shell

TOKEN = "swordfish-8f3a-4711"


def test_a_job_has_the_secret_and_neither_log_nor_node_shows_it(perak: Shell, tmp_path: Path) -> None:
    typed = subprocess.run(
        [sys.executable, "-m", "perak", "secret", "set", "MODEL_TOKEN"],
        input=f"{TOKEN}\n", env=perak.environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert typed.returncode == 0, typed.stderr
    key = tmp_path / "key.pem"
    key.write_text("-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG\n-----END KEY-----\n")
    assert perak("secret", "set", "SSH_KEY", "--from-file", str(key)).returncode == 0
    assert [each["name"] for each in json.loads(perak("secret", "ls", "--json").stdout)] == [
        "MODEL_TOKEN",
        "SSH_KEY",
    ]
    job = tmp_path / "job.yaml"
    job.write_text(
        "name: secretive\nsecrets: {MODEL_TOKEN: env, SSH_KEY: file}\n"
        'run: |\n  echo "token $MODEL_TOKEN, ${#MODEL_TOKEN} characters"\n  cat /run/secrets/SSH_KEY\n'
        "  wc -c < /run/secrets/SSH_KEY\n"
    )
    reply = perak("run", str(job))
    assert reply.returncode == 0, reply.stderr
    lines = reply.stdout.splitlines()
    assert lines[0] == f"token {'*' * len(TOKEN)}, {len(TOKEN)} characters"
    assert lines[2] == "*" * len("MIIEvQIBADANBgkqhkiG")
    assert lines[4] == str(key.stat().st_size)
    shown = perak("show", "secretive", "--json").stdout
    (run,) = json.loads(shown)["runs"]
    receipt = perak("receipt", "show", run["receipt"], "--json").stdout
    for text in (reply.stdout, reply.stderr, shown, receipt):
        assert TOKEN not in text
        assert "MIIEvQIBADANBgkqhkiG" not in text
    assert files_with(TOKEN, perak.local.state_dir) == []
    assert perak("secret", "rm", "MODEL_TOKEN").returncode == 0
    refused = perak("run", str(job))
    assert refused.returncode != 0
    assert "no secret MODEL_TOKEN" in refused.stderr


def test_an_encrypted_jobs_files_are_read_by_its_node_and_its_renter_alone(
    perak: Shell, tmp_path: Path
) -> None:
    # Not to be compressed away, so that it would be found.
    mark = "NPLjt8wMh2qPvYxE0aRk"
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "in.txt").write_text(mark)
    job = tmp_path / "job.yaml"
    job.write_text(
        "name: sealed\nencrypt: true\nworkdir: work\noutputs: [out/]\n"
        "run: mkdir out && tr 'A-Za-z' 'N-ZA-Mn-za-m' < in.txt > out/out.txt && wc -c < in.txt\n"
    )
    home = {"XDG_CONFIG_HOME": str(tmp_path / "config")}
    reply = perak("run", str(job), **home)
    assert reply.returncode == 0, reply.stderr
    assert reply.stdout.splitlines()[0] == str(len(mark))
    recipient = perak("keygen", **home).stdout.strip()
    assert recipient.startswith("age1")

    blobs = [path for path in perak.local.state_dir.rglob("*") if path.is_file() and "blobs" in path.parts]
    sealed = [path for path in blobs if path.read_bytes().startswith(b"age-encryption.org/v1\n")]
    assert len(sealed) == 2
    assert files_with(mark, perak.local.state_dir) == []

    assert perak("download", "sealed", str(tmp_path / "out"), **home).returncode == 0
    made = (tmp_path / "out" / "out" / "out.txt").read_text()
    assert made == mark.translate(str.maketrans(ROT13))
    other = {"XDG_CONFIG_HOME": str(tmp_path / "another")}
    refused = perak("download", "sealed", str(tmp_path / "no"), **other)
    assert refused.returncode != 0
    assert "encrypted" in refused.stderr
    (run,) = json.loads(perak("show", "sealed", "--json").stdout)["runs"]
    shown = perak("receipt", "show", run["receipt"]).stdout
    assert "could be read by" in shown
    assert "no trusted execution environment" in " ".join(shown.split())


ROT13 = {
    chr(base + at): chr(base + (at + 13) % 26) for base in (ord("A"), ord("a")) for at in range(26)
}  # fmt: skip


def files_with(text: str, folder: Path) -> list[str]:
    found = subprocess.run(
        ["grep", "-r", "-a", "-l", text, str(folder)], capture_output=True, text=True, check=False
    )
    return found.stdout.splitlines()
