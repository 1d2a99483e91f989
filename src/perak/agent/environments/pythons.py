"""The Pythons that a node can offer: those of the system, which a run's own uid may execute."""

import json
import os
import re
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

# Where administrators put what everyone may run; a Python in somebody's home is that person's.
SYSTEM_PREFIXES = (Path("/usr"), Path("/opt"))
# Distribution first: its Python is the one that is patched.
SEARCH_PATTERNS = (
    "/usr/bin/python3.*",
    "/usr/local/bin/python3.*",
    "/opt/*/bin/python3.*",
    "/opt/*/*/bin/python3.*",
)
# Python 3.9 has left support; nothing older gets wheels.
OLDEST_MINOR = 10
# A Python answers in 20 ms; one on a sleeping network disk may need seconds.
PROBE_SECONDS_MAX = 10.0

_PROGRAM = re.compile(r"python3\.(\d{1,2})")
# What an environment needs of its Python: a whole standard library (Debian can split it) and a platform.
_PROBE = """
import encodings, json, platform, site, sys, sysconfig, zipimport, zlib
print(json.dumps({
    "full": platform.python_version(),
    "name": sys.implementation.name,
    "prefix": sys.base_prefix,
    "platform": "-".join((sysconfig.get_platform(), *platform.libc_ver())),
}))
"""


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A system Python: `version` "3.11", `full` "3.11.2", the program's real `path`, its `prefix`, its
    platform.
    """

    version: str
    full: str
    path: Path
    prefix: Path
    platform: str


def interpreters() -> tuple[Interpreter, ...]:
    """The Pythons of this node, newest first, one for each minor version; empty when there is none."""
    found: dict[str, Interpreter] = {}
    for pattern in SEARCH_PATTERNS:
        for program in sorted(Path("/").glob(pattern.lstrip("/"))):
            name = _PROGRAM.fullmatch(program.name)
            if name is None or int(name[1]) < OLDEST_MINOR or f"3.{name[1]}" in found:
                continue
            interpreter = probe(program)
            if interpreter is not None:
                found.setdefault(interpreter.version, interpreter)
    return tuple(sorted(found.values(), key=lambda each: int(each.version.split(".")[1]), reverse=True))


def probe(program: Path) -> Interpreter | None:
    """What `program` is, or None if it isn't a CPython that everyone may run and nobody else can change."""
    path = program.resolve()
    if not any(prefix in path.parents for prefix in SYSTEM_PREFIXES) or not anyone_may_execute(path):
        return None
    try:
        # We run it, possibly as root: so its folders must be nobody else's to write.
        if not _only_ours_to_write(path):
            return None
        done = subprocess.run(
            [path, "-I", "-S", "-c", _PROBE],
            capture_output=True,
            text=True,
            timeout=PROBE_SECONDS_MAX,
            check=True,
            env={"PATH": "/usr/bin:/bin"},
        )
        facts = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    if facts["name"] != "cpython":
        return None
    full: str = facts["full"]
    return Interpreter(".".join(full.split(".")[:2]), full, path, Path(facts["prefix"]), facts["platform"])


def anyone_may_execute(path: Path) -> bool:
    """Whether a uid that owns nothing may execute `path` (or enter it, a folder), by the mode bits alone."""
    try:
        return all(each.stat().st_mode & stat.S_IXOTH for each in (path, *path.parents))
    except OSError:
        return False


def _only_ours_to_write(path: Path) -> bool:
    """Whether root or ourselves own `path` and all above it, and no others may write there."""
    for each in (path, *path.parents):
        status = each.stat()
        if status.st_uid not in (0, os.geteuid()) or status.st_mode & stat.S_IWOTH:
            return False
    return True
