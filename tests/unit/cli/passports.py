"""A passport file as an exchange would make it, of a card's life in our tests' hands."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import msgspec

from perak.domain.hardware import inspection as names
from perak.domain.hardware.grade import assess
from perak.domain.hardware.inspection import DeviceInspection
from perak.domain.hardware.passport import Place, Use, entry_digest, inspected_entry, wipe_digest, wiped_entry
from perak.domain.hardware.reference import Reference
from perak.domain.hardware.standing import Standing
from perak.domain.hardware.wipe import WipeRecord
from perak.wire.identity import Authority, issue_exchange_certificate, issue_node_certificate
from perak.wire.passports import passport_file, sign_entry
from perak.wire.signing import REPORT_TYP, SigningKey, sign
from unit.domain.hardware.inspections import inspection

DAY = 86_400_000
NOW = datetime(2026, 11, 2, 12, 0, tzinfo=UTC)
NODE = "node-03md998g1800000000@test"
NETWORK = Reference(cards=9, owners=4, medians={names.FP32: 14.2, names.COPY: 750.0})
SPREAD = {
    names.COPY: (690.0, 715.0, 728.0, 738.0, 745.0, 750.0, 754.0, 759.0, 763.0, 770.0, 778.0),
    names.FP32: (13.0, 13.6, 13.9, 14.0, 14.1, 14.2, 14.3, 14.4, 14.5, 14.7, 14.9),
}


class Issuer:
    """An exchange and one of its nodes, with their keys and certificates."""

    def __init__(self) -> None:
        self.authority = Authority.create("test", now=NOW)
        self.key, self.node_key = SigningKey.from_seed(b"e" * 32), SigningKey.from_seed(b"n" * 32)
        root = self.authority.certificate_der
        self.chain = (
            issue_exchange_certificate(self.authority, public_key=self.key.public_bytes, now=NOW),
            root,
        )
        self.node_chain = (
            issue_node_certificate(
                self.authority, node_id=NODE, public_key=self.node_key.public_bytes, now=NOW
            ),
            root,
        )
        self.entries: list[str] = []
        self.evidence: dict[str, str] = {}
        self.seen: list[DeviceInspection] = []

    def inspected(self, found: DeviceInspection, *, use: Use) -> None:
        self.seen.append(found)
        assessment = assess(self.seen, reference=NETWORK)
        standing = Standing(
            grade=assessment.grade,
            provisional=False,
            ecc=True,
            score=assessment.score,
            failures_per_hour=0.0012,
        )
        place = self._place(found.ended_at)
        values = inspected_entry(
            place, found, standing=standing, assessment=assessment, use=use, spread=SPREAD, cards=9
        )
        self.entries.append(sign_entry(values, key=self.key, chain=self.chain))
        self._report(
            "inspected", {"inspection": msgspec.to_builtins(found)}, names.digest(found), found.ended_at
        )

    def wiped(self, record: WipeRecord, *, use: Use) -> None:
        identity = self.seen[-1].identity if self.seen else None
        values = wiped_entry(self._place(record.ended_at), record, identity=identity, use=use)
        self.entries.append(sign_entry(values, key=self.key, chain=self.chain))
        self._report("wiped", {"record": msgspec.to_builtins(record)}, wipe_digest(record), record.ended_at)

    def file(self, device: str = "GPU-1") -> str:
        return passport_file(device, self.entries, self.evidence)

    def _place(self, at: int) -> Place:
        previous = entry_digest(self.entries[-1]) if self.entries else None
        return Place(
            exchange="test",
            device="GPU-1",
            seq=len(self.entries) + 1,
            previous=previous,
            owner="owner-1",
            at=at,
        )

    def _report(self, type_: str, body: object, digest: str, at: int) -> None:
        payload = msgspec.json.encode({"seq": 1, "node": NODE, "at": at, "type": type_, "body": body})
        self.evidence[digest] = sign(self.node_key, payload, typ=REPORT_TYP, chain=self.node_chain)


def lived() -> Issuer:
    """A card that was inspected, leased, wiped, and inspected again."""
    issuer = Issuer()
    start = int((NOW + timedelta(minutes=5)).timestamp() * 1000)
    first = replace(inspection(), started_at=start, ended_at=start + 1_900_000)
    issuer.inspected(first, use=Use())
    wipe = WipeRecord(
        device="GPU-1", lease="lease-1", status="passed", memory_bytes=15 * 2**30,
        memory_total_bytes=16 * 2**30,
        local_bytes=49_152, leftover_words=0, started_at=start + 7_200_000, ended_at=start + 7_210_000,
    )  # fmt: skip
    use = Use(leases=1, hours_leased=1.4, energy_joules=1.4e6, wipes=1)
    issuer.wiped(wipe, use=use)
    again = replace(
        inspection({names.SOAK_POWER: 0.84, names.SOAK_TEMPERATURE: 77.0}),
        started_at=start + 8_000_000, ended_at=start + 10_000_000,
    )  # fmt: skip
    issuer.inspected(again, use=use)
    return issuer
