"""Carbon of making hardware: rows of facts, each with the id of its source.

What is published for one card differs by a factor of up to four: boundaries and models differ, and few makers
say anything. So a card has a range, never a figure: see `perak.domain.carbon.embodied`.
"""

SOURCES: dict[str, str] = {
    "nvidia-hgx-h100": "NVIDIA HGX H100 product carbon footprint summary (WSP, ISO 14067), cradle to gate, "
    "1,312 kg for the baseboard over 8; quoted at second hand",
    "nvidia-hgx-b200": "NVIDIA HGX B200 product carbon footprint summary, cradle to gate, 2,274 kg for the "
    "baseboard over 8; quoted at second hand",
    "falk-2025": "Falk and others, arXiv:2509.00093, teardown of an A100 SXM 40GB, cradle to gate",
    "hubblo": "data.hubblo.org calculator (ADEME, Tide, Hubblo), manufacture, distribution, end of life",
    "boaviztapi": "BoaviztAPI 2.5.0, all phases but use (model by die and memory size)",
    "ccf": "Cloud Carbon Footprint, ccf-coefficients constants.py b0032d9, the same for any GPU",
    "ecologits": "EcoLogits 0.11.3, constant for a GPU of a server",
    "boavizta-servers": "Boavizta environmental-footprint-data 61323eb (ODbL): manufacture in the "
    "makers' own footprints of 48 servers, lowest and highest tenth",
}

GPUS_KG: tuple[tuple[str, str, float, str], ...] = (
    ("GTX 1080 Ti", "", 109.0, "boaviztapi"),
    ("P100", "", 158.8, "boaviztapi"),
    ("T4", "", 130.7, "boaviztapi"),
    ("V100", "V100 PCIe 16GB", 203.2, "boaviztapi"),
    ("V100", "V100 SXM2 32GB", 290.0, "boaviztapi"),
    ("A10", "", 184.1, "boaviztapi"),
    ("L4", "", 123.5, "boaviztapi"),
    ("L40S", "", 277.1, "boaviztapi"),
    ("A100", "A100 SXM4 40GB", 319.3, "boaviztapi"),
    ("A100", "A100 SXM4 40GB", 127.6, "falk-2025"),
    ("A100", "A100 PCIe 40GB", 181.0, "hubblo"),
    ("A100", "A100 PCIe 80GB", 569.4, "boaviztapi"),
    ("H100", "H100 SXM5 80GB", 575.1, "boaviztapi"),
    ("H100", "H100 SXM5 80GB", 164.0, "nvidia-hgx-h100"),
    ("H200", "H200 SXM5 141GB", 1066.9, "boaviztapi"),
    ("B200", "", 284.25, "nvidia-hgx-b200"),
)
"""Model, variant (of `perak.domain.facts.gpus`; empty: all), kg CO2e a card, source."""

ANY_GPU_KG: tuple[tuple[float, str], ...] = ((150.0, "ccf"), (273.0, "ecologits"))
"""Any card: constants of two calculators."""

SERVER_KG = (678.0, 1693.0, "boavizta-servers")
"""A server without GPUs: low, high, source."""

LIFE_YEARS_SHORT = 4.0
"""Cloud Carbon Footprint's methodology: four years, the usual lease of a server."""
LIFE_YEARS_LONG = 6.0
"""Alphabet's annual report for 2023: servers are written off over six years."""
