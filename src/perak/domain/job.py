"""What a renter wants: the job, as the market and the node see it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

CPU_MILLI_DEFAULT = 250
"""A job that names no CPU gets a quarter of a core, so that many small jobs fit one node."""
MEMORY_BYTES_DEFAULT = 256 * 2**20
DISK_BYTES_DEFAULT = 10**9
SHM_BYTES_DEFAULT = 64 * 2**20
"""What container runtimes give /dev/shm by default."""
GPU_JOB_CPU_MILLI_DEFAULT = 2000
"""A GPU job that names no CPU: two cores feed one card (loader and main process)."""
GPU_JOB_MEMORY_BYTES_DEFAULT = 8 * 10**9
MAX_DURATION_SECONDS_DEFAULT = 24 * 3600
DISCONNECT_GRACE_SECONDS_DEFAULT = 300
MAX_ATTEMPTS_DEFAULT = 5

RETRY_CAUSES = ("node_lost", "device_fault", "preempted")
"""What a job may be run again for. A job's own failure is never one of them."""


SECRET_KINDS = ("env", "file")
"""How a job finds a secret: an environment variable, or a file in /run/secrets that is in memory only."""


Product = Literal["on-demand", "deferrable", "reserved"]
"""At once at a firm price; within a window, when price or power are better; in a window agreed beforehand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """A container image. `digest` (``sha256:<hex>``) pins it; `credentials` names a secret."""

    name: str
    digest: str | None = None
    credentials: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    """A secret of the project that the job is given; `kind` is one of SECRET_KINDS."""

    name: str
    kind: str = "env"


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """Data mounted read-only at `path` in the work folder: https, s3 or ``job:<id>[/path]`` of outputs.

    `credentials` names the secret with which an object of s3 is read, ``key id:secret key``.
    """

    path: str
    url: str
    digest: str | None = None
    credentials: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PythonEnvironment:
    """A Python and the packages to install in it before the job starts."""

    version: str
    packages: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What one run takes of an offer. GPU models empty: any model; gpu_count 0: a CPU job."""

    gpu_models: tuple[str, ...] = ()
    gpu_count: int = 0
    gpu_memory_bytes: int = 0
    cpu_milli: int = CPU_MILLI_DEFAULT
    memory_bytes: int = MEMORY_BYTES_DEFAULT
    disk_bytes: int = DISK_BYTES_DEFAULT
    shm_bytes: int = SHM_BYTES_DEFAULT

    @property
    def devices_milli(self) -> int:
        """Thousandths of a device that are paid for: whole GPUs, or the CPU's share in cores."""
        return self.gpu_count * 1000 if self.gpu_count else self.cpu_milli


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the renter allows. Money in micro-units; None: no such limit."""

    max_price: int | None = None
    """Micro-units per device-hour."""
    max_cost: int | None = None
    max_duration_seconds: int | None = None
    max_carbon_grams: float | None = None
    """Operational CO2e of all attempts together."""

    @property
    def duration_seconds(self) -> int:
        """The duration at which a run is ended."""
        return self.max_duration_seconds or MAX_DURATION_SECONDS_DEFAULT


@dataclass(frozen=True, slots=True, kw_only=True)
class Preference:
    """What carbon and delay are worth: utility = value - cost - carbon_price x kg - delay_cost x h.

    Money in micro-units. `name` is the preset that the prices are of, None where they were given one by one.
    `value` None: `max_cost`, and where there is none the value is no bound.
    """

    name: str | None = None
    carbon_price_per_kg: int = 0
    delay_cost_per_hour: int = 0
    value: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """When a deferrable job may begin and must have ended, in seconds after its submission."""

    within_seconds: int
    deadline_seconds: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reserve:
    """A window that the job reserves: it runs from `start_at` (aware, UTC) on, and ends with the window."""

    start_at: datetime
    seconds: int

    @property
    def end_at(self) -> datetime:
        return self.start_at + timedelta(seconds=self.seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """How much work a job is, as its renter declares it: `hours` on one `device` of a model that is known."""

    device: str
    hours: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionalUnit:
    """What the renter counts carbon per: a finished job did `count` of `name`."""

    name: str
    count: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """How often, and for what, a job is run again."""

    max_attempts: int = MAX_ATTEMPTS_DEFAULT
    on: tuple[str, ...] = ("node_lost", "device_fault", "preempted")


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """A validated job file. `workdir_digest` is ``sha256:<hex>`` of the packed work folder, if any.

    `run` None: what the image says is run.
    """

    name: str
    run: str | None
    setup: str | None = None
    env: dict[str, str] = field(default_factory=dict)
    python: PythonEnvironment | None = None
    workdir_digest: str | None = None
    resources: Resources = field(default_factory=Resources)
    outputs: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)
    disconnect_grace_seconds: int = DISCONNECT_GRACE_SECONDS_DEFAULT
    retry: Retry = field(default_factory=Retry)
    image: Image | None = None
    secrets: tuple[Secret, ...] = ()
    inputs: tuple[Input, ...] = ()
    network_allow: tuple[str, ...] = ()
    """``host:port`` or ``*.host:port``; empty: no network."""
    isolation: str | None = None
    """The least that will do, one of `perak.domain.isolation.ISOLATION`; None: the node's default."""
    encrypt_to: str | None = None
    """An age recipient, to whom work folder and outputs are encrypted."""
    preference: Preference = field(default_factory=Preference)
    """Without a word of the renter the cheapest offer is taken."""
    start: Start | None = None
    """None: as soon as there is an offer that fits."""
    reserve: Reserve | None = None
    """A window, agreed at submission; `limits.max_duration_seconds` is then its length, and `start` None."""
    work: Work | None = None
    regions: tuple[str, ...] = ()
    """Regions in which the job may run, like ``EU``, ``DE`` or ``US-CA``; empty: anywhere."""
    min_grade: str | None = None
    """The least grade of a GPU, of `perak.domain.hardware.standing.GRADES`; None: any, ungraded too."""
    functional_unit: FunctionalUnit | None = None
    """None: carbon is counted per run."""

    @property
    def product(self) -> Product:
        """What is bought. A job says so by its keys, and never becomes another by itself."""
        if self.reserve is not None:
            return "reserved"
        return "on-demand" if self.start is None else "deferrable"

    def secret_names(self) -> frozenset[str]:
        """Every secret that the job needs: its own, its image's registry's, its inputs' stores'."""
        keys = {self.image.credentials if self.image else None, *(each.credentials for each in self.inputs)}
        return frozenset({each.name for each in self.secrets} | {each for each in keys if each is not None})
