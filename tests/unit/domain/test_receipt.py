"""The receipt's exact bytes, times and sums."""

import hashlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perak.domain.errors import InvalidInput
from perak.domain.receipt import (
    DeviceUse,
    Logs,
    Receipt,
    SandboxUse,
    canonical_bytes,
    miscalculations,
    payload,
    utc_ms,
    utc_text,
)
from perak.domain.report import NetworkUse
from perak.domain.units import charge, split_charge

RECEIPT = Receipt(
    id="receipt-1",
    issued_at="2026-03-01T12:00:00.000Z",
    exchange="home",
    currency="USD",
    job="job-1",
    project="project-1",
    run="run-1",
    lease="lease-1",
    epoch=1,
    attempt=1,
    provider="project-2",
    node="node-1",
    offer="offer-1",
    offer_version=1,
    device=DeviceUse(kind="cpu", model="Größe", uuids=(), cpu_milli=250, memory_bytes=1),
    sandbox=SandboxUse(tier="bubblewrap", runtime="", enforced=()),
    started_at="2026-03-01T11:59:00.000Z",
    ended_at="2026-03-01T12:00:00.000Z",
    billed_seconds=60,
    price_per_device_hour_micros=60_000,
    devices_milli=1000,
    cost_micros=1000,
    fee_micros=50,
    payout_micros=950,
    held_micros=5000,
    refunded_micros=4000,
    exit_code=0,
    cause="exited",
    energy=None,
    carbon=None,
    logs=Logs(size_bytes=0),
    outputs_digest=None,
    evidence="proof",
)

FIRST_DIGEST = "a5fb6eda50ce9b38bafbe3885965eb9d0a1785fa2ac0705dcf550eaa56ae67f7"
"""Of RECEIPT's signed bytes, as the first version wrote them."""


def test_the_bytes_are_sorted_and_without_spaces() -> None:
    text = canonical_bytes(payload(RECEIPT)).decode()
    assert text.startswith(
        '{"attempt":1,"billed_seconds":60,"carbon":null,"cause":"exited","cost_micros":1000,'
    )
    assert '"model":"Größe"' in text


def test_the_first_receipts_keep_the_bytes_that_were_signed() -> None:
    """A field that came later and says nothing must not be there: verifiers compare byte by byte."""
    first = canonical_bytes(payload(RECEIPT))

    assert hashlib.sha256(first).hexdigest() == FIRST_DIGEST
    used = replace(RECEIPT, network=NetworkUse(sent_bytes=0, received_bytes=7, refused=0))
    assert payload(used)["network"] == {"sent_bytes": 0, "received_bytes": 7, "refused": 0}


@given(at_ms=st.integers(min_value=0, max_value=4_000_000_000_000))
def test_times_come_back(at_ms: int) -> None:
    assert utc_ms(utc_text(at_ms)) == at_ms


@pytest.mark.parametrize(
    "text", ["", "2026-03-01", "2026-13-01T00:00:00.000Z", "2026-03-01T12:00:00.000+01:00"]
)
def test_other_times_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="not a time"):
        replace(RECEIPT, ended_at=text)


def test_a_time_beyond_the_calendar_is_refused() -> None:
    with pytest.raises(InvalidInput, match="not a time"):
        utc_text(10**18)


@given(
    price=st.integers(min_value=0, max_value=10**9),
    milli=st.integers(min_value=1, max_value=64_000),
    seconds=st.integers(min_value=0, max_value=60),
    fee=st.integers(min_value=0, max_value=10_000),
    spare=st.integers(min_value=0, max_value=10**9),
)
def test_what_is_charged_by_the_rules_adds_up(
    price: int, milli: int, seconds: int, fee: int, spare: int
) -> None:
    cost = charge(price_per_device_hour=price, devices_milli=milli, seconds=seconds)
    payout, fee_micros = split_charge(cost, fee_basis_points=fee)
    receipt = replace(
        RECEIPT,
        billed_seconds=seconds,
        price_per_device_hour_micros=price,
        devices_milli=milli,
        cost_micros=cost,
        fee_micros=fee_micros,
        payout_micros=payout,
        held_micros=cost + spare,
        refunded_micros=spare,
    )
    assert miscalculations(receipt) == []


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"cost_micros": 1001, "payout_micros": 951, "refunded_micros": 3999}, "above price x time"),
        ({"fee_micros": 51}, "fee and payout"),
        ({"refunded_micros": 3999}, "cost and refund"),
        ({"billed_seconds": 61}, "the run lived 60 s"),
        ({"started_at": None}, "the run lived 0 s"),
        ({"fee_micros": -50, "payout_micros": 1050}, "negative"),
        ({"evidence": None}, "without evidence"),
    ],
)
def test_sums_that_do_not_fit_are_named(change: dict[str, object], complaint: str) -> None:
    assert complaint in "; ".join(miscalculations(replace(RECEIPT, **change)))  # type: ignore[arg-type]
