"""The record of a device's memory overwritten after a lease."""

from __future__ import annotations

from dataclasses import dataclass

from perak.domain.hardware.inspection import Status

METHOD = "Clear"
"""NIST SP 800-88 Rev. 1: "logical techniques to sanitize data in all user-addressable storage locations".
Never Purge or Destroy: spare rows and retired pages are not reached by any program."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WipeRecord:
    """One overwriting of one device. `lease`: the one that had it before; empty: none, asked for by hand.

    `memory_bytes`: overwritten, and read back from a fresh context; `local_bytes`: of each compute unit's
    local memory. None: that part did not run. Times are Unix milliseconds.
    """

    device: str
    lease: str
    status: Status
    reason: str = ""
    method: str = METHOD
    memory_bytes: int | None = None
    memory_total_bytes: int | None = None
    local_bytes: int | None = None
    leftover_words: int | None = None
    """Words that were read back as other than what was written over them."""
    started_at: int
    ended_at: int
