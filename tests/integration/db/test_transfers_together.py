"""Transfers of one statement are refused together, and lock their wallets in one order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

BLOCKED_SECONDS_MAX = 30.0

WALLETS = """
insert into project (id, name, created_at) select name, name, now() from unnest(array['a', 'b']) name;
insert into account (kind, project_id) select 'wallet', id from project;
insert into transfer (at, phase, kind, debit, credit, amount)
    select now(), 'single', 'fund', external.id, wallet.id, 1000
    from account external, account wallet where external.kind = 'external' and wallet.kind = 'wallet';
"""
MOVE = """
insert into transfer (at, phase, kind, debit, credit, amount, pending_id)
select now(), each.phase, each.kind, wallet.id, escrow.id, each.amount, each.pending_id
from unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[]) with ordinality
        as each (project, phase, kind, amount, pending_id, place)
    join account wallet on wallet.kind = 'wallet' and wallet.project_id = each.project
    join account escrow on escrow.kind = 'escrow'
order by place
returning id
"""
HOLD, CAPTURE = ("pending", "hold"), ("post", "capture")


@pytest.fixture
async def db(database_url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(database_url)
    await connection.execute(WALLETS)
    yield connection
    await connection.close()


async def _move(db: Any, *moves: tuple[str, tuple[str, str], int, int | None]) -> list[int]:
    """(project, what, amount, the hold that it resolves) in one statement; their ids."""
    columns = [
        [project for project, *_ in moves],
        [phase for _, (phase, _), *_ in moves],
        [kind for _, (_, kind), *_ in moves],
        [amount for *_, amount, _ in moves],
        [pending for *_, pending in moves],
    ]
    return [row["id"] for row in await db.fetch(MOVE, *columns)]


async def _wallets(db: Any) -> dict[str, tuple[int, int]]:
    rows = await db.fetch("select project_id, posted, pending from account where kind = 'wallet'")
    return {row["project_id"]: (row["posted"], row["pending"]) for row in rows}


async def test_what_a_wallet_does_not_cover_together_is_refused_together(db: Any) -> None:
    with pytest.raises(asyncpg.CheckViolationError, match="wallet_covers"):
        await _move(db, ("b", HOLD, 10, None), ("a", HOLD, 600, None), ("a", HOLD, 401, None))
    assert await _wallets(db) == {"a": (1000, 0), "b": (1000, 0)}
    assert await db.fetchval("select count(*) from transfer where kind = 'hold'") == 0
    await _move(db, ("b", HOLD, 10, None), ("a", HOLD, 600, None), ("a", HOLD, 400, None))
    assert await _wallets(db) == {"a": (1000, 1000), "b": (1000, 10)}


async def test_one_wrong_transfer_refuses_all_of_its_statement(db: Any) -> None:
    good, first, second = await _move(
        db, ("a", HOLD, 100, None), ("a", HOLD, 500, None), ("a", HOLD, 300, None)
    )
    (others,) = await _move(db, ("b", HOLD, 100, None))
    for wrong, said in (
        (("a", CAPTURE, 301, second), "301 of the 300 reserved"),
        (("a", CAPTURE, 10, others), "does not match"),
        (("a", CAPTURE, 10, 10**9), "does not match"),
        (("b", CAPTURE, 10, first), "does not match"),
    ):
        with pytest.raises(asyncpg.IntegrityConstraintViolationError, match=said):
            await _move(db, ("a", CAPTURE, 1, good), wrong)
    assert await _wallets(db) == {"a": (1000, 900), "b": (1000, 100)}
    await _move(db, ("a", CAPTURE, 300, second), ("b", CAPTURE, 40, others), ("a", CAPTURE, 1, good))
    assert await _wallets(db) == {"a": (699, 500), "b": (960, 0)}


async def test_what_was_posted_can_not_be_resolved_again(db: Any) -> None:
    (hold,) = await _move(db, ("a", HOLD, 600, None))
    (capture,) = await _move(db, ("a", CAPTURE, 600, hold))
    for again in (hold, capture):
        with pytest.raises(asyncpg.IntegrityConstraintViolationError):
            await _move(db, ("a", CAPTURE, 1, again))
    assert await _wallets(db) == {"a": (400, 0), "b": (1000, 0)}


async def test_wallets_are_locked_in_the_order_of_their_projects(db: Any, database_url: str) -> None:
    """One that waits for the first has not locked the second, whatever the order of the transfers."""
    other, watcher = await asyncpg.connect(database_url), await asyncpg.connect(database_url)
    try:
        async with db.transaction():
            await _move(db, ("a", HOLD, 1, None))
            waiting = asyncio.create_task(_move(other, ("b", HOLD, 1, None), ("a", HOLD, 1, None)))
            async with asyncio.timeout(BLOCKED_SECONDS_MAX):
                blocked = "select cardinality(pg_blocking_pids($1)) > 0"
                while not await watcher.fetchval(blocked, other.get_server_pid()):
                    await asyncio.sleep(0.01)
            free = "select project_id from account where kind = 'wallet' for no key update skip locked"
            assert [row["project_id"] for row in await watcher.fetch(free)] == ["b"]
        await waiting
    finally:
        await other.close()
        await watcher.close()
    assert await _wallets(db) == {"a": (1000, 2), "b": (1000, 1)}


async def test_a_transfer_refers_to_what_is_there_and_stays(db: Any) -> None:
    insert = """insert into transfer (at, phase, kind, debit, credit, amount, job_id, run_id)
        values (now(), 'single', {})"""
    for missing, said in (
        ("'payout', 1, 10001, 5, null, null", "account 10001"),
        ("'payout', 10002, 1, 5, null, null", "account 10002"),
        ("'payout', 1, 2, 5, 'none', null", "job none"),
        ("'payout', 1, 2, 5, null, 'neither'", "run neither"),
    ):
        with pytest.raises(asyncpg.ForeignKeyViolationError, match=said):
            await db.execute(insert.format(missing))
    for statement in (
        "truncate account cascade",
        "delete from account",
        "update account set id = default",
        "delete from job",
        "truncate job cascade",
        "update job set id = 'another'",
        "delete from run",
        "truncate run cascade",
        "update run set id = 'another'",
    ):
        with pytest.raises(asyncpg.IntegrityConstraintViolationError):
            await db.execute(statement)
