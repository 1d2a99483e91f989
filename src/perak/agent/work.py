"""The slow, blocking parts of a run: its environment, work folder and outputs. For use in threads."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Protocol

from perak.agent.blobs import Blobs
from perak.agent.events import Failed
from perak.agent.fetch.wanted import as_long_as
from perak.agent.inputs.s3 import credentials_of
from perak.agent.sandbox import ImageRoot, Mount, RunSpec, Sandbox, SecretUse
from perak.agent.sandbox.launch import PROXY_PORT
from perak.domain.errors import DomainError, InvalidInput, Unavailable
from perak.domain.report import OutputBlob
from perak.domain.secrets import PER_RUN_BYTES_MAX, WORKDIR_KEY
from perak.domain.units import format_bytes
from perak.wire.session import LeaseOrder

if TYPE_CHECKING:
    from perak.agent.environments import Environment
    from perak.agent.images.images import Images
    from perak.agent.inputs.inputs import Inputs
    from perak.agent.probe.driver import DeviceAccess
    from perak.agent.probe.tiers import Tiers
    from perak.domain.hardware.torch import TorchChoice
    from perak.wire.archive import NothingPacked
    from perak.wire.encryption import Encrypted

RETRY_SECONDS = 1.0
"""Before a transfer that was cut is tried again; doubles up to RETRY_SECONDS_MAX."""
RETRY_SECONDS_MAX = 30.0
SKIPPED_TOLD_MAX = 20
"""Outputs that can't be taken, told one by one: a folder of ten thousand pipes is told by its number."""
SKIPPED_CHARACTERS_MAX = 300
TEMPORARY = "tmp"

Say = Callable[[str], None]
"""Takes a line for the run's log."""


class EnvironmentMaker(Protocol):
    """What `perak.agent.environments.Environments` is to us."""

    @property
    def versions(self) -> tuple[str, ...]: ...

    @property
    def torch_variants(self) -> tuple[str, ...]: ...

    def ensure(
        self, version: str, packages: tuple[str, ...], *, log: Callable[[str], None], torch: TorchChoice = ...
    ) -> Environment: ...


class Devices(Protocol):
    """What `perak.agent.probe.nvidia.Nvidia` is to us."""

    def access(self, uuids: tuple[str, ...], *, in_image: bool = ...) -> DeviceAccess: ...

    def capabilities(self, uuids: tuple[str, ...]) -> tuple[str, ...]: ...

    def driver_cuda(self) -> str | None: ...


class WorkFailed(Exception):
    """A step failed; `cause` is one of CAUSES."""

    def __init__(self, cause: str, detail: str) -> None:
        super().__init__(detail)
        self.cause = cause
        self.detail = detail

    def event(self, run: str) -> Failed:
        return Failed(run=run, cause=self.cause, detail=self.detail)


