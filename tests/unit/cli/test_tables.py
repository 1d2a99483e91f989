"""Tables in narrow terminals: whole words, and columns left out by name rather than broken."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from perak.cli.render.parts import Fitted, amount, short_device

COLUMNS = ("NODE", "CLASS", ">PRICE", ">RISK", "SANDBOX")
ROWS = [
    ("attic", "Intel Xeon 2.50GHz, PL", "0.01", "-", "bubblewrap"),
    ("vm", "V100, FR", "0.2", "-", "runc"),
]


def shown(width: int) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width).print(Fitted(COLUMNS, ROWS, spare=("SANDBOX", ">PRICE")))
    return [line.rstrip() for line in out.getvalue().splitlines()]


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
