"""The job file: what it may say, how it is checked, and its JSON Schema for editors.

The client reads the YAML, where every error names file, line and key; the exchange checks the same tree again
as JSON. ``python -m perak.wire.jobfile`` writes the schema that is shipped beside this module.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypedDict

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from perak.domain import job as domain
from perak.domain import units
from perak.domain.errors import DomainError, InvalidInput, NotSupportedYet

NAME_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,62}$"
SCRIPT_BYTES_MAX = 64 * 2**10
"""Linux passes at most 128 KiB in one argument; longer scripts belong in the work folder."""
ENV_COUNT_MAX = 200
ENV_NAME_MAX = 128
ENV_VALUE_BYTES_MAX = 32 * 2**10
ENV_BYTES_MAX = 256 * 2**10
"""Names and values together; Linux allows about 2 MiB for arguments and environment."""
PACKAGES_MAX = 200
PACKAGE_LENGTH_MAX = 200
OUTPUTS_MAX = 50
PATH_LENGTH_MAX = 1024
GPU_MODELS_MAX = 20
GPU_MODEL_LENGTH_MAX = 64
GPU_COUNT_MAX = 64
"""No node has more; several nodes are not one offer."""
QUANTITY_LENGTH_MAX = 40
MEMORY_BYTES_MIN = 16 * 2**20
"""An interpreter does not start in less."""
BYTES_MAX = 2**50
ATTEMPTS_MAX = 20
PYTHON_MINOR_MIN = 8
ERRORS_SHOWN_MAX = 20
"""More at once help nobody."""

NOT_BUILT_YET = frozenset(
    {
        "image",
        "secrets",
        "inputs",
        "network",
        "checkpoint",
        "start",
        "prefer",
        "placement",
        "interruptible",
        "encrypt",
        "limits.max_carbon",
    }
)
"""Keys of the design that this version refuses by name rather than ignore."""

SCHEMA_FILE = Path(__file__).with_name("jobfile.schema.json")
SCHEMA_ID = "urn:perak:jobfile:1"

KeyPath = tuple[str | int, ...]
Positions = Mapping[KeyPath, int]
"""The line (from 1) of each key, as `yamltree.read_yaml` gives it."""


class FieldError(TypedDict):
    """One thing that is wrong, and where."""

    file: str | None
    line: int | None
    key: str
    message: str


class JobFileError(InvalidInput):
    """The job file can't be understood; `errors` names every place, `detail` is all of them as text."""

    code = "invalid_job"

    def __init__(self, errors: list[FieldError]) -> None:
        super().__init__("\n".join(_as_line(error) for error in errors))
        self.errors = errors


class JobFileNotSupportedYet(JobFileError, NotSupportedYet):
    """All that is wrong is that it asks for what is not built yet."""

    code = "not_supported_yet"


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
        raise JobFileError([_error(str(path), None, "", reason)]) from None
    try:
        tree, positions = yamltree.read_yaml(data)
    except yamltree.YamlError as error:
        raise JobFileError([_error(str(path), error.line, "", error.message)]) from None
    if not isinstance(tree, dict):
        raise JobFileError([_error(str(path), 1, "", f"must be a block of keys, such as {_EXAMPLE}")])
    spec = parse_job(tree, workdir_digest=None, positions=positions, file=str(path))
    named = tree.get("workdir")
    workdir = (path.parent / str(named)).absolute() if named is not None else None
    if workdir is not None and not workdir.is_dir():
        reason = f"there is no folder {str(named)!r} beside the job file"
        raise JobFileError([_error(str(path), positions.get(("workdir",)), "workdir", reason)])
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
        raise JobFileError([_error(file, None, "", f"must be a block of keys, such as {_EXAMPLE}")])
    where = _Where(file=file, positions=positions or {})
    unbuilt, rest = _split_unbuilt(tree, where)
    try:
        model = _Job.model_validate(rest)
    except ValidationError as error:
        wrong = [_field_error(details, where) for details in error.errors(include_url=False)]
        raise JobFileError(sorted(unbuilt + wrong, key=_by_line)[:ERRORS_SHOWN_MAX]) from None
    if unbuilt:
        raise JobFileNotSupportedYet(unbuilt)
    return _spec(model, workdir_digest)


