"""YAML as a plain tree with the line of every key, read so that text stays as it was written.

Numbers are the trap of YAML: `3.10` becomes 3.1, `0123` becomes 83, `12:30` becomes 750, `no` becomes false.
Here a plain whole number is an `int`, an empty value is None, and everything else is the text itself. What
someone else wrote may be hostile: size, depth and the number of values (which aliases multiply) are bounded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeAlias

import yaml

BYTES_MAX = 256 * 2**10
"""A job file holds two scripts of at most 64 KiB each; this leaves as much again for the rest."""
VALUES_MAX = 10_000
"""Far above any job file; aliases of aliases reach it in a blink."""
DEPTH_MAX = 16
"""The job file is four deep."""

Tree: TypeAlias = "str | int | list[Tree] | dict[str, Tree] | None"
KeyPath: TypeAlias = tuple[str | int, ...]
Positions: TypeAlias = Mapping[KeyPath, int]
"""Where each key or list item stands: its line, counted from 1."""

_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,17})")
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_TAG = "tag:yaml.org,2002:"
_PLAIN_TAGS = frozenset(
    _TAG + name
    for name in ("str", "int", "float", "bool", "null", "timestamp", "map", "seq", "merge", "value")
)


class YamlError(Exception):
    """The text is not YAML as it is understood here. `line` counts from 1, None where there is none."""

    def __init__(self, message: str, *, line: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.line = line


def read_yaml(data: bytes) -> tuple[Tree, Positions]:
    """The tree in `data` and the lines of its keys. Raises YamlError."""
    if len(data) > BYTES_MAX:
        raise YamlError(f"is larger than {BYTES_MAX // 1024} KiB; move scripts and data into the work folder")
    try:
        node = yaml.compose(data.decode("utf-8-sig"), Loader=yaml.SafeLoader)
    except UnicodeDecodeError as error:
        raise YamlError("is not UTF-8 text", line=data[: error.start].count(b"\n") + 1) from None
    except yaml.reader.ReaderError as error:
        raise YamlError(f"holds a character that YAML forbids: {error.reason}") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = " ".join(part for part in (error.context, error.problem) if part)
        raise YamlError(f"is not valid YAML: {problem}", line=mark.line + 1 if mark else None) from None
    except RecursionError:
        raise YamlError("is nested too deeply") from None
    if node is None:
        raise YamlError("is empty", line=1)
    reader = _Reader()
    return reader.tree(node, ()), reader.positions


class _Reader:
    """Turns nodes into a tree and counts what it makes."""

    def __init__(self) -> None:
        self.positions: dict[KeyPath, int] = {}
        self._values = 0

    def tree(self, node: yaml.Node, path: KeyPath) -> Tree:
        line = node.start_mark.line + 1
        self.positions.setdefault(path, line)
        self._values += 1
        if self._values > VALUES_MAX:
            raise YamlError(f"holds more than {VALUES_MAX} values, aliases counted each time", line=line)
        if len(path) > DEPTH_MAX:
            raise YamlError(f"is nested more than {DEPTH_MAX} deep", line=line)
        if node.tag not in _PLAIN_TAGS:
            raise YamlError(f"has the tag {node.tag[:60]!r}; tags are not understood here", line=line)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.tree(item, (*path, index)) for index, item in enumerate(node.value)]
        assert isinstance(node, yaml.ScalarNode)
        return _scalar(node)

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Tree]:
        tree: dict[str, Tree] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise YamlError("has a key that is not text", line=line)
            key = key_node.value
            if key in tree:
                first = self.positions[(*path, key)]
                raise YamlError(
                    f"has the key {key[:60]!r} twice: first in line {first}; remove one", line=line
                )
            self.positions[(*path, key)] = line
            tree[key] = self.tree(value_node, (*path, key))
        return tree


def _scalar(node: yaml.ScalarNode) -> str | int | None:
    text: str = node.value
    if node.style is not None:
        return text
    if text in _NULLS:
        return None
    if node.tag == _TAG + "int" and _INTEGER.fullmatch(text):
        return int(text)
    return text
