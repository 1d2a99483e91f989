"""What a cache has, by its records: walking a million files would take minutes."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path


def size_of(folder: Path) -> int:
    """Bytes that the complete things in `folder` and the caches right below it take, by their records."""
    total = 0
    for file in (*folder.glob("[!.]*.json"), *folder.glob("*/[!.]*.json")):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            total += int(json.loads(file.read_text())["bytes"])
    return total
