"""From a job's `python: {version, packages}` to a read-only environment on this node.

Resolve (uv, wheels only, with hashes) -> key -> install what was resolved (hashes required) -> compile,
offline and without `site`, so that no package's code runs -> seal. Setup and run see only the finished
folder.
"""

import copy
import importlib.util
import os
import platform
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from perak.agent.environments.errors import NotInstalled, NotResolved, PythonNotOnNode
from perak.agent.environments.failures import explain
from perak.agent.environments.index import IndexSettings
from perak.agent.environments.pythons import Interpreter, interpreters
from perak.agent.environments.requirements import check_packages, package_name
from perak.agent.environments.sandbox import Bind, InstallSandbox, Outcome, check_reachable
from perak.agent.environments.store import (
    DOWNLOADS_BYTES_MAX,
    TOTAL_BYTES_MAX,
    Resolution,
    Store,
    digest_of,
    remove_tree,
    tree_bytes,
)
from perak.domain.hardware.torch import TorchChoice, known_variants

# A cold resolution of a large stack reads some hundred pages of the index.
RESOLVE_SECONDS_MAX = 180.0
# Six GB at 5 MB/s.
INSTALL_SECONDS_MAX = 1800.0
COMPILE_SECONDS_MAX = 600.0
# Half of numpy's, scipy's and scikit-learn's files are their own tests, which no job imports.
UNCOMPILED = "/tests?/"
# uv waits longer each time; a host that is refused stays refused.
HTTP_RETRIES = 2
# A thousand packages with fifty hashes each.
RESOLVED_CHARACTERS_MAX = 8_000_000
# The end of what uv printed, where it says why.
ERROR_CHARACTERS_MAX = 1500

PLAIN_TORCH = TorchChoice()

UV_TARGET = Path("/run/uv")
CACHE_TARGET = Path("/run/uv-cache")
REQUEST_TARGET = Path("/run/request")


@dataclass(frozen=True, slots=True)
class Environment:
    """A finished environment, to be seen by a run at the same `path`, read-only.

    `bin` goes first on the run's PATH; `mounts` is all that the run must see besides /usr.
    """

    path: Path
    key: str
    bin: Path
    python: Path
    mounts: tuple[Path, ...]


