"""How hot the cards and the processors are.

Cards by NVML; processors by the drivers that Linux has for them (Documentation/hwmon/sysfs-interface), else
by its thermal zones (Documentation/driver-api/thermal/sysfs-api). What can't be read is left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from perak.agent.probe.nvidia import Nvidia
from perak.domain.hardware.heat import CPU_HOT_CELSIUS_DEFAULT, DEFAULT_SOURCE
from perak.domain.report import Faulted, Sensor

CPU_DRIVERS = frozenset({"coretemp", "k10temp", "zenpower", "cpu_thermal"})
"""Of Intel, AMD (twice) and boards with ARM processors."""
CPU_ZONES = ("x86_pkg_temp", "cpu-thermal", "cpu_thermal", "soc-thermal")
PROCESSORS_MAX = 16
"""More than any board has sockets."""
NAME_CHARACTERS_MAX = 60


class Thermometer:
    """The sensors of this machine; `root` is where /sys is found."""

    def __init__(self, *, nvidia: Nvidia | None, root: Path = Path("/")) -> None:
        self._nvidia = nvidia
        self._root = root

    def read(self) -> list[Sensor]:
        """Every temperature of now."""
        cards = self._nvidia.temperatures() if self._nvidia is not None else []
        return [*cards, *self._processors()]

    def faults(self) -> list[Faulted]:
        """What the cards' driver has told of them since the last call."""
        return self._nvidia.faults() if self._nvidia is not None else []

    def _processors(self) -> list[Sensor]:
        chips = _sorted(self._root / "sys/class/hwmon", "hwmon*")
        found = [sensor for chip in chips if (sensor := _of_chip(chip)) is not None]
        if not found:
            zones = _sorted(self._root / "sys/class/thermal", "thermal_zone*")
            found = [sensor for zone in zones if (sensor := _of_zone(zone)) is not None]
        return found[:PROCESSORS_MAX]


def _of_chip(chip: Path) -> Sensor | None:
    """The hottest reading of one processor, with its lowest critical temperature."""
    driver = _text(chip / "name")
    if driver not in CPU_DRIVERS:
        return None
    readings, limits = [], []
    for path in chip.glob("temp*_input"):
        if (celsius := _celsius(path)) is None:
            continue
        stem = path.name.removesuffix("_input")
        readings.append((celsius, _text(chip / f"{stem}_label")))
        limits += [limit for limit in [_celsius(chip / f"{stem}_crit")] if limit]
    if not readings:
        return None
    celsius, label = max(readings)
    return _sensor(
        chip.name, f"CPU {driver} {label}", celsius, limits, "the processor's critical temperature"
    )


def _of_zone(zone: Path) -> Sensor | None:
    kind, celsius = _text(zone / "type"), _celsius(zone / "temp")
    if celsius is None or not kind.startswith(CPU_ZONES):
        return None
    trips = (path for path in zone.glob("trip_point_*_type") if _text(path) in ("hot", "critical"))
    limits = [_celsius(path.with_name(path.name.removesuffix("type") + "temp")) for path in trips]
    return _sensor(zone.name, f"CPU {kind}", celsius, limits, "the zone's trip point")


def _sensor(id: str, name: str, celsius: float, limits: Iterable[float | None], source: str) -> Sensor:
    """A limit of zero or less is one that was never set."""
    limit = min((each for each in limits if each is not None and each > 0), default=None)
    return Sensor(
        id=id,
        name=name.strip()[:NAME_CHARACTERS_MAX],
        celsius=celsius,
        hot_celsius=CPU_HOT_CELSIUS_DEFAULT if limit is None else limit,
        limit_source=DEFAULT_SOURCE if limit is None else source,
    )


def _sorted(folder: Path, pattern: str) -> list[Path]:
    return sorted(folder.glob(pattern), key=lambda path: (len(path.name), path.name))


def _celsius(path: Path) -> float | None:
    """Linux counts in thousandths; a driver that fails answers with an error, or with nonsense."""
    try:
        celsius = int(path.read_text()) / 1000
    except (OSError, ValueError):
        return None
    return celsius if -50 < celsius < 200 else None


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
