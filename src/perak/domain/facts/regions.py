"""Which countries a region of several holds: rows of facts.

Source: European Union, "EU countries" (european-union.europa.eu/principles-countries-history/eu-countries),
27 member states, as of 2026-11; codes are ISO 3166-1 alpha-2.
"""

EU_MEMBERS = frozenset(
    {
        "AT", "BE", "BG", "CY", "CZ", "DE", "DK", "EE", "ES", "FI", "FR", "GR", "HR", "HU", "IE", "IT", "LT",
        "LU", "LV", "MT", "NL", "PL", "PT", "RO", "SE", "SI", "SK",
    }
)  # fmt: skip
EEA_MEMBERS = EU_MEMBERS | {"IS", "LI", "NO"}
"""The European Economic Area, where the GDPR holds, too (EEA Joint Committee, 2018-07-06)."""

GROUPS = {"EU": EU_MEMBERS, "EEA": EEA_MEMBERS}

ALIASES = {"UK": "GB", "EL": "GR", "USA": "US", "EUROPE": "EU"}
"""What people and some institutions write for a country, or for the union."""

ANYWHERE = "WORLD"
"""The region of an offer that does not say where it is; it lies in no other."""
