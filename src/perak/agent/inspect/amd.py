"""What AMD's driver says of a device, by amdsmi, where that is installed and finds its library.

The package raises at import on a machine without ROCm, so it is only tried here, and whatever it raises
means that there are no such devices. Its readings come as dictionaries, and what a card lacks as "N/A".
Written after AMD's documentation of amdsmi 7; nobody has run it on a card yet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from perak.domain.hardware import inspection as i
from perak.domain.hardware.inspection import Check, Sample


@dataclass(slots=True)
class Card:
    """One card of amdsmi's."""

    smi: Any
    handle: Any
    index: int
    uuid: str
    bus: str | None
    generations: list[int] = field(default_factory=list)
    widths: list[int] = field(default_factory=list)

    def begin(self) -> None:
        """Nothing is counted from here on: amdsmi tells totals."""

    @property
    def free_bytes(self) -> int | None:
        used = _number(self._call("amdsmi_get_gpu_memory_usage", self._vram))
        total = _number(self._call("amdsmi_get_gpu_memory_total", self._vram))
        return None if used is None or total is None else int(total - used)

    @property
    def power_limit_watts(self) -> float | None:
        return self._of("amdsmi_get_power_info", "power_limit", scale=1e-6)

    def sample(self, at_seconds: float, tflops: float | None = None) -> Sample:
        smi = self.smi
        generation = self._of("amdsmi_get_pcie_info", "pcie_metric", "pcie_speed")
        width = self._of("amdsmi_get_pcie_info", "pcie_metric", "pcie_width")
        by_speed = {2500: 1, 5000: 2, 8000: 3, 16000: 4, 32000: 5, 64000: 6}
        if generation and by_speed.get(int(generation)):
            self.generations.append(by_speed[int(generation)])
        if width:
            self.widths.append(int(width))
        kind, which = (
            getattr(smi, "AmdSmiTemperatureType", None),
            getattr(smi, "AmdSmiTemperatureMetric", None),
        )
        celsius = None
        if kind is not None and which is not None:
            celsius = _number(self._call("amdsmi_get_temp_metric", kind.HOTSPOT, which.CURRENT))
        clocks = getattr(smi, "AmdSmiClkType", None)
        return Sample(
            at_seconds=at_seconds,
            celsius=celsius,
            clock_mhz=None if clocks is None else self._clock(clocks.GFX),
            memory_clock_mhz=None if clocks is None else self._clock(clocks.MEM),
            watts=self._of("amdsmi_get_power_info", "average_socket_power")
            or self._of("amdsmi_get_power_info", "current_socket_power"),
            tflops=tflops,
        )

    def identity(self) -> dict[str, Any]:
        asic, vbios = self._call("amdsmi_get_gpu_asic_info"), self._call("amdsmi_get_gpu_vbios_info")
        driver = self._call("amdsmi_get_gpu_driver_info")
        memory = _number(self._call("amdsmi_get_gpu_memory_total", self._vram))
        ids = [_hex(asic, name) for name in ("vendor_id", "device_id", "subvendor_id", "rev_id")]
        return {
            "serial": _text(asic, "asic_serial"),
            "vbios": _text(vbios, "version") or _text(vbios, "part_number"),
            "driver": _text(driver, "driver_version"),
            "pci_bus": self.bus,
            "nvml_name": _text(asic, "market_name"),
            "nvml_memory_bytes": None if memory is None else int(memory),
            "nvml_pci_ids": None,
            "compute_capability": None,
            "power_limit_watts": self.power_limit_watts,
            "pci_ids": f"{ids[0]}:{ids[1]}" if ids[0] and ids[1] else None,
            "pcie_generation_card": _integer(
                self._of("amdsmi_get_pcie_info", "pcie_static", "max_pcie_interface_version")
            ),
            "pcie_width_card": _integer(self._of("amdsmi_get_pcie_info", "pcie_static", "max_pcie_width")),
        }

    def xids(self) -> tuple[int, ...] | None:
        return None

    def new_uncorrected(self) -> int | None:
        return None

    def checks(self) -> Iterator[Check]:
        """Errors and pages, as far as the card counts them."""
        ecc = self._call("amdsmi_get_gpu_total_ecc_count")
        pages = self._call("amdsmi_get_gpu_bad_page_info")
        for name, value, most in (
            (i.ECC_AGGREGATE_CORRECTED, _number(_get(ecc, "correctable_count")), None),
            (i.ECC_AGGREGATE_UNCORRECTED, _number(_get(ecc, "uncorrectable_count")), None),
            (i.RETIRED_PAGES, float(len(pages)) if isinstance(pages, list) else None, 10),
            (i.PCIE_REPLAYS, self._of("amdsmi_get_pcie_info", "pcie_metric", "pcie_replay_count"), None),
        ):
            if value is None:
                yield Check(
                    name=name,
                    status="not_run",
                    reason="the card does not tell",
                    unit=i.BY_NAME[name].unit,
                )
                continue
            yield Check(
                name=name,
                status="failed" if most is not None and value > most else "passed",
                value=value,
                unit=i.BY_NAME[name].unit,
                threshold=most,
                source="amdsmi",
            )

    @property
    def _vram(self) -> Any:
        return getattr(getattr(self.smi, "AmdSmiMemoryType", None), "VRAM", 0)

    def _clock(self, which: Any) -> float | None:
        return _number(_get(self._call("amdsmi_get_clock_info", which), "clk"))

    def _of(self, name: str, *keys: str, scale: float = 1.0) -> float | None:
        found = self._call(name)
        for key in keys:
            found = _get(found, key)
        value = _number(found)
        return None if value is None else value * scale

    def _call(self, name: str, *arguments: Any) -> Any:
        try:
            return getattr(self.smi, name)(self.handle, *arguments)
        except Exception:
            return None  # What one card, driver or version lacks is missing.


def cards() -> tuple[list[Card], str]:
    """The cards of AMD's driver; none, and why."""
    try:
        import amdsmi
    except ModuleNotFoundError:
        return [], "amdsmi is not installed"
    except Exception as error:  # it loads its library at import, and raises what it likes
        return [], f"amdsmi has no driver: {str(error)[:100]}"
    return _found(amdsmi)


def _found(smi: Any) -> tuple[list[Card], str]:
    try:
        smi.amdsmi_init()
        handles = smi.amdsmi_get_processor_handles()
    except Exception as error:
        return [], f"AMD's driver does not answer: {str(error)[:100]}"
    found = []
    for index, handle in enumerate(handles):
        uuid = _quiet(lambda handle=handle: smi.amdsmi_get_gpu_device_uuid(handle))  # type: ignore[misc]
        bus = _quiet(lambda handle=handle: smi.amdsmi_get_gpu_device_bdf(handle))  # type: ignore[misc]
        if isinstance(uuid, str) and uuid:
            found.append(Card(smi, handle, index, f"AMD-{uuid}", bus.lower() if bus else None))
    return found, "" if found else "AMD's driver shows no card"


def _quiet(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except Exception:
        return None


def _get(found: Any, key: str) -> Any:
    return found.get(key) if isinstance(found, dict) else None


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _integer(value: float | None) -> int | None:
    return None if value is None else int(value)


def _text(found: Any, key: str) -> str | None:
    value = _get(found, key)
    return value[:200] if isinstance(value, str) and value not in ("", "N/A") else None


def _hex(found: Any, key: str) -> str | None:
    value = _get(found, key)
    if isinstance(value, int):
        return f"{value:04x}"
    text = value.lower().removeprefix("0x") if isinstance(value, str) else ""
    return text.rjust(4, "0") if text and all(each in "0123456789abcdef" for each in text) else None
