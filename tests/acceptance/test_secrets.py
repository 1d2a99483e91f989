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
    state = Path(perak.local.state_dir) if hasattr(perak.local, "state_dir") else None
    if state is not None:
        assert "swordfish" not in subprocess.run(
            ["grep", "-r", "-a", "-l", TOKEN, str(state)], capture_output=True, text=True, check=False
        ).stdout  # fmt: skip
    assert perak("secret", "rm", "MODEL_TOKEN").returncode == 0
    refused = perak("run", str(job))
    assert refused.returncode != 0
    assert "no secret MODEL_TOKEN" in refused.stderr
