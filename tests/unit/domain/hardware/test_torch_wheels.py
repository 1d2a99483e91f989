"""Which of PyTorch's wheels a card gets, and what is said where none has kernels for it."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from perak.domain.hardware.specs import SPECS
from perak.domain.hardware.torch import WHEELS, TorchChoice, choose_torch, driver_cuda_of, known_variants
from perak.domain.offer import Device, OfferAsk
from perak.domain.plausible import Implausible, check_offer

ALL = known_variants()
CARD = Device(index=0, kind="nvidia", model="V100", uuid="GPU-1", memory_bytes=1)
V100, T4, P40, H100, RTX_5090 = "7.0", "7.5", "6.1", "9.0", "12.0"


@pytest.mark.parametrize("card", [T4, "8.0", "8.9", H100, RTX_5090])
@pytest.mark.parametrize("variants", [(), ALL])
def test_pypis_wheel_is_taken_where_it_has_kernels(card: str, variants: tuple[str, ...]) -> None:
    assert choose_torch(("torch",), (card,), variants) == TorchChoice()


@pytest.mark.parametrize("card", [V100, P40, "5.2"])
def test_an_older_card_gets_the_legacy_variant_of_the_newest_release(card: str) -> None:
    assert choose_torch(("torch>=2.6",), (card,), ALL) == TorchChoice(variant="cu126", release="2.14")
    assert choose_torch(("numpy", "Torch==2.12.1"), (card,), ALL).release == "2.12"


def test_a_node_without_that_variant_says_what_would_fit() -> None:
    problem = choose_torch(("torch",), (V100,), ()).problem
    assert problem is not None
    assert "torch 2.15 (cu132) for 7.5 to 12.0" in problem
    assert "torch<2.11" in problem
    assert choose_torch(("torch<2.11",), (V100,), ()).problem is None
    assert "cu126" in (choose_torch(("torch<2.11",), (P40,), ()).problem or "")
    assert "no release" in (choose_torch(("torch",), ("3.7",), ALL).problem or ""), "a K80 has none at all"


def test_a_version_that_names_its_variant_is_taken_at_its_word() -> None:
    assert choose_torch(("torch==2.9.1+cu126",), (V100,), ALL).variant == "cu126"
    assert choose_torch(("torch==2.9.1+cu130",), (V100,), ALL).problem is not None


@pytest.mark.parametrize("packages", [("numpy",), (), ("torch==2.3.1",), ("torch>=2.99",), ("torchmetrics",)])
def test_what_the_table_does_not_know_is_not_judged(packages: tuple[str, ...]) -> None:
    assert choose_torch(packages, (V100,), ()) == TorchChoice()
    assert choose_torch(("torch",), (), ()) == TorchChoice(), "nor is a card without a known capability"


def test_two_cards_of_one_lease_need_one_wheel() -> None:
    assert choose_torch(("torch<2.11",), (V100, H100), ALL) == TorchChoice()
    assert choose_torch(("torch",), (P40, RTX_5090), ALL).problem is not None


@pytest.mark.parametrize("driver_cuda", ["12.0", "12.4"])
def test_a_driver_older_than_the_wheels_cuda_gets_another_or_is_told(driver_cuda: str) -> None:
    assert choose_torch(("torch",), ("8.6",), ALL, driver_cuda) == TorchChoice(
        variant="cu126", release="2.14"
    )
    problem = choose_torch(("torch",), ("8.6",), (), driver_cuda).problem
    assert problem is not None
    assert f"torch 2.15 (cu132) needs a driver for CUDA 13 (580 or newer), it has {driver_cuda}" in problem
    assert "torch<2.11" in problem
    assert choose_torch(("torch<2.11",), ("8.6",), (), driver_cuda) == TorchChoice(), "12.8 on a 12.x driver"
    assert "no release" in (choose_torch(("torch",), (RTX_5090,), (), "11.4").problem or "")


def test_an_old_driver_translates_no_ptx_of_a_newer_cuda() -> None:
    newer_card = "12.1"
    (wheels,) = [each for each in WHEELS if (each.minor, each.variant) == ((2, 8), "cu129")]
    assert wheels.has_kernels_for("13.0")
    assert wheels.has_kernels_for("13.0", "12.9")
    assert not wheels.has_kernels_for("13.0", "12.4")
    assert wheels.has_kernels_for(newer_card, "12.4"), "machine code is not translated"


def test_a_driver_that_tells_only_its_version_is_known_by_its_branch() -> None:
    branches = {
        "580.95.05": "13.0",
        "570.86": "12.0",
        "525.60.13": "12.0",
        "470.256": "11.0",
        "418.1": "10.0",
    }
    assert {driver: driver_cuda_of(None, driver) for driver in branches} == branches
    assert driver_cuda_of("12.4", "550.54") == "12.4"
    assert driver_cuda_of(None, None) is None


def test_the_table_is_whole() -> None:
    for wheels in WHEELS:
        assert wheels.source
        assert re.fullmatch(r"cu\d{3}", wheels.variant)
        assert all(re.fullmatch(r"\d+\.\d(\+PTX)?", each) for each in wheels.architectures)
    releases = {each.minor for each in WHEELS}
    assert all(sum(each.on_pypi for each in WHEELS if each.minor == minor) == 1 for minor in releases)
    unknown = {
        spec.architecture
        for spec in SPECS
        if spec.compute_capability and choose_torch(("torch",), (spec.compute_capability,), ALL).problem
    }
    assert unknown == {"Kepler"}, "of the cards that we know, PyTorch has left these alone"


@pytest.mark.parametrize(
    "told",
    [
        {"torch_variants": ("cu126; rm",)},
        {"left_out": {"GPU-1": "x" * 5000}},
        {"devices": (replace(CARD, compute_capability="seven"),)},
    ],
)
def test_a_node_that_tells_nonsense_is_refused_before_anything_is_compared(told: dict[str, Any]) -> None:
    honest = OfferAsk(region="DE", cpu_model="A", cpu_milli=1, memory_bytes=1, disk_bytes=1)
    check_offer(honest)
    with pytest.raises(Implausible):
        check_offer(replace(honest, **told))
