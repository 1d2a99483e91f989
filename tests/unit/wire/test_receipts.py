"""A receipt proves itself offline, and any change to it shows."""

import base64
import copy
import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perak.domain.footprint import YEARLY_AVERAGE, Carbon, Energy
from perak.domain.receipt import (
    DeviceUse,
    Logs,
    Receipt,
    SandboxUse,
    canonical_bytes,
    payload,
    utc_ms,
    utc_text,
)
from perak.domain.report import Metered, OutputBlob, RunExited
from perak.wire.identity import (
    NODE_CERT_LIFETIME,
    Authority,
    issue_exchange_certificate,
    issue_node_certificate,
)
from perak.wire.receipts import (
    RECEIPT_BYTES_MAX,
    ReceiptError,
    VerifiedReceipt,
    readable,
    receipt_file,
    sign_receipt,
    verify_receipt,
)
from perak.wire.signing import RECEIPT_TYP, REPORT_TYP, SigningKey, sign

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
NOW_MS = utc_ms("2026-03-01T12:00:00.000Z")
NODE = "node-01k9f3v2m8q7zx4t5r@home"
RUN = "run-01k9f3v2m8q7zx4t5r@home"
LEASE = "lease-01k9f3v2m8q7zx4t5r@home"
NODE_KEY = SigningKey.from_seed(bytes([7]) * 32)
EXCHANGE_KEY = SigningKey.from_seed(bytes([8]) * 32)


class Exchange:
    """An exchange with one node, and certificates made at `now`."""

    def __init__(self, name: str = "home", *, now: datetime = NOW) -> None:
        self.authority = Authority.create(name, now=now)
        root = self.authority.certificate_der
        leaf = issue_exchange_certificate(self.authority, public_key=EXCHANGE_KEY.public_bytes, now=now)
        self.chain = (leaf, root)
        node = NODE.replace("@home", f"@{name}")
        leaf = issue_node_certificate(self.authority, node_id=node, public_key=NODE_KEY.public_bytes, now=now)
        self.node_chain = (leaf, root)

    def report(self, body: RunExited | Metered, *, at: int = NOW_MS, key: SigningKey = NODE_KEY) -> str:
        kind = "run_exited" if isinstance(body, RunExited) else "metered"
        envelope = {"seq": 9, "node": NODE, "at": at, "type": kind, "body": asdict(body)}
        return sign(key, json.dumps(envelope).encode(), typ=REPORT_TYP, chain=self.node_chain)

    def sign(self, receipt: Receipt, *, key: SigningKey = EXCHANGE_KEY) -> str:
        return sign_receipt(receipt, key=key, chain=self.chain)


HOME = Exchange()

EXITED = RunExited(
    run=RUN,
    lease=LEASE,
    epoch=1,
    started_at=NOW_MS - 90_250,
    ended_at=NOW_MS - 250,
    exit_code=0,
    cause="exited",
    detail=None,
    cpu_seconds=85.5,
    memory_peak_bytes=123_456_789,
    energy_joules=1234.5678915,
    energy_method="model: TDP per core x utilisation",
    energy_uncertainty_percent=60.0,
    log_bytes=321,
    outputs=OutputBlob(digest="sha256:" + "cd" * 32, size_bytes=1000, file_count=1),
)


