"""Tables in narrow terminals: whole words, and columns left out by name rather than broken."""

from __future__ import annotations

import io
from datetime import UTC, datetime

import pytest
from rich.console import Console

from perak.cli.render.of_jobs import job
from perak.cli.render.parts import Fitted, amount, short_device, short_subject
from perak.cli.trail import table_of
from perak.wire import api
from unit.client.canned_exchange import NODE, a_detail, a_job, a_run

COLUMNS = ("NODE", "CLASS", ">PRICE", ">RISK", "SANDBOX")
ROWS = [
    ("attic", "Intel Xeon 2.50GHz, PL", "0.01", "-", "bubblewrap"),
    ("vm", "V100, FR", "0.2", "-", "runc"),
]


AT = datetime(2026, 11, 23, 7, 45, tzinfo=UTC)


def printed(what: object, width: int) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width).print(what)
    return [line.rstrip() for line in out.getvalue().splitlines()]


def shown(width: int) -> list[str]:
    return printed(Fitted(COLUMNS, ROWS, spare=("SANDBOX", ">PRICE")), width)


def test_all_columns_where_there_is_room() -> None:
    assert shown(80)[0].split() == ["NODE", "CLASS", "PRICE", "RISK", "SANDBOX"]
    assert len(shown(80)) == 1 + len(ROWS)


def test_empty_columns_go_first_and_are_not_missed() -> None:
    assert shown(50)[0].split() == ["NODE", "CLASS", "PRICE", "SANDBOX"]
    assert len(shown(50)) == 1 + len(ROWS)


def test_spare_columns_go_next_and_are_named_below() -> None:
    lines = shown(40)
    assert lines[0].split() == ["NODE", "CLASS", "PRICE"]
    assert "Intel Xeon 2.50GHz, PL" in lines[1]
    assert "SANDBOX" in " ".join(lines[3:])


def test_a_jobs_runs_have_a_line_each_in_a_terminal_of_80() -> None:
    runs = [
        a_run(attempt=number, node_name="old-card-in-berlin", cause="max_duration", memory_peak_bytes=10**9)
        for number in (1, 2)
    ]
    lines = printed(job(a_detail(a_job(), runs=runs), now=AT), 80)
    begin = next(number for number, line in enumerate(lines) if line.startswith("RUN"))
    assert lines[begin].split() == ["RUN", "NODE", "STATE", "TIME", "EXIT", "ENDED", "BY", "COST", "RECEIPT"]
    for number in (1, 2):
        words = lines[begin + number].split()
        assert words[:3] == [str(number), "old-card-in-berlin", "exited"]
        assert "max_duration" in words
    assert "PRICE/h, MEMORY" in lines[begin + 3]


def test_the_trail_has_a_line_for_each_deed_in_a_terminal_of_80() -> None:
    entry = api.TrailEntry(
        id="1", at=AT, project="project-01k9f3v2m8q7zx4t5r@home", key="key-01k9f3v2m8q7zx4t5r@home",
        key_name="operator", address="192.168.178.123", action="node.revoke", subject=NODE,
        subject_project=None, outcome="refused: not_allowed",
    )  # fmt: skip
    lines = printed(table_of([entry, entry]), 80)
    assert lines[0].split() == ["AT", "WHO", "ACTION", "ON", "OUTCOME"]
    ending = f"operator  node.revoke  node {NODE.partition('@')[0][-6:]}  refused: not_allowed"
    assert all(line.endswith(ending) for line in lines[1:3])
    assert "FROM" in lines[3]


def test_a_name_that_only_looks_like_an_id_is_shown_whole() -> None:
    assert short_subject("node-of-mine@home") == "node-of-mine@home"


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("Intel(R) Xeon(R) Processor @ 2.50GHz", "Intel Xeon 2.50GHz"),
        ("Intel(R) Core(TM) i7-8700 CPU @ 3.20GHz, DE", "Intel Core i7-8700 3.20GHz, DE"),
        ("AMD EPYC 7763 64-Core Processor, DE", "AMD EPYC 7763 64-Core, DE"),
        ("2 x Tesla V100-SXM2-16GB (B)", "2 x Tesla V100-SXM2-16GB (B)"),
    ],
)
def test_a_processor_is_named_without_what_all_say(name: str, short: str) -> None:
    assert short_device(name) == short


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (3.463e-6, "0.00000346"), (0.5, "0.500"), (1234.5, "1,234.500")]
)
def test_a_small_amount_does_not_read_as_none(value: float, text: str) -> None:
    assert amount(value) == text
