"""Energy counters of the processors: powercap/RAPL, by Intel and AMD alike.

``/sys/class/powercap/intel-rapl:<n>`` is a package, a sub-zone named dram is its memory (which the package
does not include). Counters wrap at max_energy_range_uj: at 200 W that is after some twenty minutes, so they
are read far more often. Since 2020 only root may read them (CVE-2020-8694).
Source: Linux, Documentation/power/powercap/powercap.rst.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")
PROC_STAT = Path("/proc/stat")
_BUSY_FIELDS = (1, 2, 3, 6, 7)
"""user, nice, system, irq, softirq of /proc/stat's first line; guests are counted in user already."""


@dataclass(frozen=True, slots=True)
class Zone:
    """One counter: its file and where it wraps, in microjoules."""

    name: str
    file: Path
    range_microjoules: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """All counters at one moment, and the CPU time that all of the machine had used by then."""

    microjoules: dict[str, int]
    busy_seconds: float


@dataclass(frozen=True, slots=True)
class Rapl:
    """The counters of this machine that can be read."""

    zones: tuple[Zone, ...]
    proc_stat: Path = PROC_STAT

    @classmethod
    def open(cls, root: Path = POWERCAP, *, proc_stat: Path = PROC_STAT) -> Rapl | None:
        """None where there are no counters or this user may not read them."""
        zones = tuple(zone for folder in sorted(root.glob("intel-rapl:*")) if (zone := _zone(folder)))
        return cls(zones, proc_stat) if zones else None

    def read(self) -> Reading | None:
        """None when a counter can't be read any more."""
        try:
            microjoules = {zone.name: int(zone.file.read_text()) for zone in self.zones}
            fields = self.proc_stat.read_text().split("\n", 1)[0].split()
            busy = sum(int(fields[index]) for index in _BUSY_FIELDS)
        except (OSError, ValueError, IndexError):
            return None
        return Reading(microjoules=microjoules, busy_seconds=busy / os.sysconf("SC_CLK_TCK"))

    def joules_between(self, before: Reading, after: Reading) -> float:
        """What all processors used in between; a counter that wrapped once is understood."""
        total = 0
        for zone in self.zones:
            if zone.name not in before.microjoules:
                continue
            difference = after.microjoules[zone.name] - before.microjoules[zone.name]
            total += difference if difference >= 0 else difference + zone.range_microjoules
        return total / 1e6


def _zone(folder: Path) -> Zone | None:
    try:
        name = (folder / "name").read_text().strip()
        if not (name.startswith("package-") or name == "dram"):
            return None  # Cores and graphics are parts of their package, psys is all of it.
        int((folder / "energy_uj").read_text())
        return Zone(folder.name, folder / "energy_uj", int((folder / "max_energy_range_uj").read_text()))
    except (OSError, ValueError):
        return None