def spec_to_tree(spec: domain.JobSpec) -> dict[str, Any]:
    """The job as a tree that says everything, defaults included; `parse_job` of it gives the same job."""
    resources = spec.resources
    tree: dict[str, Any] = {
        "name": spec.name,
        "workdir": spec.workdir_digest,
        "setup": spec.setup,
        "run": spec.run,
        "env": dict(spec.env),
        "python": spec.python and {"version": spec.python.version, "packages": list(spec.python.packages)},
        "resources": {
            "gpu": list(resources.gpu_models),
            "gpu_count": resources.gpu_count,
            "gpu_memory": _bytes_text(resources.gpu_memory_bytes),
            "cpu": _cpu_text(resources.cpu_milli),
            "memory": _bytes_text(resources.memory_bytes),
            "disk": _bytes_text(resources.disk_bytes),
            "shm_size": _bytes_text(resources.shm_bytes),
        },
        "outputs": list(spec.outputs),
        "limits": {
            "max_price": _optional(spec.limits.max_price, lambda micros: f"{units.format_money(micros)}/h"),
            "max_cost": _optional(spec.limits.max_cost, units.format_money),
            "max_duration": _optional(spec.limits.max_duration_seconds, _duration_text),
        },
        "disconnect_grace": _duration_text(spec.disconnect_grace_seconds),
        "retry": {"max_attempts": spec.retry.max_attempts, "on": list(spec.retry.on)},
    }
    if not resources.gpu_count:
        for key in ("gpu", "gpu_count", "gpu_memory"):
            del tree["resources"][key]
    return _without_empty(tree)


