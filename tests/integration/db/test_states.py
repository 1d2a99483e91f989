"""The schema and the lifecycles know the same states."""

from __future__ import annotations

import re

import asyncpg
import pytest

from perak.domain.lifecycle import ALL, Lifecycle

CHECKS = """
select pg_get_constraintdef(oid) from pg_constraint
where conrelid = $1::regclass and contype = 'c' and conkey = array[
    (select attnum from pg_attribute where attrelid = $1::regclass and attname = $2)]
"""


@pytest.mark.parametrize("lifecycle", ALL, ids=lambda lifecycle: lifecycle.name)
async def test_a_table_s_states_are_those_of_its_lifecycle(database_url: str, lifecycle: Lifecycle) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        table, column = ("node", "mode") if lifecycle.name == "mode" else (lifecycle.name, "state")
        check = await connection.fetchval(CHECKS, table, column)
    finally:
        await connection.close()
    assert set(re.findall(r"'([a-z_]+)'::text", check)) == lifecycle.states
