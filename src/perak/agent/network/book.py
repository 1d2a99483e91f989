"""What is kept of runs for their proxy: the rules in run.json, the counts in network.json beside it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from perak.agent.network.proxy import Traffic
from perak.agent.network.rules import Rules
from perak.agent.sandbox import Sandbox

NAME = "network.json"


class RunBook:
    """The proxy's `Book`, in the runs' own folders."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    def rules(self, run: str) -> Rules | None:
        try:
            allow = self._sandbox.load(run).network_allow
        except (KeyError, ValueError, OSError):
            return None
        return Rules.of(allow) if allow else None

    def read(self, run: str) -> Traffic:
        try:
            return Traffic(**json.loads(self._path(run).read_text()))
        except (OSError, ValueError, TypeError, KeyError):
            return Traffic()

    def write(self, run: str, traffic: Traffic) -> None:
        """In place at once; a run that was cleared away meanwhile needs none."""
        try:
            path = self._path(run)
            draft = path.with_name(f".{NAME}")
            draft.write_text(json.dumps(asdict(traffic)))
            draft.rename(path)
        except (OSError, KeyError):
            return

    def _path(self, run: str) -> Path:
        return self._sandbox.folder(run) / NAME
