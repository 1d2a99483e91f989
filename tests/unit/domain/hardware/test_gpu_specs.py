"""GPUs are known by the names that NVML, people and price lists give them, and compared fairly."""

import pytest

from perak.domain.hardware.specs import SPECS, find_gpu


@pytest.mark.parametrize(
    ("name", "memory_gib", "variant"),
    [
        ("Tesla V100-SXM2-16GB", None, "V100 SXM2 16GB"),
        ("NVIDIA GeForce RTX 3090", None, "RTX 3090 24GB"),
        ("GeForce RTX 3090", None, "RTX 3090 24GB"),
        ("rtx3090", None, "RTX 3090 24GB"),
        ("RTX 3090 Ti", None, "RTX 3090 Ti 24GB"),
        ("NVIDIA A100-SXM4-80GB", None, "A100 SXM4 80GB"),
        ("NVIDIA A10", None, "A10 24GB"),
        ("NVIDIA A10G", None, "A10G 24GB"),
        ("A100", 39.6, "A100 SXM4 40GB"),
        ("A100", 79.3, "A100 SXM4 80GB"),
        ("V100", None, "V100 SXM2 16GB"),
        ("Quadro RTX 6000", None, "Quadro RTX 6000 24GB"),
        ("NVIDIA RTX 6000 Ada Generation", None, "RTX 6000 Ada 48GB"),
        ("Radeon VII", None, "Radeon VII 16GB"),
        ("NVIDIA GeForce RTX 3080", None, "RTX 3080 10GB"),
        ("NVIDIA GeForce RTX 3080", 9.99, "RTX 3080 10GB"),
        ("NVIDIA GeForce RTX 3080", 11.99, "RTX 3080 12GB"),
        ("RTX 3080 12GB", None, "RTX 3080 12GB"),
        ("Tesla M40", 11.2, "M40 12GB"),
        ("AMD Instinct MI50", 31.9, "MI50 32GB"),
    ],
)
def test_a_gpu_is_found(name: str, memory_gib: float | None, variant: str) -> None:
    memory_bytes = None if memory_gib is None else int(memory_gib * 2**30)
    found = find_gpu(name, memory_bytes=memory_bytes)
    assert found is not None
    assert found.variant == variant


@pytest.mark.parametrize("name", ["", "A1", "A1000", "Radeon V", "RTX 3090 Super", "NVIDIA", "AMD Radeon"])
def test_other_gpus_are_not_guessed(name: str) -> None:
    assert find_gpu(name) is None


def test_every_name_leads_to_its_own_row() -> None:
    for spec in SPECS:
        assert [find_gpu(name) for name in spec.names] == [spec] * len(spec.names)
