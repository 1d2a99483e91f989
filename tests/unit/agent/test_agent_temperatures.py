"""What a machine's sensors say, and which readings are worth a report."""

from __future__ import annotations

from pathlib import Path

from perak.agent.health import FaultWatch, HealthWatch
from perak.agent.probe.temperatures import Thermometer
from perak.domain.hardware.heat import CPU_HOT_CELSIUS_DEFAULT
from perak.domain.report import Faulted, Sensor


def chip(root: Path, number: int, files: dict[str, str]) -> None:
    folder = root / f"sys/class/hwmon/hwmon{number}"
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name).write_text(text + "\n")


def test_a_processor_is_as_hot_as_its_hottest_core_and_other_chips_are_not_asked(tmp_path: Path) -> None:
    cores = {"temp1_label": "Package id 0", "temp1_input": "61000", "temp1_crit": "100000"}
    chip(tmp_path, 2, {"name": "coretemp", **cores, "temp2_label": "Core 0", "temp2_input": "63000"})
    chip(tmp_path, 10, {"name": "k10temp", "temp1_input": "-200000", "temp2_input": "45500"})
    chip(tmp_path, 1, {"name": "nvme", "temp1_input": "38000"})
    first, second = Thermometer(nvidia=None, root=tmp_path).read()
    assert (first.id, first.name, first.celsius, first.hot_celsius) == (
        "hwmon2",
        "CPU coretemp Core 0",
        63,
        100,
    )
    assert (second.celsius, second.hot_celsius) == (45.5, CPU_HOT_CELSIUS_DEFAULT), "it tells no limit"


def test_thermal_zones_are_asked_where_no_driver_answers(tmp_path: Path) -> None:
    zone = tmp_path / "sys/class/thermal/thermal_zone0"
    zone.mkdir(parents=True)
    trips = {"trip_point_0_type": "critical", "trip_point_0_temp": "105000", "trip_point_1_type": "passive"}
    for name, text in ({"type": "cpu-thermal", "temp": "50000"} | trips).items():
        (zone / name).write_text(text + "\n")
    (sensor,) = Thermometer(nvidia=None, root=tmp_path).read()
    assert (sensor.celsius, sensor.hot_celsius) == (50, 105)


def test_a_machine_without_sensors_says_nothing(tmp_path: Path) -> None:
    watch = HealthWatch(every_seconds=300, every_seconds_hot=60)
    assert watch.take(Thermometer(nvidia=None, root=tmp_path).read(), now=0) is None


def test_reports_are_few_but_for_turns() -> None:
    watch = HealthWatch(every_seconds=300, every_seconds_hot=60)
    readings = {
        0: 70,
        5: 80,
        10: 90,
        15: 88,
        20: 86,
        75: 91,
        80: 85,
        85: 84,
        140: 70,
        145: 71,
        440: 70,
        445: 70,
    }
    reported = [
        at for at, celsius in readings.items() if watch.take([card(celsius)], now=float(at)) is not None
    ]
    assert reported == [0, 10, 75, 85, 145, 445], (
        "at first, as it turns, each minute while hot, as it cools, that again, and later"
    )


def card(celsius: float) -> Sensor:
    return Sensor(id="GPU-1", name="GPU 0", celsius=celsius, hot_celsius=90, limit_source="NVML")


def test_an_xid_is_reported_once_an_hour_and_one_of_a_program_never() -> None:
    watch = FaultWatch()
    faults = [Faulted(device="GPU-1", xid=79), Faulted(device="GPU-1", xid=31)]
    told = [watch.take(faults, now=at) for at in (0.0, 5.0, 3_601.0)]
    assert [[each.xid for each in reports] for reports in told] == [[79], [], [79]]
    for fault in (Faulted(device="GPU-2", xid=79), Faulted(device="GPU-1", kind="lost")):
        assert watch.take([fault], now=3_602.0) == [fault], "another card's, or another one of its own"