def receipt_of(evidence: str | None, **changes: object) -> Receipt:
    """The receipt of `EXITED` at 0.40 per core-hour with a fee of 5 %, with some fields changed."""
    values: dict[str, object] = {
        "id": "receipt-01k9f3v2m8q7zx4t5r@home",
        "issued_at": utc_text(NOW_MS),
        "exchange": "home",
        "currency": "USD",
        "job": "job-01k9f3v2m8q7zx4t5r@home",
        "project": "project-01k9f3v2m8q7zx4t5r@home",
        "run": RUN,
        "lease": LEASE,
        "epoch": 1,
        "attempt": 1,
        "provider": "project-01k9f3v2m8q7zx4t5s@home",
        "node": NODE,
        "offer": "offer-01k9f3v2m8q7zx4t5r@home",
        "offer_version": 3,
        "device": DeviceUse(kind="cpu", model="Any CPU", uuids=(), cpu_milli=1000, memory_bytes=2**28),
        "sandbox": SandboxUse(
            tier="bubblewrap",
            runtime="bubblewrap 0.11.0",
            enforced=("network",),
            unenforced={"disk": "no quota"},
        ),
        "started_at": utc_text(NOW_MS - 90_250),
        "ended_at": utc_text(NOW_MS - 250),
        "billed_seconds": 90,
        "price_per_device_hour_micros": 400_000,
        "devices_milli": 1000,
        "cost_micros": 10_000,
        "fee_micros": 500,
        "payout_micros": 9_500,
        "held_micros": 66_667,
        "refunded_micros": 56_667,
        "exit_code": 0,
        "cause": "exited",
        "energy": Energy(joules=1234.567892, method=EXITED.energy_method, uncertainty_percent=60.0),
        "carbon": Carbon(
            grams=0.184108,
            grams_per_kwh=344.13992,
            pue=1.56,
            region="DE",
            method=YEARLY_AVERAGE,
            source="Ember (2025)",
            year=2024,
        ),
        "logs": Logs(size_bytes=321),
        "outputs_digest": "sha256:" + "cd" * 32,
        "evidence": evidence,
    }
    return Receipt(**(values | changes))  # type: ignore[arg-type]


RECEIPT = receipt_of(HOME.report(EXITED))


untimed = settings(deadline=None)
FILE = receipt_file(HOME.sign(RECEIPT))
FINGERPRINT = HOME.authority.fingerprint
STRANGER = SigningKey.from_seed(bytes([9]) * 32)


def _failed(found: VerifiedReceipt) -> set[str]:
    assert not found.valid
    return {check.name for check in found.checks if check.passed is False}


def _verify(jws: str) -> VerifiedReceipt:
    return verify_receipt(receipt_file(jws), trusted_fingerprint=FINGERPRINT)


def test_a_receipt_comes_back_trusted() -> None:
    found = verify_receipt(FILE.encode(), trusted_fingerprint=FINGERPRINT)
    assert found.receipt == RECEIPT
    assert found.trusted
    assert [check.name for check in found.checks] == [
        "readable part",
        "exchange certificate",
        "exchange signature",
        "authority",
        "node certificate",
        "node signature",
        "evidence",
        "money",
        "carbon",
    ]


def test_without_a_fingerprint_it_is_valid_but_not_trusted() -> None:
    found = verify_receipt(FILE)
    assert found.valid
    assert not found.trusted
    assert next(check for check in found.checks if check.name == "authority").passed is None
    assert found.root_fingerprint == FINGERPRINT


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(value, (dict, list)) and value:
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from _paths(value[key], (*path, key))
    else:
        yield path


def _changed(value: Any) -> Any:
    if isinstance(value, bool) or value is None:
        return 1
    if isinstance(value, (int, float)):
        return value + 1
    if isinstance(value, str):
        return ("A" if value[:1] != "A" else "B") + value[1:]
    return ["more"]


PATHS = sorted(_paths(json.loads(FILE)), key=str)


def _at(document: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        document = document[key]
    return document


@pytest.mark.parametrize("path", PATHS, ids=lambda path: ".".join(map(str, path)))
def test_any_field_changed_in_the_file_fails(path: tuple[Any, ...]) -> None:
    document = copy.deepcopy(json.loads(FILE))
    _at(document, path[:-1])[path[-1]] = _changed(_at(document, path))
    try:
        assert not verify_receipt(json.dumps(document), trusted_fingerprint=FINGERPRINT).valid
    except ReceiptError:
        return


@untimed
@given(
    path=st.sampled_from([path for path in PATHS if path[0] == "receipt"]),
    value=st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers()),
)
def test_any_value_in_any_field_fails_even_when_changed_in_both_parts(
    path: tuple[Any, ...], value: object
) -> None:
    """Who changes the readable part and the signed text alike still lacks the exchange's key."""
    document = json.loads(FILE)
    _at(document, path[:-1])[path[-1]] = value
    try:
        changed = canonical_bytes(document["receipt"])
    except ValueError:
        return  # not JSON
    if changed == canonical_bytes(json.loads(FILE)["receipt"]):
        return
    header, _, signature = document["jws"].split(".")
    document["jws"] = f"{header}.{base64.urlsafe_b64encode(changed).decode().rstrip('=')}.{signature}"
    try:
        assert "exchange signature" in _failed(verify_receipt(json.dumps(document)))
    except ReceiptError:
        return


