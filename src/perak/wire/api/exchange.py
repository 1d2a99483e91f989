"""What anyone may know of an exchange."""

from __future__ import annotations

from perak.wire.api.base import Model

TRUST = (
    "You trust the operator of this exchange for matching and money, and the provider for the privacy of "
    "what runs on its machine: whoever owns the machine can read it."
)
"""Said wherever something is quoted."""


class Exchange(Model):
    """What anyone may know of an exchange."""

    name: str
    version: str
    currency: str
    fee_percent: float
    ca_fingerprint: str
    ca_certificate: str
    trust: str = TRUST
