"""The values of a job file: each checks one kind of text and says how to write it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ValidationInfo
from pydantic_core import PydanticCustomError

from perak.domain import job as domain
from perak.domain import units
from perak.domain.errors import DomainError
from perak.domain.isolation import ISOLATION

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
IMAGE_LENGTH_MAX = 512
SECRETS_MAX = 50
INPUTS_MAX = 50
INPUT_LENGTH_MAX = 2048
ALLOWED_ADDRESSES_MAX = 50
"""Each is a line that the provider can read before it lets a job out."""

KeyPath = tuple[str | int, ...]
Positions = Mapping[KeyPath, int]
"""The line (from 1) of each key, as `yamltree.read_yaml` gives it."""


def refuse(message: str, *, at: str | None = None) -> PydanticCustomError:
    """An error for people; `at` is a key below the one that is being checked."""
    return PydanticCustomError("refused", "{message}", {"message": message, "at": at})


def quantity(
    parse: Callable[[Any], int], *, least: int = 0, most: int | None = None, shown: Callable[[int], str] = str
) -> Callable[[object], int]:
    """A validator around a parser of `perak.domain.units`, with bounds."""

    def check(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise refuse("must be a number or text such as the examples in the schema")
        if isinstance(value, str) and len(value) > QUANTITY_LENGTH_MAX:
            raise refuse("is too long for a quantity")
        try:
            number = parse(value)
        except DomainError as error:
            raise refuse(error.detail) from None
        except (ArithmeticError, ValueError):
            raise refuse(f"{str(value)[:40]!r} is not a quantity that can be understood") from None
        if number < least:
            raise refuse(f"must be at least {shown(least)}")
        if most is not None and number > most:
            raise refuse(f"must be at most {shown(most)}")
        return number

    return check


def at_least(parse: Callable[[Any], int]) -> Callable[[Any], int]:
    return lambda value: parse(units.at_least(value))


def text_of(*, bytes_max: int) -> Callable[[object], str]:
    def check(value: object) -> str:
        if not isinstance(value, str):
            raise refuse("must be text; put it in quotes")
        return clean(value, bytes_max=bytes_max)

    return check


def clean(value: str, *, bytes_max: int, at: str | None = None) -> str:
    """Text that a process and a database can take: no NUL, no lone surrogate, not too long."""
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise refuse("holds half of a surrogate pair, which is not text", at=at) from None
    if size > bytes_max:
        raise refuse(f"has {size} bytes; at most {bytes_max} are allowed. Put it into a file.", at=at)
    if "\0" in value:
        raise refuse("holds a NUL character", at=at)
    return value


def script(value: object) -> str:
    if isinstance(value, list):
        raise refuse("must be one text; write several lines with `|`")
    text = text_of(bytes_max=SCRIPT_BYTES_MAX)(value)
    if not text.strip():
        raise refuse("is empty; give the command, e.g. `run: python train.py`")
    return text


def name_of(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not re.fullmatch(NAME_PATTERN, value):
        raise refuse(
            f"{str(value)[:70]!r} is not a name: use up to 63 of a-z, 0-9, '.', '_' and '-', "
            "starting with a letter or digit"
        )
    return value


def env_of(value: object) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise refuse("must be a block of names and values, such as {EPOCHS: 5}")
    if len(value) > ENV_COUNT_MAX:
        raise refuse(f"has {len(value)} variables; at most {ENV_COUNT_MAX} are allowed")
    env = {env_name(name): env_value(name, item) for name, item in value.items()}
    total = sum(len(name) + len(item.encode()) for name, item in env.items())
    if total > ENV_BYTES_MAX:
        raise refuse(f"has {total} bytes in all; at most {ENV_BYTES_MAX} are allowed")
    return env


def env_name(name: object) -> str:
    if not isinstance(name, str) or not re.fullmatch(rf"[A-Za-z_][A-Za-z0-9_]{{0,{ENV_NAME_MAX - 1}}}", name):
        raise refuse(
            f"{str(name)[:70]!r} is not a variable's name: use letters, digits and '_', no digit first",
            at=str(name),
        )
    return name


def env_value(name: str, value: object) -> str:
    """Whole numbers are taken as text; fractions and truth values have no one spelling and are refused."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise refuse(f'must be text; put it in quotes, e.g. {name}: "0.5"', at=name)
    return clean(value, bytes_max=ENV_VALUE_BYTES_MAX, at=name)


def python_or_version(value: object) -> object:
    return value if isinstance(value, Mapping | BaseModel) else {"version": value}


