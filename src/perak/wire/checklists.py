"""Escape checklists as they travel: a node's signed report, checked by whoever holds the digest."""

from __future__ import annotations

from dataclasses import dataclass

from perak.domain.checklist import Checklist, digest
from perak.domain.errors import InvalidInput
from perak.domain.report import ChecklistPosted
from perak.wire.identity import verify_chain
from perak.wire.receipts import time_of
from perak.wire.signing import REPORT_TYP, peek_header, peek_payload, verify


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvenChecklist:
    """A checklist that its node signed. `authority`: the fingerprint of who says that the node is one."""

    node: str
    checklist: Checklist
    authority: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Report:
    seq: int
    node: str
    at: int
    body: ChecklistPosted


def verify_checklist(jws: str, *, named: str, trusted_fingerprint: str | None = None) -> ProvenChecklist:
    """The checklist of the digest `named` in a node's signed report. Raises InvalidInput where it isn't that.

    `trusted_fingerprint`: the exchange's authority, known another way; None: it is not compared.
    """
    report = _decoded(peek_payload(jws))
    chain = verify_chain(
        peek_header(jws).chain, at=time_of(report.at), trusted_fingerprint=trusted_fingerprint
    )
    verify(jws, chain.public_key, typ=REPORT_TYP)
    if (chain.kind, chain.subject_id) != ("node", report.node):
        raise InvalidInput(f"The certificate names the {chain.kind} {chain.subject_id}, not {report.node}.")
    if (found := digest(report.body.checklist)) != named:
        raise InvalidInput(f"The node signed another checklist, {found}.")
    return ProvenChecklist(
        node=report.node, checklist=report.body.checklist, authority=chain.root_fingerprint
    )


def _decoded(payload: bytes) -> _Report:
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(_Report).validate_json(payload, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise InvalidInput(f"This report holds no checklist: {place}: {first['msg']}.") from None