class Environments:
    """The Python environments of a node. Its methods may be called from several threads at once."""

    def __init__(
        self,
        state_dir: Path,
        *,
        bwrap: Path,
        uid: int | None,
        uv_path: Path | None = None,
        index: IndexSettings | None = None,
        in_use: Callable[[], set[str]] = set,
        total_bytes_max: int = TOTAL_BYTES_MAX,
    ) -> None:
        """Keep environments under `state_dir`/environments; install as `uid` (None: as ourselves, not root).

        `in_use` names the keys that runs use now. Raises ValueError where `uid` can't reach `state_dir` or a
        folder of the index.
        """
        self._store = Store(state_dir.resolve() / "environments", total_bytes_max=total_bytes_max)
        check_reachable(self._store.root, uid)
        self._uid = uid
        self._index = index or IndexSettings.from_environment()
        for folder in self._index.local_folders():
            check_reachable(folder, uid)
        self._sandbox = InstallSandbox(bwrap=bwrap, uid=uid, index=self._index, disk=self._store.root)
        self._uv = _own_copy(uv_path or _uv_of_wheel(), state_dir.resolve() / "runtime")
        self._in_use = in_use
        self._interpreters = {each.version: each for each in interpreters()}

    @property
    def versions(self) -> tuple[str, ...]:
        """The Python versions that this node can offer, newest first."""
        return tuple(self._interpreters)

    @property
    def torch_variants(self) -> tuple[str, ...]:
        """The CUDA variants of PyTorch that this node can install besides what its index has."""
        return known_variants() if self._index.torch_index_url is not None else ()

    def ensure(
        self,
        version: str,
        packages: Sequence[str],
        *,
        log: Callable[[str], None],
        torch: TorchChoice = PLAIN_TORCH,
    ) -> Environment:
        """The environment with `packages` for Python `version` ("3.11"), made if it isn't there.

        `torch`: which of PyTorch's wheels, where torch is among the packages.

        Blocks while it is made; `log` gets lines for the renter, possibly from another thread. The same
        request within a day is answered from disk. Errors: `PythonEnvironmentError`, each with what to do.
        """
        interpreter = self._interpreter(version)
        wanted = check_packages(packages)
        if torch.variant is not None:
            return self._for_variant(torch.variant).ensure(version, _pinned(wanted, torch), log=log)
        request = digest_of(
            interpreter.full,
            interpreter.platform,
            str(interpreter.path),
            *self._index.identity,
            "packages",
            *wanted,
        )
        resolution = self._store.resolution(request) or self._resolve_once(request, interpreter, wanted, log)
        if not self._store.has(resolution.key):
            self._install_once(resolution, interpreter, log)
        path = self._store.path(resolution.key)
        own_prefix = () if interpreter.prefix == Path("/usr") else (interpreter.prefix,)
        mounts = (path, *(each for each in own_prefix if Path("/usr") not in each.parents))
        return Environment(path, resolution.key, path / "bin", path / "bin" / "python", mounts)

    def _for_variant(self, variant: str) -> Self:
        """These environments, resolved with PyTorch's wheels for `variant`; all share one store."""
        other = copy.copy(self)
        other._index = self._index.with_torch(variant)
        other._sandbox = replace(self._sandbox, index=other._index)
        return other

    def _interpreter(self, version: str) -> Interpreter:
        found = self._interpreters.get(version)
        if found is None:
            there = ", ".join(self.versions) or "none"
            raise PythonNotOnNode(f"this node has no Python {version}; it has: {there}. Name one of them.")
        return found

    def _resolve_once(
        self, request: str, interpreter: Interpreter, wanted: tuple[str, ...], log: Callable[[str], None]
    ) -> Resolution:
        with self._store.lock("resolve", request):
            kept = self._store.resolution(request)
            if kept is not None:
                return kept
            requirements = self._resolve(interpreter, wanted, log) if wanted else ""
            key = digest_of(requirements, interpreter.full, str(interpreter.path), interpreter.platform)
            resolution = Resolution(key, requirements)
            self._store.keep_resolution(request, resolution)
            return resolution

    def _resolve(self, interpreter: Interpreter, wanted: tuple[str, ...], log: Callable[[str], None]) -> str:
        """Exact versions and hashes of all that `wanted` needs, as requirement lines."""
        log(f"resolving {', '.join(wanted)} for Python {interpreter.full}")
        with self._store.draft() as draft:
            request = self._writable(draft / "request")
            (request / "wanted.txt").write_text("\n".join(wanted) + "\n")
            command = [
                str(UV_TARGET), "pip", "compile", str(REQUEST_TARGET / "wanted.txt"),
                "--output-file", str(REQUEST_TARGET / "resolved.txt"), "--quiet",
                "--generate-hashes", "--only-binary", ":all:", "--no-header", "--no-annotate",
                "--python", str(interpreter.path), *self._index.installer_options(),
            ]  # fmt: skip
            outcome = self._run(
                [command],
                interpreter,
                [Bind(request, REQUEST_TARGET, writable=True)],
                timeout_seconds=RESOLVE_SECONDS_MAX,
                log=log,
            )
            if outcome.status != 0:
                names = [package_name(each) for each in wanted]
                message, blamed = explain(outcome.output, names, interpreter.full)
                raise NotResolved(_with_refusals(message, outcome), packages=blamed)
            return _read_plain(request / "resolved.txt")

    def _install_once(
        self, resolution: Resolution, interpreter: Interpreter, log: Callable[[str], None]
    ) -> None:
        with self._store.lock("install", resolution.key):
            if self._store.has(resolution.key):
                return
            with self._store.draft() as draft:
                self._install(draft, resolution, interpreter, log)
                self._store.adopt(
                    draft / "environment",
                    resolution.key,
                    interpreter=interpreter.path,
                    requirements=resolution.requirements,
                )
        self._tidy()

    def _install(
        self, draft: Path, resolution: Resolution, interpreter: Interpreter, log: Callable[[str], None]
    ) -> None:
        """Build the environment in `draft`/environment, which the sandbox sees at its final path."""
        home = self._store.path(resolution.key)
        request = draft / "request"
        request.mkdir(mode=0o755)
        (request / "resolved.txt").write_text(resolution.requirements)
        built = Bind(self._writable(draft / "environment"), home, writable=True)
        uv = str(UV_TARGET)
        commands = [[uv, "venv", "--quiet", "--allow-existing", "--python", str(interpreter.path), str(home)]]
        if resolution.requirements:
            only_these = ["--require-hashes", "--no-deps", "--only-binary", ":all:"]
            into = ["--python", str(home / "bin" / "python")]
            lines = ["--requirements", str(REQUEST_TARGET / "resolved.txt")]
            commands.append(
                [uv, "pip", "install", *only_these, *into, *lines, *self._index.installer_options()]
            )
        outcome = self._run(
            commands,
            interpreter,
            [built, Bind(request, REQUEST_TARGET)],
            timeout_seconds=INSTALL_SECONDS_MAX,
            log=log,
        )
        if outcome.status != 0:
            raise NotInstalled(
                _with_refusals(
                    f"the packages could not be installed: {outcome.output[-ERROR_CHARACTERS_MAX:]}", outcome
                )
            )
        if resolution.requirements:
            self._compile(home, built, interpreter, log)

    def _compile(self, home: Path, built: Bind, interpreter: Interpreter, log: Callable[[str], None]) -> None:
        """Write bytecode, which no run could: the folder is read-only to them.

        Without `site`, since `.pth` files would run code; a file that doesn't compile is its package's own
        business. Unchecked, because nothing will ever change the sources.
        """
        python = [str(interpreter.path), "-I", "-S", "-m", "compileall"]
        command = [*python, "-qq", "-j", "0", "-x", UNCOMPILED, "--invalidation-mode", "unchecked-hash"]
        command.append(str(home / "lib"))
        self._sandbox.run(
            [command],
            interpreter=interpreter,
            binds=[built],
            variables={},
            online=False,
            timeout_seconds=COMPILE_SECONDS_MAX,
            log=lambda line: None,
        )

    def _run(
        self,
        commands: Sequence[Sequence[str]],
        interpreter: Interpreter,
        binds: Sequence[Bind],
        *,
        timeout_seconds: float,
        log: Callable[[str], None],
    ) -> Outcome:
        """Run uv with its cache; nobody clears that meanwhile."""
        with self._store.lock("uv-cache", shared=True):
            cache = self._writable(self._store.root / "uv-cache")
            return self._sandbox.run(
                commands,
                interpreter=interpreter,
                binds=[Bind(self._uv, UV_TARGET), Bind(cache, CACHE_TARGET, writable=True), *binds],
                variables={
                    "UV_CACHE_DIR": str(CACHE_TARGET),
                    "UV_NO_CONFIG": "1",
                    "UV_PYTHON_DOWNLOADS": "never",
                    "UV_NO_PROGRESS": "1",
                    "UV_LINK_MODE": "copy",
                    "UV_HTTP_RETRIES": str(HTTP_RETRIES),
                    "NO_COLOR": "1",
                },
                online=True,
                timeout_seconds=timeout_seconds,
                log=log,
            )

    def _writable(self, folder: Path) -> Path:
        """`folder`, made if need be, for the sandbox's uid to write in."""
        folder.mkdir(mode=0o755, exist_ok=True)
        if self._uid is not None:
            os.chown(folder, self._uid, self._uid)
        return folder

    def _tidy(self) -> None:
        self._store.forget_old_resolutions()
        self._store.evict(self._in_use())
        cache = self._store.root / "uv-cache"
        if cache.is_dir() and tree_bytes(cache) > DOWNLOADS_BYTES_MAX:
            with self._store.lock("uv-cache"):
                remove_tree(cache)