def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of the job file."""
    schema = _Job.model_json_schema(mode="validation", by_alias=True)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["$id"] = SCHEMA_ID
    schema["title"] = "Perak job file"
    return schema


# Values: each checks one kind of text and says how to write it


def _refuse(message: str, *, at: str | None = None) -> PydanticCustomError:
    """An error for people; `at` is a key below the one that is being checked."""
    return PydanticCustomError("refused", "{message}", {"message": message, "at": at})


def _quantity(
    parse: Callable[[Any], int], *, least: int = 0, most: int | None = None, shown: Callable[[int], str] = str
) -> Callable[[object], int]:
    """A validator around a parser of `perak.domain.units`, with bounds."""

    def check(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise _refuse("must be a number or text such as the examples in the schema")
        if isinstance(value, str) and len(value) > QUANTITY_LENGTH_MAX:
            raise _refuse("is too long for a quantity")
        try:
            number = parse(value)
        except DomainError as error:
            raise _refuse(error.detail) from None
        except (ArithmeticError, ValueError):
            raise _refuse(f"{str(value)[:40]!r} is not a quantity that can be understood") from None
        if number < least:
            raise _refuse(f"must be at least {shown(least)}")
        if most is not None and number > most:
            raise _refuse(f"must be at most {shown(most)}")
        return number

    return check


def _at_least(parse: Callable[[Any], int]) -> Callable[[Any], int]:
    return lambda value: parse(units.at_least(value))


def _text(*, bytes_max: int) -> Callable[[object], str]:
    def check(value: object) -> str:
        if not isinstance(value, str):
            raise _refuse("must be text; put it in quotes")
        return _clean(value, bytes_max=bytes_max)

    return check


def _clean(value: str, *, bytes_max: int, at: str | None = None) -> str:
    """Text that a process and a database can take: no NUL, no lone surrogate, not too long."""
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise _refuse("holds half of a surrogate pair, which is not text", at=at) from None
    if size > bytes_max:
        raise _refuse(f"has {size} bytes; at most {bytes_max} are allowed. Put it into a file.", at=at)
    if "\0" in value:
        raise _refuse("holds a NUL character", at=at)
    return value


def _script(value: object) -> str:
    if isinstance(value, list):
        raise _refuse("must be one text; write several lines with `|`")
    text = _text(bytes_max=SCRIPT_BYTES_MAX)(value)
    if not text.strip():
        raise _refuse("is empty; give the command, e.g. `run: python train.py`")
    return text


def _name(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not re.fullmatch(NAME_PATTERN, value):
        raise _refuse(
            f"{str(value)[:70]!r} is not a name: use up to 63 of a-z, 0-9, '.', '_' and '-', "
            "starting with a letter or digit"
        )
    return value


def _env(value: object) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise _refuse("must be a block of names and values, such as {EPOCHS: 5}")
    if len(value) > ENV_COUNT_MAX:
        raise _refuse(f"has {len(value)} variables; at most {ENV_COUNT_MAX} are allowed")
    env = {_env_name(name): _env_value(name, item) for name, item in value.items()}
    total = sum(len(name) + len(item.encode()) for name, item in env.items())
    if total > ENV_BYTES_MAX:
        raise _refuse(f"has {total} bytes in all; at most {ENV_BYTES_MAX} are allowed")
    return env


def _env_name(name: object) -> str:
    if not isinstance(name, str) or not re.fullmatch(rf"[A-Za-z_][A-Za-z0-9_]{{0,{ENV_NAME_MAX - 1}}}", name):
        raise _refuse(
            f"{str(name)[:70]!r} is not a variable's name: use letters, digits and '_', no digit first",
            at=str(name),
        )
    return name


def _env_value(name: str, value: object) -> str:
    """Whole numbers are taken as text; fractions and truth values have no one spelling and are refused."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise _refuse(f'must be text; put it in quotes, e.g. {name}: "0.5"', at=name)
    return _clean(value, bytes_max=ENV_VALUE_BYTES_MAX, at=name)


def _python_or_version(value: object) -> object:
    return value if isinstance(value, Mapping | _Python) else {"version": value}


def _python_version(value: object) -> str:
    """``3.11``. A number can't tell 3.1 from 3.10, so 3.1 is refused instead of guessed."""
    text = str(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else ""
    match = re.fullmatch(r"3\.([0-9]{1,2})", text)
    if match is None:
        raise _refuse(f'{str(value)[:40]!r} is not a Python version; write it like "3.11"')
    if text == "3.1":
        raise _refuse('3.1 is what YAML makes of 3.10; write it in quotes: "3.10"')
    if int(match[1]) < PYTHON_MINOR_MIN:
        raise _refuse(f"Python {text} is too old; 3.{PYTHON_MINOR_MIN} and later are possible")
    return text


def _package(value: object) -> str:
    """A requirement (PEP 508) by name: the node installs wheels of its package index and nothing else."""
    from packaging.requirements import InvalidRequirement, Requirement

    text = _text(bytes_max=PACKAGE_LENGTH_MAX)(value).strip()
    try:
        requirement = Requirement(text)
    except InvalidRequirement:
        raise _refuse(f"{text[:60]!r} is not a package; write it like scikit-learn or torch>=2.6") from None
    if requirement.url is not None:
        raise _refuse(
            f"{text[:60]!r} names an address; only packages of the node's package index are installed"
        )
    return str(requirement)


def _one_or_many(value: object) -> object:
    return [value] if isinstance(value, str | int) and not isinstance(value, bool) else value


def _gpu_model(value: object) -> str:
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str) or not re.fullmatch(
        rf"[A-Za-z0-9][A-Za-z0-9 ._+-]{{0,{GPU_MODEL_LENGTH_MAX - 1}}}", text
    ):
        raise _refuse(f"{str(value)[:40]!r} is not a GPU model; write it like V100 or RTX 3090")
    return text