WORTH_A_LINE_BYTES = 64 * 10**6
"""A work folder that takes a second or more to unpack is spoken of in the log; the others are just there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Makes runs ready and brings their outputs in."""

    state_dir: Path
    sandbox: Sandbox
    blobs: Blobs
    environments: EnvironmentMaker | None
    """None: this node offers no Python versions."""
    devices: Devices | None
    log_bytes_max: int
    transfer_attempts_max: int
    images: Images | None = None
    """None: this node takes no images."""
    inputs: Inputs | None = None
    tiers: Tiers | None = None
    """None: this node has its default sandbox tier alone."""
    grants: Callable[[], tuple[str, ...]]
    """What the provider lets jobs have, of `perak.domain.offer.GRANTS`."""

    def prepare(self, order: LeaseOrder, *, say: Say, is_wanted: Callable[[], bool]) -> None:
        """Everything up to the start; no pull and no download goes on once `is_wanted` says no.

        Raises WorkFailed.
        """
        with as_long_as(is_wanted):
            self._prepare(order, say)

    def _prepare(self, order: LeaseOrder, say: Say) -> None:
        if order.encrypt_to is not None:
            _check_recipient(order.encrypt_to)
        if order.network_allow and "network" not in self.grants():
            raise WorkFailed("sandbox", "this node's provider lets no job out to the network")
        environment = self._environment(order, say)
        image = self._image(order, say)
        inputs = self._inputs(order, say)
        archive = None
        with self._folder() as folder:
            if order.workdir_digest is not None:
                archive = folder / "workdir.tar.gz"
                self._fetch(order, order.workdir_digest, archive)
                if order.encrypt_to is not None:
                    archive = self._opened(order, archive)
            work = self._sandbox_folder(order, environment, image, inputs)
            if archive is not None:
                self._unpack(order, archive, work, say)

    def start(self, order: LeaseOrder) -> None:
        """Start what is prepared. Its secrets are fetched now, so that they lie nowhere meanwhile.

        Raises WorkFailed, and what `Sandbox.start` raises.
        """
        values = self._secrets(order) if order.secrets else {}
        for each in order.secrets:
            if each.kind == "env" and not _fits_a_variable(values.get(each.name, b"")):
                detail = f"{each.name} is no text, so it can't be a variable; ask for it as {each.name}: file"
                raise WorkFailed("secrets", detail)
        self.sandbox.start(order.run, secrets=values)

    def collect(self, order: LeaseOrder, *, is_wanted: Callable[[], bool]) -> OutputBlob | None:
        """Pack and send the outputs; None when nothing matched. Goes on trying as long as `is_wanted`.

        Raises WorkFailed with the cause "outputs".
        """
        from perak.wire.archive import ArchiveError, NothingPacked, pack_outputs

        with self._folder() as folder:
            archive = folder / "outputs.tar.gz"
            try:
                packed = pack_outputs(self.sandbox.work_folder(order.run), order.outputs, archive)
            except (ArchiveError, OSError, KeyError) as error:
                raise WorkFailed("outputs", f"the outputs could not be collected: {error}") from None
            if isinstance(packed, NothingPacked):
                return _nothing(packed)
            sent = packed if order.encrypt_to is None else _encrypted(archive, order.encrypt_to)
            self._send(order, sent.digest, archive, is_wanted)
        return OutputBlob(
            digest=sent.digest,
            size_bytes=sent.size_bytes,
            file_count=packed.file_count,
            missing=packed.missing,
            skipped=_told(packed.skipped),
        )

    def _image(self, order: LeaseOrder, say: Say) -> ImageRoot | None:
        if order.image is None:
            return None
        if self.images is None:
            raise WorkFailed("image", "this node takes no images")
        name = order.image_credentials
        credentials = None
        if name is not None:
            try:
                credentials = self._secrets(order)[name].decode().strip()
            except (KeyError, UnicodeDecodeError):
                raise WorkFailed("secrets", f"{name} is no user:password for the image's registry") from None
        try:
            return self.images.ensure(order.image, credentials=credentials, say=say)
        except (DomainError, OSError) as error:
            raise WorkFailed("image", str(error)) from None

    def _opened(self, order: LeaseOrder, archive: Path) -> Path:
        """The work folder's archive, decrypted with the key that the exchange keeps for the job."""
        from perak.wire.encryption import decrypt

        opened = archive.with_name("opened.tar.gz")
        try:
            key = self._secrets(order)[WORKDIR_KEY].decode()
            with archive.open("rb") as source, opened.open("wb") as target:
                decrypt(source, target, identity=key)
        except (KeyError, DomainError, OSError) as error:
            raise WorkFailed("workdir", f"the work folder can't be decrypted: {error}") from None
        return opened

    def _secrets(self, order: LeaseOrder) -> dict[str, bytes]:
        """All that the lease is to have, by name."""
        for delay in _delays(self.transfer_attempts_max):
            try:
                found = self.blobs.fetch_secrets(order.lease)
            except Unavailable as error:
                why = error.detail
                time.sleep(delay)
            except (DomainError, OSError) as error:
                raise WorkFailed("secrets", str(error)) from None
            else:
                if sum(map(len, found.values())) > PER_RUN_BYTES_MAX:
                    detail = f"the job's secrets are larger than {PER_RUN_BYTES_MAX:,} bytes together"
                    raise WorkFailed("secrets", detail)
                return found
        raise WorkFailed("secrets", f"{why}; tried {self.transfer_attempts_max} times")

    def _inputs(self, order: LeaseOrder, say: Say) -> tuple[Mount, ...]:
        if not order.inputs:
            return ()
        if self.inputs is None:
            raise WorkFailed("inputs", "this node takes no inputs")
        named = {each.credentials for each in order.inputs if each.credentials is not None}
        given = self._secrets(order) if named else {}
        try:
            credentials = {name: credentials_of(given.get(name, b"")) for name in named}
        except InvalidInput as error:
            raise WorkFailed("secrets", f"the secret of an input: {error.detail}") from None
        try:
            return self.inputs.ensure(order.lease, order.inputs, say=say, credentials=credentials)
        except (DomainError, OSError) as error:
            raise WorkFailed("inputs", str(error)) from None

    def _environment(self, order: LeaseOrder, say: Say) -> Environment | None:
        if order.python_version is None:
            return None
        if self.environments is None:
            raise WorkFailed("environment", "this node offers no Python environments")
        torch = self._torch(order, self.environments.torch_variants)
        if torch.problem is not None:
            raise WorkFailed("environment", f"torch does not run on the leased devices: {torch.problem}")
        if torch.variant is not None:
            say(f"torch {torch.release} with {torch.variant}: PyPI's does not run on this card or driver")
        try:
            return self.environments.ensure(order.python_version, order.python_packages, log=say, torch=torch)
        except (DomainError, OSError) as error:
            raise WorkFailed("environment", str(error)) from None

    def _torch(self, order: LeaseOrder, variants: tuple[str, ...]) -> TorchChoice:
        from perak.domain.hardware.torch import choose_torch

        found = self.devices.capabilities(order.devices) if self.devices is not None else ()
        driver_cuda = self.devices.driver_cuda() if self.devices is not None else None
        return choose_torch(order.python_packages, found, variants, driver_cuda)

    def _fetch(self, order: LeaseOrder, digest: str, archive: Path) -> None:
        from perak.wire.archive import WORKDIR_BYTES_MAX

        for delay in _delays(self.transfer_attempts_max):
            try:
                # Incompressible contents grow a little when packed.
                limit_bytes = WORKDIR_BYTES_MAX + WORKDIR_BYTES_MAX // 10
                return self.blobs.fetch_workdir(order.lease, digest, archive, limit_bytes=limit_bytes)
            except Unavailable as error:
                why = error.detail
                time.sleep(delay)
            except (DomainError, OSError) as error:
                raise WorkFailed("workdir", str(error)) from None
        raise WorkFailed("workdir", f"{why}; tried {self.transfer_attempts_max} times")

    def _sandbox_folder(
        self,
        order: LeaseOrder,
        environment: Environment | None,
        image: ImageRoot | None,
        inputs: tuple[Mount, ...],
    ) -> Path:
        try:
            with contextlib.suppress(KeyError):
                # What an earlier life of this agent had begun to prepare; begin anew.
                self.sandbox.release(order.run)
            if self.tiers is not None:
                self.tiers.require(order.tier)
            return self.sandbox.prepare(self._spec(order, environment, image, inputs)).work
        except (OSError, RuntimeError, ValueError, LookupError) as error:
            raise WorkFailed("sandbox", f"the sandbox could not be made: {error}") from None

    def _spec(
        self,
        order: LeaseOrder,
        environment: Environment | None,
        image: ImageRoot | None,
        inputs: tuple[Mount, ...],
    ) -> RunSpec:
        access = self._access(order)
        return RunSpec(
            run_id=order.run,
            lease_id=order.lease,
            job_id=order.job,
            epoch=order.epoch,
            setup=order.setup,
            command=order.command,
            image=image,
            inputs=inputs,
            env=_env(order, access, image),
            mounts=(*_mounts(environment), *(access.mounts if access else ())),
            path_prefix=(str(environment.bin),) if environment else (),
            cpu_milli=order.cpu_milli,
            memory_bytes=order.memory_bytes,
            disk_bytes=order.disk_bytes,
            shm_bytes=order.shm_bytes,
            log_bytes_max=self.log_bytes_max,
            max_duration_seconds=order.max_duration_seconds,
            device_nodes=access.nodes if access else (),
            masks=access.masks if access else (),
            network_allow=order.network_allow,
            tier=order.tier,
            secrets=tuple(
                SecretUse(name=each.name, kind="file" if each.kind == "file" else "env")
                for each in order.secrets
            ),
        )

    def _access(self, order: LeaseOrder) -> DeviceAccess | None:
        if not order.devices:
            return None
        if self.devices is None:
            raise LookupError("this node has no devices")
        return self.devices.access(order.devices, in_image=order.image is not None)

    def _unpack(self, order: LeaseOrder, archive: Path, work: Path, say: Say) -> None:
        from perak.wire.archive import WORKDIR_BYTES_MAX, WORKDIR_FILES_MAX, ArchiveError, unpack

        size = archive.stat().st_size
        if size >= WORTH_A_LINE_BYTES:
            say(f"unpacking the work folder ({format_bytes(size)})")
        limit_bytes = min(WORKDIR_BYTES_MAX, order.disk_bytes)
        try:
            unpack(archive, work, limit_bytes=limit_bytes, limit_files=WORKDIR_FILES_MAX)
        except (ArchiveError, OSError) as error:
            raise WorkFailed("workdir", f"the work folder could not be unpacked: {error}") from None

    def _send(self, order: LeaseOrder, digest: str, archive: Path, is_wanted: Callable[[], bool]) -> None:
        for delay in _delays(None):
            try:
                return self.blobs.send_outputs(order.lease, digest, archive)
            except Unavailable as error:
                if not is_wanted():
                    raise WorkFailed("outputs", error.detail) from None
                time.sleep(delay)
            except (DomainError, OSError) as error:
                raise WorkFailed("outputs", str(error)) from None
        raise AssertionError("the delays have no end")

    @contextlib.contextmanager
    def _folder(self) -> Iterator[Path]:
        """A folder for archives on their way; made anew at every start of the agent."""
        base = self.state_dir / TEMPORARY
        base.mkdir(mode=0o700, exist_ok=True)
        with TemporaryDirectory(dir=base) as name:
            yield Path(name)