def _pinned(packages: Sequence[str], torch: TorchChoice) -> tuple[str, ...]:
    """Torch held to a release that has the variant: PyPI's of a later one would win, as the newer."""
    return (*packages, f"torch=={torch.release}.*")


def _uv_of_wheel() -> Path:
    if importlib.util.find_spec("uv") is None:
        raise ValueError("uv is not installed: install perak with its extra [agent]")
    import uv

    return Path(uv.find_uv_bin())


def _own_copy(program: Path, runtime: Path) -> Path:
    """A copy that every uid may run: the original may lie in somebody's private home."""
    status = program.stat()
    target = (
        runtime / f"uv-{digest_of(str(status.st_size), str(status.st_mtime_ns), platform.machine())[:12]}"
    )
    if not target.exists():
        runtime.mkdir(mode=0o755, parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.{os.getpid()}")
        shutil.copyfile(program, partial)
        partial.chmod(0o755)
        partial.replace(target)
    return target


def _read_plain(file: Path) -> str:
    """A file that another uid wrote: neither a link nor a pipe is read."""
    file_fd = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(file_fd, encoding="utf-8") as text:
        return text.read(RESOLVED_CHARACTERS_MAX)


def _with_refusals(message: str, outcome: Outcome) -> str:
    if not outcome.refused:
        return message
    return f"{message} (The node refused on the way: {'; '.join(sorted(set(outcome.refused)))}.)"