def _output(value: object) -> str:
    """A path or pattern inside the work folder, as `perak.wire.archive.pack_outputs` takes it."""
    text = _text(bytes_max=PATH_LENGTH_MAX)(value)
    if not text.strip() or text.startswith(("/", "~", "!")) or ".." in text.split("/") or "\n" in text:
        raise _refuse(
            f"{text[:60]!r} is not a path inside the work folder; write it like out/ or model.joblib"
        )
    return text


def _whole(least: int, most: int) -> Callable[[object], int]:
    def check(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise _refuse(f"must be a whole number from {least} to {most}")
        if not least <= value <= most:
            raise _refuse(f"must be from {least} to {most}, not {str(value)[:20]}")
        return value

    return check


def _cause(value: object) -> str:
    if value not in domain.RETRY_CAUSES:
        raise _refuse(
            f"{str(value)[:40]!r} is not a cause to run again for; they are {', '.join(domain.RETRY_CAUSES)}"
        )
    return str(value)


def _agrees_with_gpu(value: int | None, info: ValidationInfo) -> int | None:
    if value == 0 and (info.data.get("gpu") or info.data.get("gpu_memory")):
        raise _refuse("is 0, but a GPU is asked for; leave out one of the two")
    return value


def _duration(least: int) -> BeforeValidator:
    check = _quantity(units.parse_duration, least=least, shown=lambda s: f"{s} s")
    return BeforeValidator(check, json_schema_input_type=str | int)


_Size = Annotated[
    int,
    BeforeValidator(
        _quantity(_at_least(units.parse_bytes), most=BYTES_MAX, shown=units.format_bytes),
        json_schema_input_type=str | int,
    ),
]
_MemorySize = Annotated[
    int,
    BeforeValidator(
        _quantity(
            _at_least(units.parse_bytes), least=MEMORY_BYTES_MIN, most=BYTES_MAX, shown=units.format_bytes
        ),
        json_schema_input_type=str | int,
    ),
]
_CpuMilli = Annotated[
    int,
    BeforeValidator(_quantity(_at_least(units.parse_cpu)), json_schema_input_type=str | int | float),
]
_Price = Annotated[
    int, BeforeValidator(_quantity(units.parse_price), json_schema_input_type=str | int | float)
]
_Amount = Annotated[
    int, BeforeValidator(_quantity(units.parse_money), json_schema_input_type=str | int | float)
]
_Script = Annotated[str, BeforeValidator(_script, json_schema_input_type=str)]
_Models = Annotated[
    tuple[Annotated[str, BeforeValidator(_gpu_model, json_schema_input_type=str)], ...],
    BeforeValidator(_one_or_many, json_schema_input_type=str | list[str]),
]
_Outputs = Annotated[
    tuple[Annotated[str, BeforeValidator(_output, json_schema_input_type=str)], ...],
    BeforeValidator(_one_or_many, json_schema_input_type=str | list[str]),
]
_Packages = Annotated[
    tuple[Annotated[str, BeforeValidator(_package, json_schema_input_type=str)], ...],
    BeforeValidator(_one_or_many, json_schema_input_type=str | list[str]),
]


# The file: every key with its meaning, from which the schema is made


class _Block(BaseModel):
    # Built when the first job is checked: all but a few commands import this module and check none.
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class _Python(_Block):
    version: Annotated[str, BeforeValidator(_python_version, json_schema_input_type=str | float)] = Field(
        description="Major and minor version, in quotes.", examples=["3.11"]
    )
    packages: _Packages = Field(
        default=(),
        max_length=PACKAGES_MAX,
        description="Packages by name and version, from the node's package index; wheels only.",
        examples=[["scikit-learn", "torch>=2.6"]],
    )


class _Resources(_Block):
    gpu: _Models | None = Field(
        default=None,
        min_length=1,
        max_length=GPU_MODELS_MAX,
        description="GPU model, or several of which any will do; any model where only gpu_count is given.",
        examples=["V100", ["V100", "A10"]],
    )
    gpu_memory: _Size | None = Field(
        default=None, description="Memory that each GPU has at least.", examples=["16GB.."]
    )
    gpu_count: Annotated[
        Annotated[int, BeforeValidator(_whole(0, GPU_COUNT_MAX), json_schema_input_type=int)] | None,
        AfterValidator(_agrees_with_gpu),
    ] = Field(default=None, description="GPUs for the job; 1 if gpu or gpu_memory is given, else 0.")
    cpu: _CpuMilli | None = Field(
        default=None,
        description="CPU cores. 0.25 by default, 2 for each GPU.",
        examples=[4, 0.5, "250m"],
    )
    memory: _MemorySize | None = Field(
        default=None,
        description="Main memory. 256 MiB by default, 8 GB for each GPU.",
        examples=["16GB"],
    )
    disk: _Size | None = Field(default=None, description="Scratch space. 1 GB by default.", examples=["20GB"])
    shm_size: _Size | None = Field(
        default=None, description="Size of /dev/shm. 64 MiB by default.", examples=["8GB"]
    )


class _Limits(_Block):
    max_price: _Price | None = Field(
        default=None,
        description="The most to pay for a device-hour (a GPU, or a core of a CPU job).",
        examples=["0.40/h"],
    )
    max_cost: _Amount | None = Field(
        default=None, description="The most that the job may cost; held from the start.", examples=["5.00"]
    )
    max_duration: Annotated[int, _duration(1)] | None = Field(
        default=None, description="A run is ended after this time; 24h by default.", examples=["2h", "1h30m"]
    )


class _Retry(_Block):
    max_attempts: Annotated[int, BeforeValidator(_whole(1, ATTEMPTS_MAX), json_schema_input_type=int)] = (
        Field(default=domain.MAX_ATTEMPTS_DEFAULT, description="Runs in all.")
    )
    on: Annotated[
        tuple[Annotated[str, BeforeValidator(_cause, json_schema_input_type=str)], ...],
        BeforeValidator(_one_or_many, json_schema_input_type=str | list[str]),
    ] = Field(
        default=domain.RETRY_CAUSES,
        max_length=len(domain.RETRY_CAUSES),
        description="What the job is run again for. Its own failure is never one of them.",
        examples=[list(domain.RETRY_CAUSES)],
    )


class _Job(_Block):
    """What a job is and what it needs. Only `name` and `run` are required."""

    name: Annotated[str, BeforeValidator(_name, json_schema_input_type=str)] = Field(
        description="The job's name, for people; it need not be unique.", pattern=NAME_PATTERN
    )
    workdir: (
        Annotated[str, BeforeValidator(_text(bytes_max=PATH_LENGTH_MAX), json_schema_input_type=str)] | None
    ) = Field(
        default=None,
        description="Folder to send along, relative to this file. .gitignore and .perakignore are respected.",
        examples=["."],
    )
    setup: _Script | None = Field(default=None, description="Shell script that runs first, offline.")
    run: _Script = Field(description="Shell script that is the job.", examples=["python train.py"])
    env: Annotated[
        dict[str, str], BeforeValidator(_env, json_schema_input_type=dict[str, str | int] | None)
    ] = Field(default_factory=dict, description="Environment variables.", examples=[{"EPOCHS": "5"}])
    python: (
        Annotated[_Python, BeforeValidator(_python_or_version, json_schema_input_type=_Python | str | float)]
        | None
    ) = Field(default=None, description="A Python and packages, or just its version.")
    resources: _Resources = Field(default_factory=_Resources, description="What one run needs.")
    nodes: Annotated[int, BeforeValidator(_whole(1, 1), json_schema_input_type=int)] = Field(
        default=1, le=1, description="One; more are not supported yet."
    )
    outputs: _Outputs = Field(
        default=(),
        max_length=OUTPUTS_MAX,
        description="Files and folders to keep, relative to the work folder.",
        examples=[["out/"]],
    )
    limits: _Limits = Field(default_factory=_Limits, description="What the renter allows.")
    disconnect_grace: Annotated[int, _duration(0)] = Field(
        default=domain.DISCONNECT_GRACE_SECONDS_DEFAULT,
        description="How long a silent node may stay away before the job is run elsewhere; 5m by default.",
        examples=["5m", 0],
    )
    retry: _Retry = Field(default_factory=_Retry, description="How often, and for what, to run again.")


_BLOCKS: dict[KeyPath, type[_Block]] = {
    (): _Job,
    ("python",): _Python,
    ("resources",): _Resources,
    ("limits",): _Limits,
    ("retry",): _Retry,
}
_EXAMPLE = "`name: hello` and `run: echo hello`"


def _spec(model: _Job, workdir_digest: str | None) -> domain.JobSpec:
    return domain.JobSpec(
        name=model.name,
        run=model.run,
        setup=model.setup,
        env=dict(model.env),
        python=_python(model.python),
        workdir_digest=workdir_digest,
        resources=_resources(model.resources),
        outputs=model.outputs,
        limits=domain.Limits(
            max_price=model.limits.max_price,
            max_cost=model.limits.max_cost,
            max_duration_seconds=model.limits.max_duration,
        ),
        disconnect_grace_seconds=model.disconnect_grace,
        retry=domain.Retry(max_attempts=model.retry.max_attempts, on=model.retry.on),
    )


def _python(block: _Python | None) -> domain.PythonEnvironment | None:
    if block is None:
        return None
    return domain.PythonEnvironment(version=block.version, packages=block.packages)


def _resources(block: _Resources) -> domain.Resources:
    named_gpu = bool(block.gpu) or block.gpu_memory is not None
    gpus = block.gpu_count if block.gpu_count is not None else int(named_gpu)
    cpu_default = gpus * domain.GPU_JOB_CPU_MILLI_DEFAULT or domain.CPU_MILLI_DEFAULT
    memory_default = gpus * domain.GPU_JOB_MEMORY_BYTES_DEFAULT or domain.MEMORY_BYTES_DEFAULT
    return domain.Resources(
        gpu_models=(block.gpu or ()) if gpus else (),
        gpu_count=gpus,
        gpu_memory_bytes=(block.gpu_memory or 0) if gpus else 0,
        cpu_milli=block.cpu if block.cpu is not None else cpu_default,
        memory_bytes=block.memory if block.memory is not None else memory_default,
        disk_bytes=block.disk if block.disk is not None else domain.DISK_BYTES_DEFAULT,
        shm_bytes=block.shm_size if block.shm_size is not None else domain.SHM_BYTES_DEFAULT,
    )


# Errors: from pydantic's places to file, line and key


@dataclass(frozen=True, slots=True, kw_only=True)
class _Where:
    file: str | None
    positions: Positions

    def error(self, path: KeyPath, message: str) -> FieldError:
        """An error at `path`, or at the nearest enclosing key whose line is known."""
        known = next((path[:n] for n in range(len(path), -1, -1) if path[:n] in self.positions), None)
        line = self.positions[known] if known is not None else None
        return _error(self.file, line, _dotted(path), message)


def _error(file: str | None, line: int | None, key: str, message: str) -> FieldError:
    return FieldError(file=file, line=line, key=key, message=message)


def _by_line(error: FieldError) -> int:
    return error["line"] or 0


def _as_line(error: FieldError) -> str:
    """``job.yaml:7: resources.gpus: there is no such key; did you mean gpu?``"""
    place = error["file"] or ""
    if place and error["line"] is not None:
        place = f"{place}:{error['line']}"
    return ": ".join(part for part in (place, error["key"], error["message"]) if part)


def _dotted(path: KeyPath) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part[:80]}" for part in path)
    return text.removeprefix(".")


