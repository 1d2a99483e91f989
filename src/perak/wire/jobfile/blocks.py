"""The blocks of a job file: every key with its meaning, from which schema and job are made."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from perak.domain import job as domain
from perak.wire.jobfile import reserve as windows
from perak.wire.jobfile import wishes
from perak.wire.jobfile.block import Block
from perak.wire.jobfile.values import (
    ALLOWED_ADDRESSES_MAX,
    ATTEMPTS_MAX,
    GPU_COUNT_MAX,
    GPU_MODELS_MAX,
    NAME_PATTERN,
    OUTPUTS_MAX,
    PACKAGES_MAX,
    PATH_LENGTH_MAX,
    Allowed,
    Amount,
    CpuMilli,
    KeyPath,
    MemorySize,
    Models,
    Outputs,
    Packages,
    Price,
    Script,
    Size,
    agrees_with_gpu,
    duration,
    env_of,
    image_name,
    image_or_name,
    inputs_of,
    isolation_of,
    name_of,
    one_or_many,
    parse_input,
    python_or_version,
    python_version,
    recipient,
    retry_cause,
    secret_name,
    secrets_of,
    split_image,
    text_of,
    whole,
)  # fmt: skip


class Python(Block):
    version: Annotated[str, BeforeValidator(python_version, json_schema_input_type=str | float)] = Field(
        description="Major and minor version, in quotes.", examples=["3.11"]
    )
    packages: Packages = Field(
        default=(),
        max_length=PACKAGES_MAX,
        description="Packages by name and version, from the node's package index; wheels only.",
        examples=[["scikit-learn", "torch>=2.6"]],
    )


class Resources(Block):
    gpu: Models | None = Field(
        default=None,
        min_length=1,
        max_length=GPU_MODELS_MAX,
        description="GPU model, or several of which any will do; any model where only gpu_count is given.",
        examples=["V100", ["V100", "A10"]],
    )
    gpu_memory: Size | None = Field(
        default=None, description="Memory that each GPU has at least.", examples=["16GB.."]
    )
    gpu_count: Annotated[
        Annotated[int, BeforeValidator(whole(0, GPU_COUNT_MAX), json_schema_input_type=int)] | None,
        AfterValidator(agrees_with_gpu),
    ] = Field(default=None, description="GPUs for the job; 1 if gpu or gpu_memory is given, else 0.")
    cpu: CpuMilli | None = Field(
        default=None,
        description="CPU cores. 0.25 by default, 2 for each GPU.",
        examples=[4, 0.5, "250m"],
    )
    memory: MemorySize | None = Field(
        default=None,
        description="Main memory. 256 MiB by default, 8 GB for each GPU.",
        examples=["16GB"],
    )
    disk: Size | None = Field(default=None, description="Scratch space. 1 GB by default.", examples=["20GB"])
    shm_size: Size | None = Field(
        default=None, description="Size of /dev/shm. 64 MiB by default.", examples=["8GB"]
    )


class Limits(Block):
    max_price: Price | None = Field(
        default=None,
        description="The most to pay for a device-hour (a GPU, or a core of a CPU job).",
        examples=["0.40/h"],
    )
    max_cost: Amount | None = Field(
        default=None, description="The most that the job may cost; held from the start.", examples=["5.00"]
    )
    max_duration: Annotated[int, duration(1)] | None = Field(
        default=None, description="A run is ended after this time; 24h by default.", examples=["2h", "1h30m"]
    )
    max_carbon: wishes.MaxCarbon | None = Field(
        default=None, description="The most CO2e that the job may cause.", examples=["2kg"]
    )


class Retry(Block):
    max_attempts: Annotated[int, BeforeValidator(whole(1, ATTEMPTS_MAX), json_schema_input_type=int)] = Field(
        default=domain.MAX_ATTEMPTS_DEFAULT, description="Runs in all."
    )
    on: Annotated[
        tuple[Annotated[str, BeforeValidator(retry_cause, json_schema_input_type=str)], ...],
        BeforeValidator(one_or_many, json_schema_input_type=str | list[str]),
    ] = Field(
        default=domain.RETRY_CAUSES,
        max_length=len(domain.RETRY_CAUSES),
        description="What the job is run again for. Its own failure is never one of them.",
        examples=[list(domain.RETRY_CAUSES)],
    )


class Image(Block):
    name: Annotated[str, BeforeValidator(image_name, json_schema_input_type=str)] = Field(
        description="[registry/]repository[:tag][@digest].", examples=["pytorch/pytorch:2.9"]
    )
    credentials: Annotated[str, BeforeValidator(secret_name, json_schema_input_type=str)] | None = Field(
        default=None, description="The secret that holds user:password of a closed registry."
    )


class Input(Block):
    source: str = Field(
        description="https://... with a digest, s3://bucket/key, or the outputs of a job as job:job-...",
        examples=["s3://bucket/set.tar.gz"],
    )
    credentials: str | None = Field(
        default=None, description="The secret that holds key-id:secret-key of a closed bucket."
    )


class Network(Block):
    allow: Allowed = Field(
        default=(),
        max_length=ALLOWED_ADDRESSES_MAX,
        description="Addresses that the job may reach, through the node's proxy.",
        examples=[["models.example.org:443", "*.example.net:443"]],
    )


class Placement(Block):
    isolation: Annotated[str, BeforeValidator(isolation_of, json_schema_input_type=str)] | None = Field(
        default=None, description="The least isolation that will do.", examples=["gvisor"]
    )
    regions: wishes.Regions = Field(
        default=(),
        max_length=wishes.REGIONS_MAX,
        description="Regions in which it may run; anywhere by default. EU holds its member states.",
        examples=[["EU", "US-CA"]],
    )
    min_grade: wishes.MinGrade | None = Field(
        default=None, description="The least grade of a GPU; ungraded ones, too, by default.", examples=["B"]
    )


class Job(Block):
    """What a job is and what it needs. Only `name`, and `run` or `image`, are required."""

    name: Annotated[str, BeforeValidator(name_of, json_schema_input_type=str)] = Field(
        description="The job's name, for people; it need not be unique.", pattern=NAME_PATTERN
    )
    workdir: (
        Annotated[str, BeforeValidator(text_of(bytes_max=PATH_LENGTH_MAX), json_schema_input_type=str)] | None
    ) = Field(
        default=None,
        description="Folder to send along, relative to this file. .gitignore and .perakignore are respected.",
        examples=["."],
    )
    setup: Script | None = Field(default=None, description="Shell script that runs first, offline.")
    run: Script | None = Field(
        default=None,
        description="Shell script that is the job. Only an image has a program of its own to run without.",
        examples=["python train.py"],
    )
    env: Annotated[
        dict[str, str], BeforeValidator(env_of, json_schema_input_type=dict[str, str | int] | None)
    ] = Field(default_factory=dict, description="Environment variables.", examples=[{"EPOCHS": "5"}])
    python: (
        Annotated[Python, BeforeValidator(python_or_version, json_schema_input_type=Python | str | float)]
        | None
    ) = Field(default=None, description="A Python and packages, or just its version.")
    image: Annotated[Image, BeforeValidator(image_or_name, json_schema_input_type=Image | str)] | None = (
        Field(default=None, description="A container image to run in; pinned by digest at submit.")
    )
    secrets: Annotated[
        dict[str, str], BeforeValidator(secrets_of, json_schema_input_type=list[str] | dict[str, str])
    ] = Field(
        default_factory=dict,
        description="Secrets of the project that the job gets, as env or as a file in /run/secrets.",
        examples=[["MODEL_TOKEN"]],
    )
    inputs: Annotated[
        dict[str, Input], BeforeValidator(inputs_of, json_schema_input_type=dict[str, Input | str])
    ] = Field(
        default_factory=dict,
        description="Data to mount read-only: places in the work folder, and where each comes from.",
        examples=[{"data/": "s3://bucket/set@sha256:..."}],
    )
    network: Network = Field(
        default_factory=Network, description="What the job may reach; nothing by default."
    )
    placement: Placement = Field(default_factory=Placement, description="Where the job may run.")
    encrypt: Annotated[str, BeforeValidator(recipient, json_schema_input_type=bool | str)] | None = Field(
        default=None, description="Encrypt work folder and outputs to the renter's key (age)."
    )
    resources: Resources = Field(default_factory=Resources, description="What one run needs.")
    nodes: Annotated[int, BeforeValidator(whole(1, 1), json_schema_input_type=int)] = Field(
        default=1, le=1, description="One; more are not supported yet."
    )
    outputs: Outputs = Field(
        default=(),
        max_length=OUTPUTS_MAX,
        description="Files and folders to keep, relative to the work folder.",
        examples=[["out/"]],
    )
    limits: Limits = Field(default_factory=Limits, description="What the renter allows.")
    disconnect_grace: Annotated[int, duration(0)] = Field(
        default=domain.DISCONNECT_GRACE_SECONDS_DEFAULT,
        description="How long a silent node may stay away before the job is run elsewhere; 5m by default.",
        examples=["5m", 0],
    )
    retry: Retry = Field(default_factory=Retry, description="How often, and for what, to run again.")
    prefer: wishes.PreferOrPreset | None = Field(
        default=None,
        description="What carbon and delay are worth: a preset, or prices; the cheapest by default.",
        examples=["balanced", {"carbon_price": "0.10/kg", "delay_cost": "0.50/h", "value": "6.00"}],
    )
    start: wishes.Start | None = Field(
        default=None, description="Let the job wait for a better price or cleaner power; at once by default."
    )
    reserve: windows.Reserve | None = Field(
        default=None,
        description="A window that is kept for the job, at a price that is agreed at submission.",
    )
    work: wishes.Work | None = Field(
        default=None,
        description="How much work the job is, where its renter knows; other devices' times follow from it.",
    )
    functional_unit: wishes.FunctionalUnit | None = Field(
        default=None, description="What the receipt counts carbon per (SCI's R); per run by default."
    )


BLOCKS: dict[KeyPath, type[Block]] = {
    (): Job,
    ("python",): Python,
    ("resources",): Resources,
    ("limits",): Limits,
    ("retry",): Retry,
    ("image",): Image,
    ("network",): Network,
    ("placement",): Placement,
    ("prefer",): wishes.Prefer,
    ("start",): wishes.Start,
    ("reserve",): windows.Reserve,
    ("work",): wishes.Work,
    ("functional_unit",): wishes.FunctionalUnit,
}
EXAMPLE = "`name: hello` and `run: echo hello`"


def spec_of(model: Job, workdir_digest: str | None) -> domain.JobSpec:
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
            max_duration_seconds=model.limits.max_duration if model.reserve is None else model.reserve.length,
            max_carbon_grams=model.limits.max_carbon,
        ),
        disconnect_grace_seconds=model.disconnect_grace,
        retry=domain.Retry(max_attempts=model.retry.max_attempts, on=model.retry.on),
        image=_image(model.image),
        secrets=tuple(domain.Secret(name=name, kind=kind) for name, kind in model.secrets.items()),
        inputs=tuple(_input(path, block) for path, block in model.inputs.items()),
        network_allow=model.network.allow,
        isolation=model.placement.isolation,
        encrypt_to=model.encrypt,
        preference=wishes.preference(model.prefer),
        start=wishes.start(model.start),
        reserve=windows.reserve(model.reserve),
        work=wishes.work(model.work),
        regions=model.placement.regions,
        min_grade=model.placement.min_grade,
        functional_unit=wishes.functional_unit(model.functional_unit),
    )


def _image(block: Image | None) -> domain.Image | None:
    if block is None:
        return None
    name, digest = split_image(block.name)
    return domain.Image(name=name, digest=digest, credentials=block.credentials)


def _input(path: str, block: Input) -> domain.Input:
    found = parse_input(block.source)
    assert found is not None, block.source
    return domain.Input(path=path, url=found[0], digest=found[1], credentials=block.credentials)


def _python(block: Python | None) -> domain.PythonEnvironment | None:
    if block is None:
        return None
    return domain.PythonEnvironment(version=block.version, packages=block.packages)


def _resources(block: Resources) -> domain.Resources:
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
