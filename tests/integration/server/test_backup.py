"""A back-up is taken while the exchange runs, the machine is lost, and a new one goes on from it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from server_world import Running, ScriptedNode, exited, now_ms, running_exchange, started

from perak.adapters.postgres import EmbeddedPostgres
from perak.server.audit_command import command as audit
from perak.server.backup import check
from perak.server.backup_command import backup, restore
from perak.wire import session as wire
from perak.wire.receipts import verify_receipt


async def in_thread(command: Any, *arguments: str) -> Any:
    """A command in a thread of its own, as it has an event loop of its own."""
    return await asyncio.to_thread(lambda: CliRunner().invoke(command, list(arguments)))


async def finish(node: ScriptedNode, order: wire.LeaseOrder) -> None:
    at = now_ms() - 1000
    await node.report(started(order, at=at), exited(order, started_at=at))


async def receipts(exchange: Running) -> dict[str, dict[str, Any]]:
    """The receipt files of the project, by run."""
    found = {}
    for item in (await exchange.client.get("/v1/receipts")).json()["items"]:
        file = (await exchange.client.get(f"/v1/receipts/{item['id']}")).json()
        found[file["receipt"]["run"]] = file
    return found


async def migrated(url: str) -> str:
    from perak.adapters.db.migrate import upgrade

    await upgrade(url)
    return url


async def test_what_was_settled_since_the_back_up_is_noticed_and_reconciled(state_dir: Path) -> None:
    home, new, copy, held = (state_dir / name for name in ("home", "new", "copy", "held"))
    held.mkdir()
    state_dir.chmod(0o711)
    with EmbeddedPostgres(home) as url:
        async with running_exchange(await migrated(url), home / "exchange") as exchange:
            (home / "local.json").write_text(json.dumps({"url": "", "api_key": exchange.key, "pid": 0}))
            node = await ScriptedNode.enrol(exchange)
            await node.open()
            data = b"a work folder"
            digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
            await exchange.client.put(f"/v1/blobs/{digest}", content=data)
            early = await node.lease_of(await exchange.submit(name="early"))
            await finish(node, early)
            live = await node.lease_of(await exchange.submit(name="live"))
            lost = await node.lease_of(await exchange.submit(name="lost"))
            await node.report(started(live), started(lost))

            taken = await in_thread(backup, str(copy), "--state-dir", str(home))
            assert taken.exit_code == 0, taken.output
            again = await in_thread(backup, str(copy), "--state-dir", str(home))
            assert (again.exit_code, "is there already" in again.output) == (1, True)

            # After the back-up: one run of it ends, one that it does not know begins and ends.
            await finish(node, live)
            late = await node.lease_of(await exchange.submit(name="late"))
            await finish(node, late)
            before = await receipts(exchange)
            assert set(before) == {early.run, live.run, late.run}
            for run, file in before.items():
                (held / f"{run}.json").write_text(json.dumps(file))
            sequence = node.seq
            await node.close()
    shutil.rmtree(home)

    # The machine is lost; the agent, the receipts and the back-up are left.
    back = await in_thread(restore, str(copy), "--state-dir", str(new), "--receipts", str(held))
    assert "1 runs settled by receipts, 1 fenced" in back.output, back.output
    assert back.exit_code == 1
    assert back.output.count("WRONG") == 1, back.output
    (lost_line,) = [line for line in back.output.splitlines() if line.startswith("WRONG")]
    assert "lost receipt" in lost_line
    assert late.run in lost_line
    alone = await in_thread(audit, "--state-dir", str(new))
    assert (alone.exit_code, "all is as it must be" in alone.output) == (0, True), alone.output

    with EmbeddedPostgres(new) as url:
        async with running_exchange(url, new / "exchange", operator_key=exchange.key) as again:
            after = await receipts(again)
            authority = (await again.client.get("/v1/exchange")).json()["ca_fingerprint"]
            for file in after.values():
                assert verify_receipt(json.dumps(file), trusted_fingerprint=authority).trusted
            assert set(after) == {early.run, live.run}
            assert after[early.run] == before[early.run]
            money = ("cost_micros", "fee_micros", "payout_micros", "evidence")
            for name in money:
                assert after[live.run]["receipt"][name] == before[live.run]["receipt"][name]
            assert (await again.client.get(f"/v1/blobs/{digest}")).content == data

            # The agent comes back with higher numbers than the exchange knows; a fenced job runs again.
            returned = ScriptedNode(again, node.id, node.key, node.chain)
            await returned.open()
            assert returned.seq < sequence
            anew = await returned.lease_of(lost.job)
            assert anew.epoch == lost.epoch + 1
            await finish(returned, anew)
            assert (await again.job(lost.job))["state"] == "succeeded"
            await returned.close()


def test_a_damaged_back_up_is_not_restored(tmp_path: Path) -> None:
    from perak.domain.errors import InvalidInput

    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "database.dump").write_bytes(b"whole")
    files = {"database.dump": hashlib.sha256(b"whole").hexdigest()}
    (copy / "manifest.json").write_text(json.dumps({"format": 1, "made_at": "then", "files": files}))
    assert check(copy) == "then"
    (copy / "database.dump").write_bytes(b"other")
    with pytest.raises(InvalidInput, match="was changed since then"):
        check(copy)
    ended = CliRunner().invoke(restore, [str(copy), "--state-dir", str(tmp_path / "new")])
    assert ended.exit_code == 1
    assert not (tmp_path / "new").exists()


async def test_a_database_that_its_operator_restored(database_url: str, state_dir: Path) -> None:
    """What was live ends, once nobody else uses the database: in one that is in use every run would."""
    home = state_dir / "home"
    async with running_exchange(await migrated(database_url), home) as exchange:
        node = await ScriptedNode.enrol(exchange)
        await node.open()
        live = await node.lease_of(await exchange.submit(name="live"))
        await node.report(started(live))
        arguments = ("--database", database_url, "--secret-file", str(home / "exchange.secret"))
        refused = await in_thread(restore, *arguments)
        assert (refused.exit_code, "stop every replica" in refused.output) == (1, True), refused.output
        assert (await exchange.job(live.job))["state"] == "running"
        await node.close()
    done = await in_thread(restore, *arguments)
    assert done.exit_code == 0, done.output
    assert "0 runs settled by receipts, 1 fenced" in done.output
    async with running_exchange(database_url, home, operator_key=exchange.key) as again:
        assert (await again.job(live.job))["runs"][0]["state"] == "fenced"