def _split_unbuilt(tree: Mapping[str, Any], where: _Where) -> tuple[list[FieldError], dict[str, Any]]:
    """The keys that are not built yet, as errors, and the tree without them and without empty values."""
    errors: list[FieldError] = []

    def keep(block: Mapping[str, Any], path: KeyPath) -> dict[str, Any]:
        kept = {}
        for key, value in block.items():
            if _dotted((*path, str(key))) in NOT_BUILT_YET:
                errors.append(where.error((*path, key), "is not supported yet; leave it out for now"))
            elif value is not None or path == ("env",):
                kept[key] = value
        return kept

    rest = keep(tree, ())
    if isinstance(rest.get("nodes"), int) and rest["nodes"] > 1:
        errors.append(where.error(("nodes",), "more than one node is not supported yet; leave it out"))
        del rest["nodes"]
    for name in ("limits", "resources", "python", "retry"):
        if isinstance(rest.get(name), Mapping):
            rest[name] = keep(rest[name], (name,))
    return errors, rest


def _field_error(details: ErrorDetails, where: _Where) -> FieldError:
    path: KeyPath = details["loc"]
    kind = details["type"]
    if kind == "extra_forbidden":
        return where.error(path, _unknown_key(path))
    if kind == "missing":
        return where.error(path, "is missing; a job file needs at least " + _EXAMPLE)
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        keys = ", ".join(_BLOCKS[path].model_fields) if path in _BLOCKS else "names and values"
        return where.error(path, f"must be a block of keys: {keys}")
    if kind in ("tuple_type", "list_type"):
        return where.error(path, "must be a list, such as [a, b]")
    below = details.get("ctx", {}).get("at")
    return where.error((*path, below) if below is not None else path, details["msg"])