def python_version(value: object) -> str:
    """``3.11``. A number can't tell 3.1 from 3.10, so 3.1 is refused instead of guessed."""
    text = str(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else ""
    match = re.fullmatch(r"3\.([0-9]{1,2})", text)
    if match is None:
        raise refuse(f'{str(value)[:40]!r} is not a Python version; write it like "3.11"')
    if text == "3.1":
        raise refuse('3.1 is what YAML makes of 3.10; write it in quotes: "3.10"')
    if int(match[1]) < PYTHON_MINOR_MIN:
        raise refuse(f"Python {text} is too old; 3.{PYTHON_MINOR_MIN} and later are possible")
    return text


def package(value: object) -> str:
    """A requirement (PEP 508) by name: the node installs wheels of its package index and nothing else."""
    from packaging.requirements import InvalidRequirement, Requirement

    text = text_of(bytes_max=PACKAGE_LENGTH_MAX)(value).strip()
    try:
        requirement = Requirement(text)
    except InvalidRequirement:
        raise refuse(f"{text[:60]!r} is not a package; write it like scikit-learn or torch>=2.6") from None
    if requirement.url is not None:
        raise refuse(
            f"{text[:60]!r} names an address; only packages of the node's package index are installed"
        )
    return str(requirement)


def one_or_many(value: object) -> object:
    return [value] if isinstance(value, str | int) and not isinstance(value, bool) else value


def gpu_model(value: object) -> str:
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str) or not re.fullmatch(
        rf"[A-Za-z0-9][A-Za-z0-9 ._+-]{{0,{GPU_MODEL_LENGTH_MAX - 1}}}", text
    ):
        raise refuse(f"{str(value)[:40]!r} is not a GPU model; write it like V100 or RTX 3090")
    return text


def output(value: object) -> str:
    """A path or pattern inside the work folder, as `perak.wire.archive.pack_outputs` takes it."""
    text = text_of(bytes_max=PATH_LENGTH_MAX)(value)
    if not text.strip() or text.startswith(("/", "~", "!")) or ".." in text.split("/") or "\n" in text:
        raise refuse(
            f"{text[:60]!r} is not a path inside the work folder; write it like out/ or model.joblib"
        )
    return text


