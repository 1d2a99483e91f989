"""AMD's energy counters, by amdsmi: loaded only where it works, as its import raises without a driver."""

from __future__ import annotations

import contextlib
import logging
from typing import Any

log = logging.getLogger(__name__)

MICROJOULES = 1e-6


class Amd:
    """The counters of this machine's AMD GPUs, by UUID. A reading that fails is missing."""

    def __init__(self, smi: Any) -> None:
        """`smi` is the module amdsmi, initialised."""
        self._smi = smi
        self._handles = dict(self._named(handle) for handle in smi.amdsmi_get_processor_handles())

    @classmethod
    def open(cls) -> Amd | None:
        """None where there is no driver, no library, or it doesn't answer."""
        try:
            import amdsmi

            amdsmi.amdsmi_init()
            return cls(amdsmi)
        except Exception as error:  # it raises KeyError, OSError and its own, by what is missing
            log.debug("no AMD counters: %s", error)
            return None

    def energy_joules(self, uuid: str) -> float | None:
        """The card's accumulator since the driver was loaded, in its own resolution (microjoules a count)."""
        with contextlib.suppress(self._smi.AmdSmiException, KeyError, TypeError):
            read = self._smi.amdsmi_get_energy_count(self._handles[uuid])
            # Before release 6.4 the count was called power.
            count = read["energy_accumulator"] if "energy_accumulator" in read else read["power"]
            return float(count) * float(read["counter_resolution"]) * MICROJOULES
        return None

    def power_watts(self, uuid: str) -> float | None:
        """What the socket draws now, or on average lately where that is all it tells."""
        with contextlib.suppress(self._smi.AmdSmiException, KeyError, TypeError):
            read = self._smi.amdsmi_get_power_info(self._handles[uuid])
            for name in ("current_socket_power", "average_socket_power"):
                if isinstance(watts := read.get(name), int | float) and watts > 0:
                    return float(watts)
        return None

    def _named(self, handle: Any) -> tuple[str, Any]:
        return str(self._smi.amdsmi_get_gpu_device_uuid(handle)), handle