@untimed
@given(place=st.integers(min_value=0, max_value=len(FILE) - 1), letter=st.sampled_from('Aa0 ",.{}é\x00'))
def test_any_character_changed_fails_or_changes_nothing(place: int, letter: str) -> None:
    try:
        found = verify_receipt(FILE[:place] + letter + FILE[place + 1 :], trusted_fingerprint=FINGERPRINT)
    except ReceiptError:
        return
    assert not found.valid or found.receipt == RECEIPT


def test_a_key_given_twice_is_refused() -> None:
    cheap = FILE.replace('"cost_micros": 10000', '"cost_micros": 1, "cost_micros": 10000')
    assert cheap != FILE
    with pytest.raises(ReceiptError, match="twice"):
        verify_receipt(cheap)


def test_another_exchanges_receipt_is_not_trusted() -> None:
    twin = Exchange()
    forged = twin.sign(receipt_of(twin.report(EXITED)))
    assert verify_receipt(receipt_file(forged)).valid
    assert _failed(_verify(forged)) == {"authority"}


def test_an_exchange_cannot_issue_in_anothers_name() -> None:
    away = Exchange("away")
    assert "exchange certificate" in _failed(verify_receipt(receipt_file(away.sign(RECEIPT))))


def test_a_stranger_with_the_right_certificates_cannot_sign() -> None:
    assert _failed(_verify(HOME.sign(RECEIPT, key=STRANGER))) == {"exchange signature"}
    evidence = HOME.report(EXITED, key=STRANGER)
    assert _failed(_verify(HOME.sign(receipt_of(evidence)))) == {"node signature"}


def test_a_node_cannot_issue_receipts() -> None:
    jws = sign(NODE_KEY, canonical_bytes(payload(RECEIPT)), typ=RECEIPT_TYP, chain=HOME.node_chain)
    assert _failed(_verify(jws)) == {"exchange certificate"}


def test_certificates_must_be_valid_when_signed() -> None:
    jws = HOME.sign(replace(RECEIPT, issued_at=utc_text(NOW_MS + 400 * 86_400_000)))
    assert "exchange certificate" in _failed(_verify(jws))
    stale = HOME.report(EXITED, at=NOW_MS + int(NODE_CERT_LIFETIME.total_seconds() * 1000) + 1000)
    assert "node certificate" in _failed(_verify(HOME.sign(receipt_of(stale))))


def test_a_receipt_outlives_its_certificates() -> None:
    """Nothing in the check depends on when it is made: there is no clock in it."""
    long_ago = Exchange(now=NOW - timedelta(days=3000))
    shift = int(timedelta(days=3000).total_seconds() * 1000)
    assert EXITED.started_at is not None
    body = replace(EXITED, started_at=EXITED.started_at - shift, ended_at=EXITED.ended_at - shift)
    receipt = receipt_of(
        long_ago.report(body, at=NOW_MS - shift),
        issued_at=utc_text(NOW_MS - shift),
        started_at=utc_text(EXITED.started_at - shift),
        ended_at=utc_text(EXITED.ended_at - shift),
    )
    found = verify_receipt(
        receipt_file(long_ago.sign(receipt)), trusted_fingerprint=long_ago.authority.fingerprint
    )
    assert found.trusted


@pytest.mark.parametrize(
    "change",
    [
        {"run": RUN.replace("01k", "02k")},
        {"lease": LEASE.replace("01k", "02k")},
        {"epoch": 2},
        {"started_at": NOW_MS - 90_249},
        {"ended_at": NOW_MS - 251},
        {"exit_code": 1},
        {"exit_code": None},
        {"cause": "oom"},
        {"energy_joules": 1234.6},
        {"energy_method": "nvml counter"},
        {"energy_uncertainty_percent": 5.0},
        {"log_bytes": 320},
        {"outputs": None},
    ],
)
def test_evidence_that_says_otherwise_fails(change: dict[str, Any]) -> None:
    evidence = HOME.report(replace(EXITED, **change))
    assert _failed(_verify(HOME.sign(receipt_of(evidence)))) == {"evidence"}