def whole(least: int, most: int) -> Callable[[object], int]:
    def check(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise refuse(f"must be a whole number from {least} to {most}")
        if not least <= value <= most:
            raise refuse(f"must be from {least} to {most}, not {str(value)[:20]}")
        return value

    return check


def retry_cause(value: object) -> str:
    if value not in domain.RETRY_CAUSES:
        raise refuse(
            f"{str(value)[:40]!r} is not a cause to run again for; they are {', '.join(domain.RETRY_CAUSES)}"
        )
    return str(value)


def agrees_with_gpu(value: int | None, info: ValidationInfo) -> int | None:
    if value == 0 and (info.data.get("gpu") or info.data.get("gpu_memory")):
        raise refuse("is 0, but a GPU is asked for; leave out one of the two")
    return value


def duration(least: int) -> BeforeValidator:
    check = quantity(units.parse_duration, least=least, shown=lambda s: f"{s} s")
    return BeforeValidator(check, json_schema_input_type=str | int)


Size = Annotated[
    int,
    BeforeValidator(
        quantity(at_least(units.parse_bytes), most=BYTES_MAX, shown=units.format_bytes),
        json_schema_input_type=str | int,
    ),
]
MemorySize = Annotated[
    int,
    BeforeValidator(
        quantity(
            at_least(units.parse_bytes), least=MEMORY_BYTES_MIN, most=BYTES_MAX, shown=units.format_bytes
        ),
        json_schema_input_type=str | int,
    ),
]
CpuMilli = Annotated[
    int,
    BeforeValidator(quantity(at_least(units.parse_cpu)), json_schema_input_type=str | int | float),
]
Price = Annotated[int, BeforeValidator(quantity(units.parse_price), json_schema_input_type=str | int | float)]
Amount = Annotated[
    int, BeforeValidator(quantity(units.parse_money), json_schema_input_type=str | int | float)
]
Script = Annotated[str, BeforeValidator(script, json_schema_input_type=str)]
Models = Annotated[
    tuple[Annotated[str, BeforeValidator(gpu_model, json_schema_input_type=str)], ...],
    BeforeValidator(one_or_many, json_schema_input_type=str | list[str]),
]
Outputs = Annotated[
    tuple[Annotated[str, BeforeValidator(output, json_schema_input_type=str)], ...],
    BeforeValidator(one_or_many, json_schema_input_type=str | list[str]),
]
Packages = Annotated[
    tuple[Annotated[str, BeforeValidator(package, json_schema_input_type=str)], ...],
    BeforeValidator(one_or_many, json_schema_input_type=str | list[str]),
]


# What a job brings in and reaches

_HOST = r"(?:\*\.)?(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_DIGEST = r"sha256:[0-9a-f]{64}"
_IMAGE = re.compile(
    r"(?P<name>[a-z0-9][a-z0-9.-]*(?::[0-9]{1,5})?(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*"
    rf"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}})?)(?:@(?P<digest>{_DIGEST}))?"
)
"""As the OCI distribution specification 1.1 writes references, with a registry's port."""


def image_or_name(value: object) -> object:
    return value if isinstance(value, Mapping | BaseModel) else {"name": value}


def image_name(value: object) -> str:
    """``[registry/]repository[:tag][@sha256:...]``."""
    if not isinstance(value, str) or len(value) > IMAGE_LENGTH_MAX or _IMAGE.fullmatch(value) is None:
        raise refuse(
            f"{str(value)[:80]!r} is not an image; write it like pytorch/pytorch:2.9 or name@sha256:..."
        )
    return value


def split_image(name: str) -> tuple[str, str | None]:
    """(name and tag, digest or None) of a checked image name."""
    match = _IMAGE.fullmatch(name)
    assert match is not None, name
    return match["name"], match["digest"]


def secrets_of(value: object) -> dict[str, str]:
    """A list of names (each an environment variable), or names with "env" or "file"."""
    if isinstance(value, str):
        value = [value]
    if isinstance(value, list | tuple):
        value = dict.fromkeys(value, "env") if all(isinstance(each, str) for each in value) else None
    if not isinstance(value, Mapping):
        raise refuse("must be a list of names, or names with env or file, such as {MODEL_TOKEN: file}")
    if len(value) > SECRETS_MAX:
        raise refuse(f"names {len(value)} secrets; at most {SECRETS_MAX} are allowed")
    for name, kind in value.items():
        env_name(name)
        if kind not in domain.SECRET_KINDS:
            raise refuse(f"is {str(kind)[:40]!r}; a secret is given as env or file", at=str(name))
    return dict(value)


def secret_name(value: object) -> str:
    return env_name(value)


def inputs_of(value: object) -> dict[str, dict[str, object]]:
    """Places below the work folder, and where their data comes from: a source, or a block of it."""
    if not isinstance(value, Mapping):
        raise refuse("must be a block of folders and sources, such as {data/: https://...@sha256:...}")
    if len(value) > INPUTS_MAX:
        raise refuse(f"has {len(value)} entries; at most {INPUTS_MAX} are allowed")
    places: set[str] = set()
    found: dict[str, dict[str, object]] = {}
    for path, said in value.items():
        block = said if isinstance(said, Mapping) else {"source": said}
        if unknown := [each for each in block if each not in ("source", "credentials")]:
            raise refuse(
                f"has no {str(unknown[0])[:40]!r}; its keys are source and credentials", at=str(path)
            )
        source = block.get("source")
        place = _input_path(path)
        if near := next(
            (
                each
                for each in places
                if f"{each}/".startswith(f"{place}/") or f"{place}/".startswith(f"{each}/")
            ),
            None,
        ):
            raise refuse(f"lies in the place of another input, {near}", at=path)
        places.add(place)
        if not isinstance(source, str) or len(source) > INPUT_LENGTH_MAX or parse_input(source) is None:
            raise refuse(
                f"{str(source)[:80]!r} is not a source; write it like https://host/file@sha256:..., "
                "s3://bucket/key or job:job-...",
                at=str(path),
            )
        credentials = block.get("credentials")
        if credentials is not None and not source.startswith("s3://"):
            raise refuse("has credentials, which are for s3:// alone", at=str(path))
        found[path] = {
            "source": source,
            "credentials": None if credentials is None else secret_name(credentials),
        }
    return found


def _input_path(path: object) -> str:
    """The place without its last slash."""
    parts = path.removesuffix("/").split("/") if isinstance(path, str) else [""]
    if any(part in ("", ".") for part in parts):
        raise refuse("must name a place below the work folder, such as data/", at=str(path)[:80])
    return output(path).removesuffix("/")


_INPUT = re.compile(
    rf"(?P<url>https://[^\s@]+|s3://[a-z0-9][a-z0-9.-]+/[^\s@]+|job:[^\s@/]+(?:@[^\s@/]+)?(?:/[^\s@]+)?)(?:@(?P<digest>{_DIGEST}))?"
)


def parse_input(source: str) -> tuple[str, str | None] | None:
    """(address, digest or None) of an input's source; None: it isn't one. https must carry a digest."""
    match = _INPUT.fullmatch(source)
    if match is None or (match["url"].startswith("https:") and match["digest"] is None):
        return None
    return match["url"], match["digest"]


def allowed_address(value: object) -> str:
    """``host:port`` or ``*.host:port``."""
    text = value.lower() if isinstance(value, str) else ""
    host, _, port = text.rpartition(":")
    if not re.fullmatch(_HOST, host) or len(host) > 253 or not port.isdigit() or not 0 < int(port) < 65536:
        raise refuse(f"{str(value)[:80]!r} is not an address; write it like models.example.org:443")
    return f"{host}:{int(port)}"


def isolation_of(value: object) -> str:
    if value not in ISOLATION:
        raise refuse(
            f"{str(value)[:40]!r} is no isolation; from least to most they are {', '.join(ISOLATION)}"
        )
    return str(value)


def recipient(value: object) -> str:
    """An age recipient (``age1...``); ``true`` stands for the renter's own, which the client puts in."""
    if value in (True, "true"):
        return "own"
    if value == "own" or (isinstance(value, str) and re.fullmatch(r"age1[02-9ac-hj-np-z]{58}", value)):
        return str(value)
    raise refuse("must be true, or an age recipient (age1...) to encrypt to")


Allowed = Annotated[
    tuple[Annotated[str, BeforeValidator(allowed_address, json_schema_input_type=str)], ...],
    BeforeValidator(one_or_many, json_schema_input_type=str | list[str]),
]
