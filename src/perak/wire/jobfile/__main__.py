"""``python -m perak.wire.jobfile`` writes the schema beside this module."""

from __future__ import annotations

import json

from perak.wire.jobfile import SCHEMA_FILE, json_schema


def main() -> None:
    SCHEMA_FILE.write_text(json.dumps(json_schema(), indent=2) + "\n")


if __name__ == "__main__":
    main()
