"""Receipts as they travel: signed by the exchange, around the node's own signed report, checked by anyone.

A receipt file is ``{"receipt": {...for people...}, "jws": "..."}``. The JWS signs the same values and carries
the exchange's certificates; in its field `evidence` lies the node's JWS with the node's certificates. So the
file proves itself offline, given the fingerprint of the exchange's authority.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

from perak.domain.errors import InvalidInput
from perak.domain.receipt import (
    Json,
    Receipt,
    canonical_bytes,
    carbon_errors,
    disagreements,
    miscalculations,
    payload,
    utc_ms,
)
from perak.domain.report import Metered, RunExited
from perak.wire.identity import VerifiedChain, verify_chain
from perak.wire.signing import RECEIPT_TYP, REPORT_TYP, SigningKey, peek_header, peek_payload, sign, verify

if TYPE_CHECKING:
    from pydantic import TypeAdapter

RECEIPT_BYTES_MAX = 512 * 1024
"""Receipts have about 10 kB; everything in one is bounded by what a signature may cover, twice."""

_T = TypeVar("_T")


class ReceiptError(InvalidInput):
    """A text is not a receipt at all; the message says why and what to do."""

    code = "invalid_receipt"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at. `passed` None: it could not be looked at, which is not a pass."""

    name: str
    passed: bool | None
    detail: str


@dataclass(frozen=True, slots=True)
class VerifiedReceipt:
    """A receipt and all that was checked of it; look at `valid` before using anything else."""

    receipt: Receipt
    root_fingerprint: str | None
    """The authority that the receipt names; None if its certificates could not be read."""
    checks: tuple[Check, ...]

    @property
    def valid(self) -> bool:
        """Every check passed, but for the authority itself if no fingerprint was given to compare it with."""
        return all(
            check.passed or (check.name == "authority" and check.passed is None) for check in self.checks
        )

    @property
    def trusted(self) -> bool:
        """Valid, and under the authority whose fingerprint was given."""
        return all(check.passed for check in self.checks)


def sign_receipt(receipt: Receipt, *, key: SigningKey, chain: Sequence[bytes]) -> str:
    """The receipt as a JWS by the exchange's `key`; `chain` is its certificate and the authority's (DER)."""
    return sign_payload(payload(receipt), key=key, chain=chain)


def sign_payload(values: dict[str, Json], *, key: SigningKey, chain: Sequence[bytes]) -> str:
    """The same of a receipt's `payload`, for who needs that too and would make it twice."""
    return sign(key, canonical_bytes(values), typ=RECEIPT_TYP, chain=chain)


def readable(jws: str) -> dict[str, Json]:
    """What a signed receipt says, unproven, for people and for the readable part of a file."""
    values = _parse_json(peek_payload(jws))
    if not isinstance(values, dict):
        raise ReceiptError(f"The signed part of this receipt holds no receipt. {_RETRY}")
    return values


def outputs_bytes(said: Mapping[str, Any]) -> int | None:
    """The size of the run's outputs, as the node's report in a receipt says it; None: it says none."""
    try:
        report = _parse_json(peek_payload(str(said.get("evidence") or "")))
    except InvalidInput:
        return None
    body = report.get("body") if isinstance(report, dict) else None
    if not isinstance(body, dict) or "outputs" not in body:
        return None
    outputs = body["outputs"]
    size = outputs.get("size_bytes") if isinstance(outputs, dict) else 0
    return size if isinstance(size, int) and size >= 0 else None


def receipt_file(jws: str) -> str:
    """The text of a receipt file."""
    return json.dumps({"receipt": readable(jws), "jws": jws}, indent=2, ensure_ascii=False) + "\n"


def verify_receipt(text: str | bytes, *, trusted_fingerprint: str | None = None) -> VerifiedReceipt:
    """Check a receipt file offline; `trusted_fingerprint` is the exchange's authority, known another way.

    Whatever fails is a check that did not pass. Only a text that is no receipt raises, ReceiptError.
    """
    shown, jws = _open(text)
    try:
        signed = peek_payload(jws)
        receipt = _receipt(signed)
        issued_at = time_of(utc_ms(receipt.issued_at))
    except ReceiptError:
        raise
    except InvalidInput as error:
        raise ReceiptError(f"{error} {_RETRY}") from None
    checks = [_same(shown, signed)]
    exchange = _check_exchange(checks, jws, receipt, issued_at)
    checks.append(_check_authority(exchange, trusted_fingerprint))
    if receipt.evidence is None:
        checks.append(Check("evidence", True, "the node proved nothing; nothing may be billed"))
    else:
        _check_evidence(checks, receipt.evidence, receipt, exchange)
    wrong = miscalculations(receipt)
    checks.append(Check("money", not wrong, "; ".join(wrong) or "price, time, fee, payout and refund add up"))
    checks.append(_check_carbon(receipt))
    return VerifiedReceipt(receipt, exchange.root_fingerprint if exchange else None, tuple(checks))


def _check_carbon(receipt: Receipt) -> Check:
    """Energy, intensity, PUE and shares, recomputed from the receipt's own figures."""
    wrong = carbon_errors(receipt)
    done = "there is none" if receipt.carbon is None else "follows from energy, intensity, PUE and hardware"
    return Check("carbon", not wrong, "; ".join(wrong) or done)


_RETRY = "Download the receipt again: perak receipt show ID"


def _open(text: str | bytes) -> tuple[Json, str]:
    if len(text) > RECEIPT_BYTES_MAX:
        raise ReceiptError(f"{len(text):,} bytes are too many for a receipt. Is it another file?")
    document = _parse_json(text)
    if not isinstance(document, dict) or set(document) != {"receipt", "jws"}:
        raise ReceiptError(
            f'A receipt file is JSON with the two keys "receipt" and "jws"; this is not. {_RETRY}'
        )
    jws = document["jws"]
    if not isinstance(jws, str):
        raise ReceiptError(f'The key "jws" of this file holds no signature. {_RETRY}')
    return document["receipt"], jws


