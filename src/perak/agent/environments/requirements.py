"""What a job may ask for under `python.packages`: names, extras, versions and markers from the index, nothing
else.
"""

import re
from collections.abc import Sequence

from perak.agent.environments.errors import RequirementRefused

# A lock file of a large training stack has about 250; more is a mistake or an attempt to keep the node busy.
PACKAGES_MAX = 300
# The longest real requirement, with extras and a marker, is well below this.
REQUIREMENT_CHARACTERS_MAX = 300

# Installers take a name that ends so for a file's.
ARCHIVE_SUFFIXES = (".whl", ".zip", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst", ".egg", ".txt")

# PEP 508 without its URL form.
_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
_EXTRAS = rf"\[ *(?:{_NAME}(?: *, *{_NAME})*)? *\]"
_CLAUSE = r"(?:===|==|~=|!=|<=|>=|<|>) *[A-Za-z0-9][A-Za-z0-9.*+!_-]*"
_MARKER = r"[A-Za-z0-9_.'\"()<>=!~ -]+"
_CLAUSES = rf"{_CLAUSE}(?: *, *{_CLAUSE})*"
_REQUIREMENT = re.compile(
    rf"(?P<name>{_NAME}) *(?:{_EXTRAS})? *(?:{_CLAUSES}|\({_CLAUSES}\))? *(?:;{_MARKER})?"
)


def check_packages(packages: Sequence[str]) -> tuple[str, ...]:
    """The requirements, trimmed, sorted and each once. Raises `RequirementRefused` for the first bad one."""
    if len(packages) > PACKAGES_MAX:
        raise RequirementRefused(
            f"python.packages names {len(packages)} packages; {PACKAGES_MAX} is the most. "
            "Name only those that the job imports; what they need comes by itself."
        )
    return tuple(sorted({_check(package.strip()) for package in packages}))


def package_name(requirement: str) -> str:
    """The normalised name (PEP 503) of a requirement that `check_packages` let through."""
    match = _REQUIREMENT.fullmatch(requirement)
    assert match is not None, "check_packages comes first"
    return re.sub(r"[-_.]+", "-", match["name"]).lower()


def _check(text: str) -> str:
    match = _REQUIREMENT.fullmatch(text) if len(text) <= REQUIREMENT_CHARACTERS_MAX else None
    if match is not None and not match["name"].lower().endswith(ARCHIVE_SUFFIXES):
        return text
    shown = ascii(text[:REQUIREMENT_CHARACTERS_MAX])
    raise RequirementRefused(
        f"python.packages: {shown} is refused: {_reason(text)} "
        'Write a name from the index, such as "numpy" or "scikit-learn>=1.5,<2".'
    )


def _reason(text: str) -> str:
    if text.startswith("-"):
        return "options are the node's, not the job's."
    if "://" in text or "@" in text or text.startswith(("git+", "file:")):
        return "packages come from the node's index only, never from a URL."
    if "/" in text or "\\" in text or text.startswith(".") or text.lower().endswith(ARCHIVE_SUFFIXES):
        return "packages come from the node's index only, never from a path."
    if len(text) > REQUIREMENT_CHARACTERS_MAX:
        return f"it is longer than {REQUIREMENT_CHARACTERS_MAX} characters."
    return "it is not a requirement (PEP 508)."
