"""Whether a node's report will still prove a receipt years from now, offline, by its own certificates."""

from __future__ import annotations

from perak.domain.errors import InvalidInput, Unavailable
from perak.domain.report import Report
from perak.wire.identity import CertificateExpired, verify_chain
from perak.wire.receipts import time_of
from perak.wire.signing import peek_header


class EvidenceCheck:
    """Checks the certificates in a node's reports, and remembers the last ones: they change once in hours.

    `shown`: those with which the node said Hello, where it got no fresh ones then.
    """

    def __init__(self, *, node: str, sign_key: bytes, authority: str, shown: tuple[bytes, ...] = ()) -> None:
        self._node = node
        self._sign_key = sign_key
        self._authority = authority
        self._shown = shown
        self._chain: tuple[bytes, ...] = ()
        self._from_ms = self._to_ms = 0

    def check(self, report: Report) -> None:
        """Raises InvalidInput where the report's certificates do not name this node at the report's time.

        Raises Unavailable where they were good at Hello and ended in this session: the node gets fresh ones
        when it dials again, signs anew what waits, and sends that.
        """
        chain = peek_header(report.jws).chain
        if chain == self._chain and self._from_ms <= report.at <= self._to_ms:
            return
        try:
            found = verify_chain(chain, at=time_of(report.at), trusted_fingerprint=self._authority)
        except CertificateExpired as error:
            if chain != self._shown:
                raise
            raise Unavailable(f"{error.detail} Dial again for a fresh one.") from None
        if (found.subject_id, found.public_key) != (self._node, self._sign_key):
            raise InvalidInput(f"they name {found.subject_id[:80]}")
        if chain != self._chain:
            self._from_ms = report.at
        self._chain = chain
        self._from_ms = min(self._from_ms, report.at)
        self._to_ms = int(found.not_after.timestamp() * 1000)