def _check_recipient(recipient: str) -> None:
    """Before the run, because afterwards its outputs could go nowhere."""
    from perak.wire.encryption import check_recipient

    try:
        check_recipient(recipient)
    except DomainError as error:
        raise WorkFailed("outputs", error.detail) from None


def _encrypted(archive: Path, recipient: str) -> Encrypted:
    """Replace the archive by what only the recipient can open. Raises WorkFailed."""
    from perak.wire.encryption import encrypt

    draft = archive.with_name("outputs.age")
    try:
        with archive.open("rb") as source, draft.open("w+b") as target:
            encrypted = encrypt(source, target, to=[recipient])
        draft.replace(archive)
    except (DomainError, OSError) as error:
        raise WorkFailed("outputs", f"the outputs could not be encrypted: {error}") from None
    return encrypted


def _fits_a_variable(value: bytes) -> bool:
    try:
        return "\0" not in value.decode()
    except UnicodeDecodeError:
        return False


def _nothing(packed: NothingPacked) -> OutputBlob | None:
    """Why there are no outputs; None where nothing was there, which says it."""
    if not packed.skipped:
        return None
    return OutputBlob(
        digest=None, size_bytes=0, file_count=0, missing=packed.missing, skipped=_told(packed.skipped)
    )


def _told(skipped: tuple[str, ...]) -> tuple[str, ...]:
    """As many as a report has room for."""
    more = len(skipped) - SKIPPED_TOLD_MAX
    told = tuple(each[:SKIPPED_CHARACTERS_MAX] for each in skipped[:SKIPPED_TOLD_MAX])
    return (*told, f"and {more:,} more") if more > 0 else told


