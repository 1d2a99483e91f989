"""Power of processors, memory and buildings where nothing is measured: facts, each with its source."""

CPU_WATTS_PER_CORE = 12.0
"""TDP of a core of an unknown processor: the row "Any" of Green Algorithms' TDP_cpu.csv (CC BY 4.0), whose 80
processors lie between 3.8 and 23.8 W per core."""
CPU_IDLE_SHARE = 0.21
"""Share of full power that an idle server CPU draws: 0.74 of 3.5 W per vCPU, the averages over AWS's
processors in the methodology of Cloud Carbon Footprint (from SPECpower)."""
MEMORY_WATTS_PER_GB = 0.3725
"""Green Algorithms' referenceValues.csv, after dl.acm.org/citation.cfm?doid=3076113.3076117."""

GPU_IDLE_SHARE = 0.13
"""Share of TDP that a GPU with a process on it draws at least: the lowest mean power of the 218 training runs
that Zeus (NSDI'23) measured on P100, V100, RTX 6000 and A40 at full power limit."""
GPU_TRAINING_SHARE = 0.66
"""Share of TDP in training where use is unknown: the median of the same 218 means."""

PUE_UNKNOWN = 1.56
"""Power drawn by a building over that of its computers, for an unknown site: the average of the Uptime
Institute's global survey of 2024, as in Green Algorithms' defaults_PUE.csv."""

NETWORK_KWH_PER_GB = (0.0019, 0.06)
"""(low, high) of the internet's core and access networks for each GB that is moved. High: the last year that
Aslan and others counted, 2015 (2018, doi:10.1111/jiec.12630). Low: their trend, half as much every two years,
carried on to 2025. It is not known where between them the truth lies."""
NETWORK_SOURCE = (
    "Aslan et al. 2018, doi:10.1111/jiec.12630: 2015 as counted, and halving every two years to 2025"
)
