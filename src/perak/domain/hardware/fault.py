"""What a device's driver tells of a fault, and what follows: which end the run that has the device."""

from __future__ import annotations

from perak.domain.facts.grades import XIDS_ENDING, XIDS_MINOR
from perak.domain.report import Faulted

LOST = "lost"
UNCORRECTED = "uncorrected"


def is_grave(fault: Faulted) -> bool:
    """Whether a run can't go on with this device, whatever its program did.

    A device that answers its driver no more, errors in its memory that could not be corrected, and the Xids
    after which NVIDIA asks for a new start of program, card or machine.
    """
    return fault.kind != "xid" or fault.xid in XIDS_ENDING


def is_minor(fault: Faulted) -> bool:
    """Whether it is of a program's own making, and says nothing against the device."""
    return fault.kind == "xid" and fault.xid in XIDS_MINOR


def name_of(fault: Faulted) -> str:
    """What a passport calls it: ``xid <number>``, ``lost`` or ``uncorrected``."""
    return f"xid {fault.xid}" if fault.kind == "xid" else fault.kind


def meaning_of(fault: Faulted) -> str:
    """What it means, for people."""
    if fault.kind == LOST:
        return "it does not answer its driver any more"
    if fault.kind == UNCORRECTED:
        return "its memory has new errors that could not be corrected"
    return XIDS_ENDING.get(fault.xid or 0, "see NVIDIA's catalogue of Xid errors")


def told(fault: Faulted) -> str:
    """The fault in one line, without the device's name."""
    says = f"the driver told Xid {fault.xid}: " if fault.kind == "xid" else ""
    return says + meaning_of(fault)