def test_evidence_of_another_node_fails() -> None:
    other = NODE.replace("01k", "02k")
    leaf = issue_node_certificate(HOME.authority, node_id=other, public_key=NODE_KEY.public_bytes, now=NOW)
    chain = (leaf, HOME.authority.certificate_der)
    body = json.loads(base64.urlsafe_b64decode(HOME.report(EXITED).split(".")[1] + "=="))
    evidence = sign(NODE_KEY, json.dumps(body).encode(), typ=REPORT_TYP, chain=chain)
    assert _failed(_verify(HOME.sign(receipt_of(evidence)))) == {"node certificate"}


@pytest.mark.parametrize("evidence", ["", "a.b.c", "ééé", HOME.sign(receipt_of(None, cost_micros=0))])
def test_evidence_that_is_no_report_fails(evidence: str) -> None:
    assert "node certificate" in _failed(_verify(HOME.sign(receipt_of(evidence))))


def test_a_lost_run_is_proven_by_its_last_metering() -> None:
    body = Metered(
        run=RUN,
        lease=LEASE,
        epoch=1,
        until=EXITED.ended_at,
        cpu_seconds=1.0,
        memory_bytes=1,
        energy_joules=EXITED.energy_joules,
        energy_method=EXITED.energy_method,
    )
    receipt = receipt_of(HOME.report(body), exit_code=None, cause="node_lost", outputs_digest=None)
    assert _verify(HOME.sign(receipt)).trusted
    assert _failed(_verify(HOME.sign(replace(receipt, exit_code=0)))) == {"evidence"}


def test_without_evidence_nothing_may_be_billed() -> None:
    assert _failed(_verify(HOME.sign(receipt_of(None)))) == {"money"}
    free = receipt_of(
        None, cost_micros=0, fee_micros=0, payout_micros=0, refunded_micros=66_667, billed_seconds=0
    )
    assert _verify(HOME.sign(free)).trusted


@untimed
@given(text=st.text(max_size=300) | st.binary(max_size=300))
def test_garbage_is_a_receipt_error(text: str | bytes) -> None:
    with pytest.raises(ReceiptError):
        verify_receipt(text)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@untimed
@given(shown=json_values, jws=json_values, signed=json_values)
def test_any_json_is_a_receipt_error(shown: object, jws: object, signed: object) -> None:
    with pytest.raises(ReceiptError):
        verify_receipt(json.dumps({"receipt": shown, "jws": jws}))
    token = sign(EXCHANGE_KEY, json.dumps(signed).encode(), typ=RECEIPT_TYP, chain=HOME.chain)
    with pytest.raises(ReceiptError):
        verify_receipt(json.dumps({"receipt": shown, "jws": token}))


@pytest.mark.parametrize(
    "text", ["[" * 100_000, " " * (RECEIPT_BYTES_MAX + 1), '{"receipt": 1e999, "jws": NaN}', b"\xff\xfe"]
)
def test_hostile_json_is_a_receipt_error(text: str | bytes) -> None:
    with pytest.raises(ReceiptError):
        verify_receipt(text)


def test_a_newer_version_says_so() -> None:
    newer = payload(RECEIPT) | {"version": 2}
    token = sign(EXCHANGE_KEY, canonical_bytes(newer), typ=RECEIPT_TYP, chain=HOME.chain)
    with pytest.raises(ReceiptError, match="Update Perak"):
        verify_receipt(receipt_file(token))


def test_a_signed_field_that_readers_would_not_see_is_refused() -> None:
    more = payload(RECEIPT) | {"hidden": 1}
    token = sign(EXCHANGE_KEY, canonical_bytes(more), typ=RECEIPT_TYP, chain=HOME.chain)
    with pytest.raises(ReceiptError, match="more than a receipt"):
        verify_receipt(receipt_file(token))


def test_the_readable_part_is_what_is_signed() -> None:
    assert readable(HOME.sign(RECEIPT)) == payload(RECEIPT)


def test_evidence_is_a_report_as_the_session_carries_it() -> None:
    session = pytest.importorskip("perak.wire.session", reason="the session needs msgspec")
    report = session.encode_report(seq=9, node=NODE, at=NOW_MS, body=EXITED)
    evidence = sign(NODE_KEY, report, typ=session.REPORT_TYPE, chain=HOME.node_chain)
    assert _verify(HOME.sign(receipt_of(evidence))).trusted


def test_the_names_of_signed_types_agree_with_the_session() -> None:
    session = pytest.importorskip("perak.wire.session", reason="the session needs msgspec")
    assert session.REPORT_TYPE == REPORT_TYP
