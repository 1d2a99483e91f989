"""The part of `perak audit` about devices: their passports, what these rest on, and what offers show.

By other code than wrote them: digests are taken of the stored texts, figures are read from the nodes' own
reports. What is shared is what every buyer uses, `wire.passports.verify_passport`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from perak.adapters.db import audit as rows
from perak.adapters.db.audit import Books
from perak.domain.errors import DomainError
from perak.wire.passports import passport_file, verify_passport
from perak.wire.signing import peek_payload

if TYPE_CHECKING:
    from perak.server.audit import Report

Tree = dict[str, Any]
UNREADABLE = (DomainError, ValueError, LookupError, TypeError, AttributeError)
"""What a damaged text raises where it is looked into."""


async def check_passports(report: Report, books: Books, *, trusted: str) -> None:
    """Verify every device's passport, and compare it with what is kept of the device."""
    async for row in books.rows(rows.INSPECTED_DEVICES):
        device = row["device"]
        entries = await books.of(rows.ENTRIES, device)
        evidence = await books.of(rows.EVIDENCE, device)
        report.looked_at["passport entries"] += len(entries)
        report.looked_at["inspections and wipes"] += len(evidence)
        standings = await books.of(rows.STANDINGS, device)
        for why in _of_device(device, entries, evidence, trusted=trusted):
            report.add("passport", device, why)
        signed = _readable(entries)
        if len({each["project_id"] for each in standings}) == 1:
            # A device of which another owner is known may have been inspected while that one offered it.
            cited = {_event(values).get("evidence") for values in signed.values()}
            for kept in evidence:
                if kept["digest"] not in cited:
                    report.add("passport", device, f"no entry is of its {kept['kind']} {kept['digest']}")
        for standing in standings:
            for why in _guarded("it", _of_standing(standing, signed)):
                report.add("standing", f"{device} on {standing['node_id']}", why)


def _of_device(
    device: str, entries: Sequence[Any], evidence: Sequence[Any], *, trusted: str
) -> Iterator[str]:
    """What is wrong with the passport of one device, entry by entry, and with what it rests on."""
    kept = {each["digest"]: each for each in evidence}
    for each in evidence:
        yield from _guarded(f"the {each['kind']} {each['digest']}", _of_evidence(device, each))
    if not entries:
        return
    named = {digest: row["jws"] for digest, row in kept.items()}
    try:
        found = verify_passport(
            passport_file(device, [each["credential"] for each in entries], named),
            trusted_fingerprint=trusted,
        )
    except DomainError as error:
        yield error.detail
        return
    yield from (f"{check.name}: {check.detail}" for check in found.checks if not check.passed)
    for earlier, later in pairwise(entries):
        if later["seq"] != earlier["seq"] + 1:
            yield f"entry {later['seq']} comes after entry {earlier['seq']}"
    for row in entries:
        yield from _guarded(f"entry {row['seq']}", _of_entry(row, kept))


def _of_entry(row: Any, kept: Mapping[str, Any]) -> Iterator[str]:
    """What an entry's row says, against what was signed; then that, against what the node reported."""
    values = _said(row["credential"])
    event = _event(values)
    if row["digest"] != _sha256(row["credential"]):
        yield f"it is filed under {row['digest']}"
    if (row["seq"], row["kind"]) != (values["perak"]["seq"], event.get("kind")):
        yield f"it is filed as the {row['kind']} {row['seq']}, and another was signed"
    if row["kind"] == "incident":
        code = event.get("code")
        signed = event.get("incident") if code is None else f"{event.get('incident')} {code}"
        if row["incident"] != signed:
            yield f"it is filed as {row['incident']}, and {signed} was signed"
        return
    report = kept.get(str(event.get("evidence")))
    if report is None:
        yield f"its evidence {event.get('evidence')} is not kept"
        return
    if report["node_id"] != row["node_id"]:
        yield f"it is filed under the node {row['node_id']}, and its evidence under {report['node_id']}"
    body = _said(report["jws"])["body"]
    if row["kind"] == "inspected":
        yield from _of_inspection(event, body["inspection"])
    else:
        yield from _differing(
            event,
            body["record"],
            {"status": "status", "method": "method", "memoryBytes": "memory_bytes",
             "memoryTotalBytes": "memory_total_bytes", "leftoverWords": "leftover_words"},
        )  # fmt: skip