def _parse_json(text: str | bytes) -> Json:
    try:
        value: Json = json.loads(text, object_pairs_hook=_object, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ReceiptError(f"This is not JSON: {error}. Is it the file of a receipt? {_RETRY}") from None
    return value


def _object(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    """Refuse a key that is given twice: readers differ in which of the two they show."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is given twice")
    return found


def _no_constant(name: str) -> Json:
    raise ValueError(f"{name} is not a JSON number")


def _receipt(signed: bytes) -> Receipt:
    receipt = _decoded(Receipt, signed)
    if canonical_bytes(payload(receipt)) != signed:
        raise ReceiptError(f"The signed part holds more than a receipt, or not in its exact form. {_RETRY}")
    return receipt


def _decoded(kind: type[_T], text: bytes) -> _T:
    from pydantic import ValidationError

    try:
        value: _T = _adapters()[kind].validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise ReceiptError(f"This is not a whole {kind.__name__}: {place}: {first['msg']}.") from None
    return value


def _same(shown: Json, signed: bytes) -> Check:
    try:
        same = canonical_bytes(shown) == signed
    except ValueError:
        same = False
    detail = "equals what is signed" if same else "differs from what is signed: it was changed afterwards"
    return Check("readable part", same, detail)


def _check_exchange(
    checks: list[Check], jws: str, receipt: Receipt, issued_at: datetime
) -> VerifiedChain | None:
    """Add the checks of the exchange's certificate and signature; return who signed, if that is proven."""
    try:
        chain = verify_chain(peek_header(jws).chain, at=issued_at)
    except InvalidInput as error:
        checks.append(Check("exchange certificate", False, str(error)))
        checks.append(
            Check("exchange signature", None, "without a certificate there is no key to check with")
        )
        return None
    right = chain.kind == "exchange" and chain.subject_id == receipt.exchange
    detail = f"names the {chain.kind} {chain.subject_id}"
    checks.append(Check("exchange certificate", right, detail))
    checks.append(_signature("exchange signature", jws, chain.public_key, RECEIPT_TYP))
    return chain


def _check_authority(chain: VerifiedChain | None, trusted_fingerprint: str | None) -> Check:
    if chain is None:
        return Check("authority", False, "the certificates lead to no authority")
    if trusted_fingerprint is None:
        return Check("authority", None, f"compare it with your exchange's: {chain.root_fingerprint}")
    if chain.root_fingerprint != trusted_fingerprint:
        return Check("authority", False, f"{chain.root_fingerprint} is not the trusted {trusted_fingerprint}")
    return Check("authority", True, f"{chain.root_fingerprint} is trusted")


def _check_evidence(
    checks: list[Check], evidence: str, receipt: Receipt, exchange: VerifiedChain | None
) -> None:
    """Add the checks of the node's certificate and signature, and of what its report says."""
    try:
        report = _report(evidence)
        chain = verify_chain(peek_header(evidence).chain, at=time_of(report.at))
    except InvalidInput as error:
        checks.append(Check("node certificate", False, str(error)))
        checks.append(Check("node signature", None, "without a certificate there is no key to check with"))
        checks.append(Check("evidence", None, "without a signature it proves nothing"))
        return
    right = chain.kind == "node" and chain.subject_id == receipt.node == report.node
    same_root = exchange is not None and chain.root_fingerprint == exchange.root_fingerprint
    detail = (
        f"names the {chain.kind} {chain.subject_id}, of {'the same' if same_root else 'another'} authority"
    )
    checks.append(Check("node certificate", right and same_root, detail))
    checks.append(_signature("node signature", evidence, chain.public_key, REPORT_TYP))
    wrong = disagreements(receipt, report.body)
    checks.append(Check("evidence", not wrong, "; ".join(wrong) or "the node's report says the same"))


def _signature(name: str, jws: str, public_key: bytes, typ: str) -> Check:
    try:
        verify(jws, public_key, typ=typ)
    except InvalidInput as error:
        return Check(name, False, str(error))
    return Check(name, True, "valid")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Envelope:
    """The part of a report that says what its body is."""

    type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _ExitedReport:
    seq: int
    node: str
    at: int
    body: RunExited


@dataclass(frozen=True, slots=True, kw_only=True)
class _MeteredReport:
    seq: int
    node: str
    at: int
    body: Metered


def _report(evidence: str) -> _ExitedReport | _MeteredReport:
    signed = peek_payload(evidence)
    kind = _decoded(_Envelope, signed).type
    if kind == "run_exited":
        return _decoded(_ExitedReport, signed)
    if kind == "metered":
        return _decoded(_MeteredReport, signed)
    raise ReceiptError(f"The node's report is of type {kind[:40]!r}, which proves no end of a run.")


def time_of(at_ms: int) -> datetime:
    """The moment of Unix milliseconds. Raises ReceiptError where no calendar has it."""
    try:
        return datetime.fromtimestamp(at_ms / 1000, tz=UTC)
    except (OverflowError, ValueError, OSError):
        raise ReceiptError(f"{at_ms} is not a time in milliseconds since 1970.") from None


@lru_cache(maxsize=1)
def _adapters() -> dict[type, TypeAdapter[Any]]:
    """pydantic's parsers of what is read here; made on first use, because that takes half a second."""
    from pydantic import TypeAdapter

    kinds = (Receipt, _Envelope, _ExitedReport, _MeteredReport)
    return {kind: TypeAdapter(kind) for kind in kinds}
