"""Replies as the sources' published documentation shows them. None was seen live."""

GB_PAST = {
    "data": [
        {
            "from": "2026-11-23T10:00Z",
            "to": "2026-11-23T10:30Z",
            "intensity": {"forecast": 266, "actual": 263, "index": "moderate"},
        },
        {
            "from": "2026-11-23T10:30Z",
            "to": "2026-11-23T11:00Z",
            "intensity": {"forecast": 260, "actual": 257, "index": "moderate"},
        },
        {
            "from": "2026-11-23T11:00Z",
            "to": "2026-11-23T11:30Z",
            "intensity": {"forecast": 255, "actual": None, "index": "moderate"},
        },
    ]
}
"""carbon-intensity.github.io/api-definitions, /intensity/{from}/{to}."""

GB_AHEAD = {
    "data": [
        {
            "from": "2026-11-23T11:30Z",
            "to": "2026-11-23T12:00Z",
            "intensity": {"forecast": 250, "actual": None, "index": "moderate"},
        },
        {
            "from": "2026-11-23T12:00Z",
            "to": "2026-11-23T12:30Z",
            "intensity": {"forecast": 240, "actual": None, "index": "moderate"},
        },
    ]
}

MAPS_HISTORY = {
    "zone": "DE",
    "history": [
        {
            "zone": "DE",
            "carbonIntensity": 302,
            "datetime": "2026-11-23T10:00:00.000Z",
            "updatedAt": "2026-11-23T11:04:09.250Z",
            "createdAt": "2026-11-20T09:12:00.000Z",
            "emissionFactorType": "lifecycle",
            "isEstimated": False,
            "estimationMethod": None,
        },
        {
            "zone": "DE",
            "carbonIntensity": 310,
            "datetime": "2026-11-23T11:00:00.000Z",
            "updatedAt": "2026-11-23T11:04:09.250Z",
            "createdAt": "2026-11-20T10:12:00.000Z",
            "emissionFactorType": "lifecycle",
            "isEstimated": True,
            "estimationMethod": "TIME_SLICER_AVERAGE",
        },
    ],
}
MAPS_FORECAST = {
    "zone": "DE",
    "forecast": [
        {"carbonIntensity": 320, "datetime": "2026-11-23T12:00:00.000Z"},
        {"carbonIntensity": 290, "datetime": "2026-11-23T13:00:00.000Z"},
    ],
    "updatedAt": "2026-11-23T11:26:49.617Z",
}
"""docs.electricitymaps.com, v3."""

WATTTIME_LOGIN = {"token": "abcdef0123456789fedcabc"}
WATTTIME_FORECAST = {
    "data": [
        {"point_time": "2026-11-23T11:00:00+00:00", "value": 870},
        {"point_time": "2026-11-23T11:05:00+00:00", "value": 880},
        {"point_time": "2026-11-23T12:00:00+00:00", "value": 900},
    ],
    "meta": {
        "data_point_period_seconds": 300,
        "region": "CAISO_NORTH",
        "signal_type": "co2_moer",
        "units": "lbs_co2_per_mwh",
        "warnings": [],
        "model": {"date": "2025-03-01"},
        "generated_at_period_seconds": 300,
        "generated_at": "2026-11-23T11:00:00+00:00",
    },
}
"""docs.watttime.org, v3."""
