"""Says in a user's words why uv could not resolve or install."""

import re
from collections.abc import Iterable

_MARKS = re.compile(r"^(?:[\s×╰─▶│├·]|cause: |error: )+")
_NOISE = ("Using ", "warning: ", "hint: ", "No solution found")
# The essence of uv's explanation comes first; the rest repeats it for every candidate.
EXPLANATION_CHARACTERS_MAX = 1500

_UNKNOWN = re.compile(
    r"(?P<name>[A-Za-z0-9._-]+) was not found in the (?:package registry|provided package locations)"
)
_NO_WHEEL = re.compile(
    r"(?P<name>[A-Za-z0-9._-]+?)(?P<version>==\S+)? (?:has no (?:usable )?wheels?|(?:only )?has no wheels|"
    r"has only (?:sdist|source)|has no compatible wheels|was found, but has no usable wheels)",
)


def explain(output: str, wanted: Iterable[str], python: str) -> tuple[str, tuple[str, ...]]:
    """A message for the renter and the packages to blame, from what uv printed.

    `wanted` are the normalised names that the job asked for; `python` is the full version.
    """
    text = _unwrapped(output)[:EXPLANATION_CHARACTERS_MAX]
    unknown = sorted({match["name"] for match in _UNKNOWN.finditer(text)})
    if unknown:
        names = ", ".join(unknown)
        return f"the package index of this node has no package {names}. Check the spelling.", tuple(unknown)
    without = sorted(
        {match["name"] + (match["version"] or "").rstrip(".,") for match in _NO_WHEEL.finditer(text)}
    )
    if without:
        names = ", ".join(without)
        return (
            f"{names} has no wheel for Python {python} on this platform; nodes build nothing from source. "
            "Name another version of it or of Python.",
            tuple(each.split("==")[0] for each in without),
        )
    if "unsatisfiable" not in text:
        return f"the package index of this node could not be read: {text}", ()
    blamed = tuple(
        name for name in wanted if re.search(rf"(?<![\w.-]){re.escape(name)}(?![\w-])", text, re.IGNORECASE)
    )
    return f"the packages can't be had together: {text}", blamed


def _unwrapped(output: str) -> str:
    """uv's words as one line: it breaks and indents its explanations and draws marks before them."""
    lines = (_MARKS.sub("", line) for line in output.splitlines())
    return " ".join(line for line in lines if line and not line.startswith(_NOISE))
