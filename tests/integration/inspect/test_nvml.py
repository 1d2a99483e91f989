"""What NVIDIA's driver tells of cards in good and bad states, through its real library boundary."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from perak.domain.hardware import inspection as i
from stand_ins import nvml_states
from stand_ins.nvml_states import state


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nvml_states.make_library(tmp_path_factory.mktemp("driver") / "root")


def card(root: Path, *lines: str, without: tuple[str, ...] = ()) -> Any:
    (found,) = nvml_states.read(root, state(*lines, without=without))["cards"]
    return found


def failed(found: Any) -> set[str]:
    return {name for name, (status, _, _) in found["checks"].items() if status == "failed"}


def test_a_healthy_card_fails_nothing_and_says_who_it_is(root: Path) -> None:
    found = card(root)
    assert failed(found) == set()
    assert found["identity"] == ["13200", "92.00.36.00.02", "10de:20b2:10de:147f", True]
    assert found["sample"] == {"celsius": 61}
    assert found["checks"][i.REMAPPED_ROWS][:2] == ["passed", 0]


@pytest.mark.parametrize(
    ("lines", "bad"),
    [
        (("0 remapped 3 1 0 0",), set()),
        (("0 remapped 0 1 1 0",), {i.REMAP_PENDING}),
        (("0 remapped 0 9 0 1", "0 banks 600 20 10 6 4"), {i.REMAP_FAILED, i.REMAP_EXHAUSTED_BANKS}),
        (("0 ecc_errors 7 0 9 0",), set()),
        (("0 ecc_errors 0 2 0 2",), {i.ECC_VOLATILE_UNCORRECTED}),
        (("0 sram_exceeded 1",), {i.ECC_SRAM_THRESHOLD}),
        (("0 retired_single 8", "0 retired_double 3", "0 retirement_pending 1"),
         {i.RETIRED_PAGES, i.RETIREMENT_PENDING}),
        (("0 throttle 0x48",), {i.THROTTLE}),
        (("0 nvlink 110111111111", "0 nvlink_errors 2"), {i.NVLINK_INACTIVE, i.NVLINK_ERRORS}),
        (("0 width 8",), {i.PCIE_WIDTH}),
        (("0 xid 31 43",), set()),
        (("0 xid 79",), {i.XID}),
    ],
)  # fmt: skip
def test_each_state_fails_its_own_checks_and_no_other(
    root: Path, lines: tuple[str, ...], bad: set[str]
) -> None:
    assert failed(card(root, *lines)) == bad


def test_what_a_card_lacks_did_not_run_and_is_never_zero(root: Path) -> None:
    lacks = (
        "ecc",
        "ecc_errors",
        "sram_exceeded",
        "remapped",
        "banks",
        "energy",
        "nvlink",
        "events",
        "throttle",
    )
    found = card(root, without=lacks)
    for name in (
        i.ECC_AGGREGATE_UNCORRECTED,
        i.REMAPPED_ROWS,
        i.REMAP_FAILED,
        i.ENERGY_COUNTER,
        i.NVLINK_ERRORS,
        i.XID,
        i.THROTTLE,
    ):
        status, value, reason = found["checks"][name]
        assert (status, value) == ("not_run", None), name
        assert reason


def test_remapped_rows_and_errors_of_its_life_are_counted(root: Path) -> None:
    checks = card(root, "0 remapped 3 1 0 0", "0 ecc_errors 1 0 12 0")["checks"]
    assert checks[i.REMAPPED_ROWS][1] == 4
    assert checks[i.ECC_AGGREGATE_CORRECTED][1] == 12


def test_a_slow_slot_is_the_machines_limit_not_the_cards(root: Path) -> None:
    status, value, reason = card(root, "0 generation 3", "0 generation_slot 3")["checks"][i.PCIE_GENERATION]
    assert (status, value) == ("passed", 3)
    assert reason == "the machine's slot allows 3, the card 4"


def test_a_card_that_falls_off_the_bus_is_told_apart_from_one_that_lacks_a_reading(root: Path) -> None:
    found = card(root, "0 lost_after 14")
    assert "GPU is lost" in found["lost"]
    assert found["checks"] == []


def test_eight_cards_are_eight_by_their_places(root: Path) -> None:
    found = nvml_states.read(root, state(cards=8))["cards"]
    assert len({each["uuid"] for each in found}) == 8
    assert len({each["bus"] for each in found}) == 8


def test_without_a_driver_there_are_no_cards_and_a_reason(tmp_path: Path) -> None:
    found = nvml_states.read(tmp_path, state())
    assert found["cards"] == []
    assert "driver" in found["why"]


AGENT = """
import os, pynvml, sys
from perak.agent.probe.driver import Driver
from perak.agent.probe.nvidia import Nvidia
from perak.domain.hardware.fault import is_grave, name_of
Driver.find().load()
pynvml.nvmlInit()
found = Nvidia(pynvml)
def told():
    faults = found.faults()
    print(" ".join(f"{each.device}:{name_of(each)}:{is_grave(each)}" for each in faults) or "nothing")
told()
with open(os.environ["NVML_STATE"], "a") as file:
    print(sys.argv[1], file=file)
told()
told()
"""


@pytest.mark.parametrize(
    ("happens", "first", "then"),
    [
        ("0 xid 79", "GPU-0:xid 79:True", "nothing"),
        ("0 xid 63 31", "GPU-0:xid 63:False GPU-0:xid 31:False", "nothing"),
        ("1 ecc_errors 0 2 0 2", "GPU-1:uncorrected:True", "nothing"),
        ("1 ecc_errors 9 0 9 0", "nothing", "nothing"),
        ("1 lost_after 0", "GPU-1:lost:True", "GPU-1:lost:True"),
    ],
)
def test_the_agent_hears_what_befalls_a_card_while_nobody_inspects_it(
    root: Path, happens: str, first: str, then: str
) -> None:
    """In a process of its own, as a library is loaded once."""
    told = subprocess.run(
        [sys.executable, "-c", AGENT, happens],
        env={**os.environ, **nvml_states.env(root, state(cards=2))},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert told.stdout.splitlines() == ["nothing", first, then]
