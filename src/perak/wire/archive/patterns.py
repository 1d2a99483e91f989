"""gitignore patterns, by pathspec, as git itself understands them."""

from typing import TYPE_CHECKING

from perak.wire.archive.shared import ArchiveError

if TYPE_CHECKING:
    from pathspec import RegexPattern

# The name of a group in pathspec's regular expressions, see `mentions`.
_MATCHED_FOLDER = "ps_d"


def compile_patterns(lines: list[str], base: str) -> tuple["RegexPattern", ...]:
    """Raises `ArchiveError` for a pattern that git would not know either."""
    from pathspec import GitIgnoreSpec  # Imported here: `perak --help` should not pay for it.

    try:
        return tuple(GitIgnoreSpec.from_lines(lines).patterns)
    except ValueError as error:
        raise ArchiveError(f"a pattern {base} can't be read: {error}. Correct it.") from error


def mentions(pattern: "RegexPattern", name: str) -> bool:
    """Whether a pattern means this very name.

    pathspec also lets `!src/` mention all below src/, which git does not; in its expressions the group `ps_d`
    is the slash after what the pattern itself matched. We walk from the top, so an ignored parent is never
    entered anyway.
    """
    if pattern.regex is None:
        return False
    if _MATCHED_FOLDER not in pattern.regex.groupindex:
        return pattern.regex.match(name.removesuffix("/")) is not None
    match = pattern.regex.match(name)
    return match is not None and match.end(_MATCHED_FOLDER) in (-1, len(name))
