"""The job file: what it may say, how it is checked, and its JSON Schema for editors.

The client reads the YAML, where every error names file, line and key; the exchange checks the same tree again
as JSON. ``python -m perak.wire.jobfile`` writes the schema that is shipped beside this module.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from perak.domain import job as domain
from perak.wire.jobfile.blocks import EXAMPLE, Job, spec_of
from perak.wire.jobfile.errors import (
    FieldError,
    JobFileError,
    JobFileNotSupportedYet,
    Where,
    as_field_error,
    by_line,
    dotted,
    field_error,
)  # fmt: skip
from perak.wire.jobfile.tree import spec_to_tree
from perak.wire.jobfile.values import KeyPath, Positions

__all__ = [
    "NOT_BUILT_YET", "SCHEMA_FILE", "FieldError", "JobFile", "JobFileError", "JobFileNotSupportedYet",
    "json_schema", "load_job_file", "parse_job", "spec_to_tree",
]  # fmt: skip

ERRORS_SHOWN_MAX = 20
"""More at once help nobody."""

NOT_BUILT_YET = frozenset({"checkpoint", "interruptible"})
"""Keys of the design that this version refuses by name rather than ignore."""

SCHEMA_FILE = Path(__file__).with_name("schema.json")
SCHEMA_ID = "urn:perak:jobfile:1"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFile:
    """A checked job file. `tree` goes to the exchange; `workdir` is the folder to pack, absolute, if any."""

    tree: dict[str, Any]
    path: Path
    workdir: Path | None
    spec: domain.JobSpec
    positions: Positions = field(default_factory=dict)


def load_job_file(path: Path | str) -> JobFile:
    """Read and check a job file. Raises JobFileError with file, line and key of all that is wrong."""
    from perak.wire import yamltree  # the exchange never reads YAML

    path = Path(path)
    try:
        with path.open("rb") as stream:
            data = stream.read(yamltree.BYTES_MAX + 1)
    except OSError as error:
        reason = f"can't be read: {error.strerror}; name the job file, e.g. `perak run job.yaml`"
        raise JobFileError([field_error(str(path), None, "", reason)]) from None
    try:
        tree, positions = yamltree.read_yaml(data)
    except yamltree.YamlError as error:
        raise JobFileError([field_error(str(path), error.line, "", error.message)]) from None
    if not isinstance(tree, dict):
        raise JobFileError([field_error(str(path), 1, "", f"must be a block of keys, such as {EXAMPLE}")])
    spec = parse_job(tree, workdir_digest=None, positions=positions, file=str(path))
    named = tree.get("workdir")
    workdir = (path.parent / str(named)).absolute() if named is not None else None
    if workdir is not None and not workdir.is_dir():
        reason = f"there is no folder {str(named)!r} beside the job file"
        raise JobFileError([field_error(str(path), positions.get(("workdir",)), "workdir", reason)])
    return JobFile(tree=tree, path=path, workdir=workdir, spec=spec, positions=positions)


def parse_job(
    tree: Mapping[str, Any],
    *,
    workdir_digest: str | None,
    positions: Positions | None = None,
    file: str | None = None,
) -> domain.JobSpec:
    """The job that `tree` describes. `workdir_digest` names the packed work folder, if there is one.

    Raises JobFileError, or JobFileNotSupportedYet if nothing else is wrong.
    """
    if not isinstance(tree, Mapping):
        raise JobFileError([field_error(file, None, "", f"must be a block of keys, such as {EXAMPLE}")])
    where = Where(file=file, positions=positions or {})
    unbuilt, rest = _split_unbuilt(tree, where)
    wrong = _wrong_together(rest, where)
    try:
        model = Job.model_validate(rest)
    except ValidationError as error:
        wrong += [as_field_error(details, where) for details in error.errors(include_url=False)]
    if wrong:
        raise JobFileError(sorted(unbuilt + wrong, key=by_line)[:ERRORS_SHOWN_MAX])
    if unbuilt:
        raise JobFileNotSupportedYet(unbuilt)
    return spec_of(model, workdir_digest)


def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of the job file."""
    schema = Job.model_json_schema(mode="validation", by_alias=True)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["$id"] = SCHEMA_ID
    schema["title"] = "Perak job file"
    return schema


def _wrong_together(tree: Mapping[str, Any], where: Where) -> list[FieldError]:
    """Keys that are missing or too many beside others."""
    errors = []
    if "run" not in tree and "image" not in tree:
        errors.append(where.error(("run",), f"is missing; a job file needs at least {EXAMPLE}"))
    elif "run" not in tree and "setup" in tree:
        errors.append(
            where.error(("run",), "is missing: `setup` prepares for a script, not for an image's program")
        )
    secrets, env = tree.get("secrets"), tree.get("env")
    if isinstance(secrets, Iterable) and isinstance(env, Mapping):
        named = [secrets] if isinstance(secrets, str) else secrets
        twice = sorted(name for name in named if isinstance(name, str) and name in env)
        errors += [where.error(("secrets", name), "is named in env, too; leave one out") for name in twice]
    if "python" in tree and "image" in tree:
        errors.append(
            where.error(("python",), "is the node's, and an image brings its own; leave one of them out")
        )
    return errors + _wrong_in_window(tree, where)


def _wrong_in_window(tree: Mapping[str, Any], where: Where) -> list[FieldError]:
    """A window says when the job begins and for how long it may run."""
    if "reserve" not in tree:
        return []
    errors, limits = [], tree.get("limits")
    if "start" in tree:
        errors.append(
            where.error(("start",), "is for a job that may wait, and `reserve` says when it begins")
        )
    if isinstance(limits, Mapping) and "max_duration" in limits:
        message = "is the window's length, which `reserve` says; leave it out"
        errors.append(where.error(("limits", "max_duration"), message))
    return errors


def _split_unbuilt(tree: Mapping[str, Any], where: Where) -> tuple[list[FieldError], dict[str, Any]]:
    """The keys that are not built yet, as errors, and the tree without them and without empty values."""
    errors: list[FieldError] = []

    def keep(block: Mapping[str, Any], path: KeyPath) -> dict[str, Any]:
        kept = {}
        for key, value in block.items():
            if dotted((*path, str(key))) in NOT_BUILT_YET:
                errors.append(where.error((*path, key), "is not supported yet; leave it out for now"))
            elif value is not None or path == ("env",):
                kept[key] = value
        return kept

    rest = keep(tree, ())
    if isinstance(rest.get("nodes"), int) and rest["nodes"] > 1:
        errors.append(where.error(("nodes",), "more than one node is not supported yet; leave it out"))
        del rest["nodes"]
    for name in (
        "limits",
        "resources",
        "python",
        "retry",
        "placement",
        "image",
        "network",
        "prefer",
        "start",
        "reserve",
    ):
        if isinstance(rest.get(name), Mapping):
            rest[name] = keep(rest[name], (name,))
    return errors, rest
