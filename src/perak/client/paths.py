"""Where Perak keeps things on this machine. Nothing here creates a file."""

from __future__ import annotations

import os
from pathlib import Path

SYSTEM_STATE_DIR = Path("/var/lib/perak")


def state_dir() -> Path:
    """The folder of `perak up` and of agents: PERAK_STATE_DIR, the system's for root, else the user's own."""
    if named := os.environ.get("PERAK_STATE_DIR"):
        return Path(named)
    if os.geteuid() == 0:
        return SYSTEM_STATE_DIR
    return _xdg("XDG_STATE_HOME", ".local/state") / "perak"


def config_file() -> Path:
    """The file of profiles that `perak login` writes."""
    return _xdg("XDG_CONFIG_HOME", ".config") / "perak" / "config.toml"


def local_file() -> Path:
    """What a running `perak up` tells clients on this machine: its URL and a key, for its user only."""
    return state_dir() / "local.json"


def _xdg(variable: str, default: str) -> Path:
    """A base folder of the XDG specification, which says that relative values are to be ignored."""
    named = os.environ.get(variable, "")
    return Path(named) if named.startswith("/") else Path.home() / default
