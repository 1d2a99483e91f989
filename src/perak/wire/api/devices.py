"""Devices: what their inspections say of them, and their passports."""

from __future__ import annotations

from perak.wire.api.base import Model


class StandingView(Model):
    """What the exchange makes of a device's inspections. `label`: the grade as people read it.

    `rejected`: it is not offered. `passport`: digest of the newest entry of its passport, with which anyone
    can read it. Throughputs in 1e12 FLOP/s and 1e9 bytes/s, None where they were not measured.
    """

    device: str
    model: str | None
    label: str
    grade: str | None
    rejected: bool
    provisional: bool
    ecc: bool
    score: float | None
    coverage: float
    reasons: list[str]
    fp32_tflops: float | None
    fp16_tflops: float | None
    bandwidth_gbs: float | None
    failures_per_hour: float | None
    passport: str | None
    inspected_at_ms: int | None


class NodeDevices(Model):
    """The devices of a node that were inspected."""

    node: str
    devices: list[StandingView]


class PassportView(Model):
    """A passport file: its signed entries, oldest first, and the nodes' reports by the digest they name."""

    device: str
    entries: list[str]
    evidence: dict[str, str]