def _delays(attempts_max: int | None) -> Iterator[float]:
    delay, attempts = RETRY_SECONDS, 0
    while attempts_max is None or attempts < attempts_max:
        attempts += 1
        yield delay
        delay = min(2 * delay, RETRY_SECONDS_MAX)


def _env(order: LeaseOrder, access: DeviceAccess | None, image: ImageRoot | None) -> dict[str, str]:
    """The job's variables under what its devices need; its own libraries stay behind the driver's."""
    env = (_proxy_env() if order.network_allow else {}) | order.env
    if access is not None:
        own = env.get("LD_LIBRARY_PATH") or (image.env.get("LD_LIBRARY_PATH") if image else None)
        env |= access.env
        if own and own != env.get("LD_LIBRARY_PATH"):
            driver = access.env.get("LD_LIBRARY_PATH")
            env["LD_LIBRARY_PATH"] = f"{driver}:{own}" if driver else own
    return env


def _proxy_env() -> dict[str, str]:
    """What tells programs of their proxy; some read small letters only, others only capitals."""
    proxy = f"http://127.0.0.1:{PROXY_PORT}"
    env = {"http_proxy": proxy, "https_proxy": proxy, "no_proxy": "localhost,127.0.0.1,::1"}
    return env | {name.upper(): value for name, value in env.items()}


def _mounts(environment: Environment | None) -> tuple[Mount, ...]:
    if environment is None:
        return ()
    return tuple(Mount(source=str(path), target=str(path)) for path in environment.mounts)
