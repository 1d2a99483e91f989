"""Life-cycle carbon of electricity by fuel: rows of facts, in g CO2e/kWh.

Source: IPCC AR5 WG3 (2014), annex III, table A.III.2, medians; oil, waste and storage, which it lacks, as
named. Waste counts like what is unknown. A mix of what is generated in a zone is not what is used there:
imports are left out, and it is said.
"""

SOURCE = "IPCC 2014 life-cycle medians by fuel, of generation"

FUELS: dict[str, float] = {
    "biomass": 230.0,
    "coal": 820.0,
    "gas": 490.0,
    "geothermal": 38.0,
    "hydro": 24.0,
    "nuclear": 12.0,
    "oil": 650.0,  # UNECE 2014, as used by Electricity Maps
    "other": 700.0,  # a thermal plant, as Electricity Maps counts what is unknown
    "solar": 45.0,
    "waste": 700.0,
    "wind": 11.0,
}
