"""What still runs on a card, and that a job which would not is told so before money moves."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from perak.domain.facts.software import BUILDS, CUDA, ROCM
from perak.domain.hardware.software import package_problem, software_life
from perak.domain.hardware.specs import SPECS, find_gpu
from perak.domain.hardware.standing import Standing
from perak.domain.job import JobSpec, PythonEnvironment, Resources
from perak.domain.market.feasible import fitting_devices, misfits
from unit.domain.market.test_feasible import device, offer

NOW = datetime(2026, 11, 2, 12, 0, tzinfo=UTC)


def life(model: str) -> dict[str, str]:
    spec = find_gpu(model)
    assert spec is not None
    return {each.software: each.last for each in software_life(spec)}


def test_old_cards_die_of_software_first() -> None:
    assert life("K80") == {"CUDA": "11.8", "CuPy": "those for CUDA 11"}
    assert life("V100")["CUDA"] == life("P100")["CUDA"] == "12.9"
    assert life("V100")["PyTorch"] == "2.14"
    assert life("V100")["JAX"] == "those for CUDA 12"
    assert life("MI50") == {"ROCm": "5.7"}
    assert set(life("RTX 3090").values()) == set(life("RTX 5090").values()) == {"the newest"}


def test_every_card_in_the_table_has_its_cuda_or_rocm() -> None:
    for spec in SPECS:
        found = {each.software for each in software_life(spec)}
        assert ("ROCm" if spec.gfx else "CUDA") in found, spec.variant
        assert all(each.source for each in software_life(spec))
    assert all(row[-1] for table in (CUDA, ROCM, BUILDS) for row in table)


@pytest.mark.parametrize(
    ("package", "capability", "driver", "says"),
    [
        ("jax[cuda13]>=0.7", "7.0", None, "7.5 and newer; write jax[cuda12]"),
        ("jax[cuda12]", "7.0", "12.4", None),
        ("JAX_cuda13_plugin", "6.1", None, "7.5 and newer"),
        ("jax[cuda12]", "3.7", None, "no build of jax that is known here has"),
        ("cupy-cuda13x==14.0", "6.0", None, "write cupy-cuda12x"),
        ("cupy-cuda12x", "7.0", "11.4", "a driver for CUDA 12 (525 or newer)"),
        ("tensorflow[and-cuda]", "5.2", None, "6.0 and newer"),
        ("tensorflow", "5.2", None, None),
        ("numpy", "3.7", "10.2", None),
        ("???", "3.7", None, None),
    ],
)
def test_a_package_without_kernels_for_a_card_is_named(
    package: str, capability: str, driver: str | None, says: str | None
) -> None:
    found = package_problem((package,), capability, driver)
    assert (found is None) == (says is None)
    assert says is None or says in str(found)


def test_a_job_too_new_for_a_card_does_not_fit_and_is_told_why() -> None:
    cards = tuple(replace(device(i), compute_capability="7.0", driver="550.54", cuda="12.4") for i in (0, 1))
    spec = JobSpec(
        name="jax", run="true", python=PythonEnvironment(version="3.11", packages=("jax[cuda13]",)),
        resources=Resources(gpu_count=1),
    )  # fmt: skip
    (misfit,) = misfits(spec, offer(devices=cards), now=NOW)
    assert misfit.dimension == "cuda"
    assert "write jax[cuda12]" in misfit.available


def test_a_grade_is_asked_for_and_an_ungraded_card_has_none() -> None:
    spec = JobSpec(name="graded", run="true", resources=Resources(gpu_count=1), min_grade="B")
    cards = (device(0), device(1))
    (misfit,) = misfits(spec, offer(devices=cards), now=NOW)
    assert (misfit.dimension, misfit.needed, misfit.available) == ("grade", "B or better", "ungraded")
    held = {"GPU-0": Standing(grade="C", provisional=False), "GPU-1": Standing(grade="A", provisional=False)}
    graded = offer(devices=cards, standings=held)
    assert misfits(spec, graded, now=NOW) == ()
    assert [each.uuid for each in fitting_devices(spec, cards, (), held)] == ["GPU-1"]
    two = replace(spec, resources=Resources(gpu_count=2))
    assert [each.dimension for each in misfits(two, graded, now=NOW)] == ["gpu_count"]
