"""Passports as they travel: a chain of credentials signed by the exchange, checked by anyone, offline.

A passport file is ``{"device": ..., "entries": [<vc+jwt>, ...], "evidence": {<digest>: <report>, ...}}``. An
entry is a W3C Verifiable Credential secured as a JWS (VC-JOSE-COSE, ``vc+jwt``, Ed25519) that carries the
exchange's certificates; the evidence are the nodes' own signed reports, with theirs. So the file proves
itself, given the fingerprint of the exchange's authority. What it can't prove: that no newer entry was left
out; for that, ask the exchange, or compare with the digest on an offer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from perak.domain.errors import InvalidInput
from perak.domain.hardware import inspection as inspections
from perak.domain.hardware.inspection import DeviceInspection
from perak.domain.hardware.passport import KINDS, entry_digest, wipe_digest
from perak.domain.receipt import Json, canonical_bytes
from perak.domain.report import Inspected, Wiped
from perak.wire.identity import VerifiedChain, verify_chain
from perak.wire.receipts import Check, time_of
from perak.wire.signing import REPORT_TYP, SigningKey, peek_header, peek_payload, sign, verify

PASSPORT_TYP = "vc+jwt"
"""VC-JOSE-COSE, 3.1.1."""
PASSPORT_BYTES_MAX = 64 * 2**20
"""A thousand entries with the evidence of some hundred inspections."""


class PassportError(InvalidInput):
    """A text is not a passport at all; the message says why and what to do."""

    code = "invalid_passport"


@dataclass(frozen=True, slots=True)
class Entry:
    """One credential, verified or not; `values` is what it says."""

    digest: str
    values: dict[str, Any]

    @property
    def subject(self) -> dict[str, Any]:
        found = self.values.get("credentialSubject")
        return found if isinstance(found, dict) else {}

    @property
    def event(self) -> dict[str, Any]:
        found = self.subject.get("traceabilityInformation")
        first = found[0] if isinstance(found, list) and found else {}
        return first if isinstance(first, dict) else {}

    @property
    def seq(self) -> int:
        found = self._perak.get("seq")
        return found if isinstance(found, int) else 0

    @property
    def previous(self) -> str | None:
        found = self._perak.get("previous")
        return found if isinstance(found, str) else None

    @property
    def at(self) -> str:
        return str(self.values.get("validFrom", ""))

    @property
    def _perak(self) -> dict[str, Any]:
        found = self.values.get("perak")
        return found if isinstance(found, dict) else {}


@dataclass(frozen=True, slots=True)
class Passport:
    """A passport and all that was checked of it; look at `valid` before using anything else.

    `inspections`: those whose evidence came along and is what the entries name, oldest first.
    """

    device: str
    entries: tuple[Entry, ...]
    inspections: tuple[DeviceInspection, ...]
    root_fingerprint: str | None
    checks: tuple[Check, ...]

    @property
    def valid(self) -> bool:
        """Every check passed; what could not be looked at (no fingerprint, no evidence) is not a failure."""
        return all(check.passed is not False for check in self.checks)

    @property
    def trusted(self) -> bool:
        return all(check.passed for check in self.checks if check.name != "evidence") and self.valid


def sign_entry(values: Mapping[str, Json], *, key: SigningKey, chain: Sequence[bytes]) -> str:
    """An entry as a JWS by the exchange's `key`; `chain` is its certificate and the authority's (DER)."""
    return sign(key, canonical_bytes(dict(values)), typ=PASSPORT_TYP, chain=chain)


def passport_file(device: str, entries: Sequence[str], evidence: Mapping[str, str]) -> str:
    """The text of a passport file."""
    values = {"device": device, "entries": list(entries), "evidence": dict(evidence)}
    return json.dumps(values, indent=1, ensure_ascii=False) + "\n"


def verify_passport(text: str | bytes, *, trusted_fingerprint: str | None = None) -> Passport:
    """Check a passport file offline; `trusted_fingerprint` is the exchange's authority, known another way.

    Whatever fails is a check that did not pass. Only a text that is no passport raises, PassportError.
    """
    device, tokens, evidence = _open(text)
    entries = tuple(_entry(token) for token in tokens)
    checks: list[Check] = []
    chains = [_signed(checks, token, entry) for token, entry in zip(tokens, entries, strict=True)]
    known = [each for each in chains if each is not None]
    if len(known) == len(tokens):
        checks.append(Check("signatures", True, f"the exchange {known[-1].subject_id} signed {len(tokens)}"))
    roots = {each.root_fingerprint for each in known}
    checks.append(_authority(roots, trusted_fingerprint))
    checks.append(_chained(device, entries))
    found, check = _evidence(entries, evidence)
    checks.append(check)
    return Passport(device, entries, found, next(iter(roots), None), tuple(checks))


def _open(text: str | bytes) -> tuple[str, list[str], dict[str, str]]:
    if len(text) > PASSPORT_BYTES_MAX:
        raise PassportError(f"{len(text):,} bytes are too many for a passport. Is it another file?")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise PassportError(f"This is not a passport file: {error}. {_RETRY}") from None
    if not isinstance(document, dict) or set(document) != {"device", "entries", "evidence"}:
        raise PassportError(f'A passport file has the keys "device", "entries" and "evidence". {_RETRY}')
    device, entries, evidence = document["device"], document["entries"], document["evidence"]
    lists = isinstance(entries, list) and all(isinstance(each, str) for each in entries)
    maps = isinstance(evidence, dict) and all(isinstance(each, str) for each in evidence.values())
    if not isinstance(device, str) or not lists or not maps or not entries:
        raise PassportError(f"This passport has no entries, or they are damaged. {_RETRY}")
    return device, entries, evidence


_RETRY = "Export it again: perak passport export DEVICE FILE"


def _entry(token: str) -> Entry:
    try:
        values = json.loads(peek_payload(token))
    except (ValueError, InvalidInput) as error:
        raise PassportError(f"An entry of this passport can't be read: {error} {_RETRY}") from None
    if not isinstance(values, dict):
        raise PassportError(f"An entry of this passport holds no credential. {_RETRY}")
    return Entry(entry_digest(token), values)


def _signed(checks: list[Check], token: str, entry: Entry) -> VerifiedChain | None:
    """Who signed an entry; None, and a check that failed, where it was not an exchange with a certificate."""
    try:
        at = datetime.strptime(entry.at, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
        chain = verify_chain(peek_header(token).chain, at=at)
        verify(token, chain.public_key, typ=PASSPORT_TYP)
        issuer = entry.values.get("issuer")
        named = issuer.get("id") if isinstance(issuer, dict) else None
        if chain.kind != "exchange" or named != f"perak:exchange:{chain.subject_id}":
            raise PassportError(f"signed by the {chain.kind} {chain.subject_id}, and names {named}")
    except (InvalidInput, ValueError) as error:
        checks.append(Check("signatures", False, f"entry {entry.seq}: {error}"))
        return None
    return chain


def _authority(roots: set[str], trusted: str | None) -> Check:
    if len(roots) > 1:
        return Check("authority", False, "its entries are of several authorities")
    if trusted is None:
        return Check("authority", None, "no fingerprint was given to compare it with")
    found = next(iter(roots), None)
    return Check("authority", found == trusted, f"it is {found}, trusted is {trusted}")


def _chained(device: str, entries: Sequence[Entry]) -> Check:
    """Each entry is of this device, numbered from 1 on without a gap, and names the one before."""
    before: Entry | None = None
    for number, entry in enumerate(entries, 1):
        said = [
            why
            for wrong, why in (
                (entry.subject.get("id") != f"urn:perak:device:{device}", "is of another device"),
                (entry.seq != number, f"is numbered {entry.seq}"),
                (entry.previous != (before.digest if before else None), "does not name the one before it"),
                (before is not None and entry.at < before.at, "is older than the one before it"),
                (entry.event.get("kind") not in KINDS, f"is of the kind {entry.event.get('kind')}"),
            )
            if wrong
        ]
        if said:
            return Check("chain", False, f"entry {number} {said[0]}")
        before = entry
    return Check("chain", True, f"{_entries(entries)}, none missing in between, none changed")


def _evidence(
    entries: Sequence[Entry], evidence: Mapping[str, str]
) -> tuple[tuple[DeviceInspection, ...], Check]:
    """The inspections that came along; each must be what its entry names, signed by its node.

    An incident names none: it stands by the exchange's signature alone.
    """
    found: list[DeviceInspection] = []
    absent = 0
    entries = [each for each in entries if each.event.get("kind") != "incident"]
    for entry in entries:
        named = entry.event.get("evidence")
        jws = evidence.get(str(named))
        if jws is None:
            absent += 1
            continue
        try:
            body = _reported(jws)
        except InvalidInput as error:
            return tuple(found), Check("evidence", False, f"entry {entry.seq}: {error}")
        digest = (
            inspections.digest(body.inspection) if isinstance(body, Inspected) else wipe_digest(body.record)
        )
        if digest != named:
            return tuple(found), Check("evidence", False, f"entry {entry.seq}: its node signed {digest}")
        if isinstance(body, Inspected):
            found.append(body.inspection)
    if absent:
        told = f"the reports of {absent} of {len(entries)} entries did not come along"
        return tuple(found), Check("evidence", None, told)
    return tuple(found), Check("evidence", True, f"the nodes' signed reports of {_entries(entries)}")


def _entries(entries: Sequence[Entry]) -> str:
    return "its one entry" if len(entries) == 1 else f"all {len(entries)} entries"


def _reported(jws: str) -> Inspected | Wiped:
    """The body of a node's signed report. Raises InvalidInput."""
    from pydantic import TypeAdapter, ValidationError

    try:
        report = json.loads(peek_payload(jws))
        at, node = report["at"], report["node"]
        kind: type[Inspected | Wiped] = {"inspected": Inspected, "wiped": Wiped}[report["type"]]
        parsed: Inspected | Wiped = TypeAdapter(kind).validate_python(report["body"])
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        raise InvalidInput(f"its report can't be read: {str(error)[:200]}") from None
    chain = verify_chain(peek_header(jws).chain, at=time_of(int(at)))
    verify(jws, chain.public_key, typ=REPORT_TYP)
    if (chain.kind, chain.subject_id) != ("node", node):
        raise InvalidInput(f"the certificate names the {chain.kind} {chain.subject_id}, not {node}")
    return parsed
