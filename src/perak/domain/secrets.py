"""What a project's secrets are, and how large they may be. Their values never come here."""

from __future__ import annotations

import re

from perak.domain.errors import InvalidInput

VALUE_BYTES_MAX = 64 * 1024
"""A private key or a service account's file has some kilobytes. Linux takes 128 KiB in one variable of the
environment, and a node has to look for each value in the job's log."""
PER_RUN_BYTES_MAX = 256 * 1024
"""Of all that one run is given: its shim, which the provider pays for, looks for every piece in the log."""
PER_PROJECT_MAX = 200
NAME_CHARACTERS_MAX = 64
WORKDIR_KEY = "@workdir"
"""The name of a job's own secret, which opens its work folder; no secret of a project can have it."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
"""A name that can be a variable of the environment (POSIX, 8.1) is a safe file name, too."""


def check_name(name: str) -> str:
    """The same name. Raises InvalidInput."""
    if len(name) > NAME_CHARACTERS_MAX or not _NAME.fullmatch(name):
        raise InvalidInput(
            f"{name[:80]!r} is not a name for a secret: use letters, digits and underscores, at most "
            f"{NAME_CHARACTERS_MAX}, such as MODEL_TOKEN"
        )
    return name