def _of_inspection(event: Tree, inspection: Tree) -> Iterator[str]:
    yield from _differing(event, inspection, {"inspection": "kind", "trigger": "trigger"})
    checks = {each["name"]: each for each in inspection["checks"]}
    for name, value in event["measured"].items():
        found = checks.get(name, {}).get("value")
        if found is None or abs(float(found) - float(value)) > 1e-9 * abs(float(value)):
            yield f"it says {name} is {value}, and the node measured {found}"
    lacking = {name for name, each in checks.items() if each["status"] == "not_run"}
    if lacking != set(event["notRun"]):
        yield f"what did not run is not what the node said: {', '.join(lacking ^ set(event['notRun']))}"
    failed = {name for name, each in checks.items() if each["status"] == "failed"}
    told = {each.get("check") for each in event["incidents"] if each.get("kind") == "failed"}
    if failed != told:
        yield f"what failed is not what the node said: {', '.join(map(str, failed ^ told))}"


def _of_evidence(device: str, row: Any) -> Iterator[str]:
    """A kept report is of this device, by the node that it is filed under, and has its own digest."""
    said = _said(row["jws"])
    body = said["body"]
    of = body["inspection"]["identity"]["uuid"] if said["type"] == "inspected" else body["record"]["device"]
    if (said["node"], of) != (row["node_id"], device):
        yield f"it was signed by {said['node']} for {of}"
    if row["document"] is not None:
        if _sha256(row["document"]) != row["digest"]:
            yield "it is stored as another text"
    elif row["status"] != body["record"]["status"]:
        yield f"it is filed as {row['status']}, and the node said {body['record']['status']}"


def _of_standing(row: Any, entries: Mapping[str, Tree]) -> Iterator[str]:
    """A grade that the market is shown is that of the entry which it names, and that is there."""
    standing, shown = json.loads(row["document"]), row["shown"]
    named = standing.get("passport")
    if named is not None and named not in entries:
        yield f"the entry {named} that it names is not in the passport"
    elif standing.get("grade") is not None:
        claims = entries[named]["credentialSubject"].get("conformityClaim") if named else None
        signed = claims[0].get("grade") if claims else None
        if standing["grade"] != signed:
            yield f"its grade is {standing['grade']}, and its passport says {signed}"
    if shown is not None:
        offered = json.loads(shown)
        grade = offered["standing"].get("grade")
        if (grade, offered["rejected"]) != (standing.get("grade"), row["rejected"]):
            yield f"its offer shows {grade}, it is {standing.get('grade')}"


def _differing(said: Tree, reported: Tree, names: Mapping[str, str]) -> Iterator[str]:
    for name, theirs in names.items():
        if said.get(name) != reported.get(theirs):
            yield f"it says {name} is {said.get(name)}, and the node reported {reported.get(theirs)}"


def _event(values: Tree) -> Tree:
    event: Tree = values["credentialSubject"]["traceabilityInformation"][0]
    return event


def _readable(entries: Sequence[Any]) -> dict[str, Tree]:
    """What entries say, by their digests; of those that can't be read it was told already."""
    found = {}
    for entry in entries:
        with contextlib.suppress(*UNREADABLE):
            found[entry["digest"]] = values = _said(entry["credential"])
            _event(values)
    return found


def _guarded(what: str, found: Iterator[str]) -> Iterator[str]:
    """`found`, each with what it is about; where that is damaged, this is what is wrong with it."""
    try:
        yield from (f"{what}: {why}" for why in found)
    except UNREADABLE as error:
        yield f"{what} can't be read: {error!r}"


def _said(jws: str) -> Tree:
    """What a JWS says, unproven."""
    tree: Tree = json.loads(peek_payload(jws))
    return tree


def _sha256(text: str) -> str:
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
