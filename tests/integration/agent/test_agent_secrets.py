"""Secrets on a real node: fetched when a run starts, on no disk, and out of what the agent reports."""

from __future__ import annotations

import subprocess
from pathlib import Path
from signal import SIGKILL

from fake_exchange import FakeExchange
from leases import order
from test_agent_lives import StartAgent, checked_folder, exchange, start, state_dir

from perak.domain.report import LogChunk, RunExited, RunRefused
from perak.wire.encryption import Key, decrypt
from perak.wire.session import SecretOrder

__all__ = ["checked_folder", "exchange", "start", "state_dir"]

TOKEN = b"swordfish-8f3a-4711"
USES = (SecretOrder(name="TOKEN", kind="env"), SecretOrder(name="KEY", kind="file"))
VALUES = {"TOKEN": TOKEN, "KEY": b"\x00of-the-file\xff"}


def files_with(text: bytes, folder: Path) -> list[str]:
    found = subprocess.run(
        ["grep", "-r", "-l", "-a", text.decode(), str(folder)], capture_output=True, text=True, check=False
    )
    return found.stdout.splitlines()


async def test_a_run_has_its_secrets_over_the_agents_death_and_no_disk_has_them(
    exchange: FakeExchange, start: StartAgent
) -> None:
    agent = await start()
    command = (
        'echo "first $TOKEN"; while ! [ -e go ]; do sleep 0.05; done; '
        'echo "then $TOKEN"; wc -c < /run/secrets/KEY'
    )
    one = order(1, command, setup='echo "setup $TOKEN"', secrets=USES)
    exchange.secrets[one.lease] = VALUES
    exchange.secrets_that_fail = 1
    await exchange.desire(one)
    await exchange.until(lambda: b"first" in exchange.log_of(one.run))
    assert exchange.secrets_asked == 2, "once in vain, and once for the start; not for the preparation"
    assert files_with(TOKEN, agent.state_dir) == []
    await agent.end(SIGKILL)
    assert files_with(TOKEN, agent.state_dir) == []
    again = await start()
    (again.state_dir / "runs" / one.run / "scratch" / "work" / "go").touch()
    (last,) = await exchange.until(lambda: exchange.bodies(RunExited, one.run))
    assert (last.cause, last.exit_code) == ("exited", 0)
    blot = b"*" * len(TOKEN)
    assert exchange.log_of(one.run) == (
        b"setup %b\nfirst %b\nthen %b\n%d\n" % (blot, blot, blot, len(VALUES["KEY"]))
    )
    for body in exchange.reports:
        assert TOKEN not in repr(body).encode()


async def test_a_secret_that_is_gone_or_no_text_is_refused_by_name(
    exchange: FakeExchange, start: StartAgent
) -> None:
    await start()
    gone = order(1, "true", secrets=USES)
    binary = order(2, "true", secrets=(SecretOrder(name="KEY", kind="env"),))
    large = order(3, "true", secrets=USES)
    exchange.secrets[binary.lease] = VALUES
    exchange.secrets[large.lease] = dict.fromkeys(VALUES, b"x" * 200000)
    await exchange.desire(gone, binary, large)
    for each, words in ((gone, "TOKEN was removed"), (binary, "KEY: file"), (large, "larger than")):
        (refused,) = await exchange.until(lambda run=each.run: exchange.bodies(RunRefused, run))
        assert refused.cause == "secrets"
        assert words in refused.detail
        assert not exchange.bodies(LogChunk, each.run)


async def test_outputs_come_encrypted_and_a_bad_recipient_is_noticed_before_the_run(
    exchange: FakeExchange, start: StartAgent, tmp_path: Path
) -> None:
    await start()
    key = Key.generate()
    good = order(1, "echo made > out.txt", outputs=("out.txt",), encrypt_to=key.recipient)
    bad = order(2, "echo made > out.txt", outputs=("out.txt",), encrypt_to="age1" + "q" * 58)
    await exchange.desire(good, bad)
    (refused,) = await exchange.until(lambda: exchange.bodies(RunRefused, bad.run))
    assert (refused.cause, "age recipient" in refused.detail) == ("outputs", True)
    (last,) = await exchange.until(lambda: exchange.bodies(RunExited, good.run))
    assert last.outputs is not None
    sent = exchange.outputs[good.lease]
    assert last.outputs.size_bytes == len(sent)
    (tmp_path / "sent").write_bytes(sent)
    with (tmp_path / "sent").open("rb") as source, (tmp_path / "opened").open("wb") as target:
        decrypt(source, target, identity=key.identity)
    listed = subprocess.run(["tar", "-tzf", str(tmp_path / "opened")], capture_output=True, check=True)
    assert listed.stdout.split() == [b"out.txt"]