def _unknown_key(path: KeyPath) -> str:
    """Says which key was probably meant: one of the same block, or the same word in another."""
    key = str(path[-1])[:80]
    beside = list(_BLOCKS[path[:-1]].model_fields)
    everywhere = {
        name: _dotted((*block, name)) for block, model in _BLOCKS.items() for name in model.model_fields
    }
    if key in everywhere:
        return f"there is no such key here; did you mean {everywhere[key]}?"
    if near := difflib.get_close_matches(key.lower(), beside, n=1, cutoff=0.6):
        return f"there is no such key; did you mean {near[0]}?"
    if near := difflib.get_close_matches(key.lower(), everywhere, n=1, cutoff=0.75):
        return f"there is no such key here; did you mean {everywhere[near[0]]}?"
    return f"there is no such key; the keys here are {', '.join(beside)}"


# Quantities as text, exactly


def _bytes_text(size: int) -> str | int:
    for unit, factor in (("GB", 10**9), ("GiB", 2**30), ("MB", 10**6), ("MiB", 2**20)):
        if size and size % factor == 0:
            return f"{size // factor}{unit}"
    return size


def _cpu_text(milli: int) -> str | int:
    return milli // 1000 if milli % 1000 == 0 else f"{milli}m"


def _duration_text(seconds: int) -> str:
    for unit, factor in (("h", 3600), ("m", 60)):
        if seconds and seconds % factor == 0:
            return f"{seconds // factor}{unit}"
    return f"{seconds}s"


def _optional(value: int | None, show: Callable[[int], str]) -> str | None:
    return None if value is None else show(value)


def _without_empty(tree: dict[str, Any]) -> dict[str, Any]:
    """Leave out what is None or empty, here and one level down; only `retry.on: []` says something."""
    kept = {}
    for key, value in tree.items():
        if isinstance(value, dict) and key not in ("env", "retry"):
            value = {k: v for k, v in value.items() if v is not None and v != []}
        if value is not None and value not in ([], {}):
            kept[key] = value
    return kept


def main() -> None:
    """Write the schema beside this module."""
    SCHEMA_FILE.write_text(json.dumps(json_schema(), indent=2) + "\n")


if __name__ == "__main__":
    main()
