"""What metering costs an agent: the share of a core that eight runs, one GPU each, take at five seconds.

Real are the meter, the reading of files like powercap's (two packages with memory), the library nvidia-ml-py
over its own ctypes boundary, and the journal. The library below it is the tests' stand-in, written in C: what
a driver itself takes for a reading comes on top, and is not known here.
"""

from __future__ import annotations

import ctypes
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from perak.agent.journal import Journal
from perak.agent.meter.energy import EnergyMeter, MeterState
from perak.agent.meter.hours import reported
from perak.agent.meter.rapl import Rapl
from perak.wire.session import LeaseOrder

GPUS = 8
INTERVAL_SECONDS = 5.0
ROUNDS = 200
HOURS = 24
"""Of a run that has lasted a day: its hours are in each report."""
STAND_IN = Path(__file__).parents[1] / "tests" / "stand_ins" / "nvml.c"


def measure() -> Iterator[tuple[str, float, str]]:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        nvidia = _nvidia(root)
        meter = EnergyMeter(rapl=_rapl(root), nvidia=nvidia)
        journal = Journal(root / "journal.db", sign=lambda payload: payload.hex())
        uuids = [each.device.uuid for each in nvidia.devices] if nvidia else []
        orders = [_order(number, uuids) for number in range(GPUS)]
        began = time.time() - HOURS * 3600
        states = [meter.begin(order, at=began) for order in orders]
        for hour in range(HOURS):
            for order, state in zip(orders, states, strict=True):
                meter.sample(order, state, at=began + hour * 3600, cpu_seconds=None)
        costs = []
        for number in range(ROUNDS):
            started = time.process_time()
            for order, state in zip(orders, states, strict=True):
                _once(meter, journal, order, state, at=began + HOURS * 3600 + number * INTERVAL_SECONDS)
            costs.append(time.process_time() - started)
    each = statistics.median(costs)
    yield "meter_sample_us", round(each / GPUS * 1e6, 1), "us of CPU a run and reading"
    yield "meter_core_percent", round(each / INTERVAL_SECONDS * 100, 4), "% of a core, 8 runs with a GPU each"


def _once(
    meter: EnergyMeter, journal: Journal, order: LeaseOrder, state: MeterState, *, at: float
) -> tuple[tuple[int, float], ...]:
    """As the agent's loop does with each report."""
    meter.sample(order, state, at=at, cpu_seconds=None)
    journal.store_meter(order.run, msgspec.json.encode(state))
    return reported(state.hours, ended=False)


def _nvidia(root: Path) -> Any:
    """Eight cards of the stand-in; None, and a word on stderr, where it can't be compiled."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        print("no C compiler: GPUs are left out", file=sys.stderr)
        return None
    import pynvml

    from perak.agent.probe.nvidia import Nvidia

    library = root / "libnvidia-ml.so.1"
    build = [compiler, "-shared", "-fPIC", "-O1", f"-DCARDS={GPUS}", "-o", str(library), str(STAND_IN)]
    subprocess.run(build, check=True)
    pynvml.nvmlLib = ctypes.CDLL(str(library))
    return Nvidia(pynvml)


def _rapl(root: Path) -> Rapl:
    powercap, stat = root / "powercap", root / "stat"
    for zone, name in (("0", "package-0"), ("0:0", "dram"), ("1", "package-1"), ("1:0", "dram")):
        folder = powercap / f"intel-rapl:{zone}"
        folder.mkdir(parents=True)
        (folder / "name").write_text(name)
        (folder / "max_energy_range_uj").write_text("262143328850")
        (folder / "energy_uj").write_text("123456789")
    stat.write_text("cpu  100 0 100 " + " ".join(["0"] * 7) + "\n")
    found = Rapl.open(powercap, proc_stat=stat)
    assert found is not None
    return found


def _order(number: int, uuids: list[str]) -> LeaseOrder:
    return LeaseOrder(
        lease=f"lease-{number}",
        run=f"run-{number}",
        job=f"job-{number}",
        epoch=1,
        wanted="run",
        name="bench",
        command="true",
        devices=(uuids[number],) if number < len(uuids) else (),
        cpu_milli=2000,
        memory_bytes=8 * 10**9,
        disk_bytes=10**9,
        shm_bytes=2**26,
        max_duration_seconds=86_400,
    )
