"""What can go wrong with a Python environment, as one tree.

::

    DomainError
    └── PythonEnvironmentError      the environment can't be had; the message says why and what to do
        ├── RequirementRefused      a requirement that we never install (a URL, a path, an option)
        ├── PythonNotOnNode         the node has no such Python
        ├── NotResolved             a package is unknown, conflicts, or has no wheel for this Python
        └── NotInstalled            download or installation failed, or met a limit
"""

from perak.domain.errors import DomainError


class PythonEnvironmentError(DomainError):
    """The environment can't be had."""

    code = "python_environment"


class RequirementRefused(PythonEnvironmentError):
    """A requirement that we never install: a URL, a path, an option, or no requirement at all."""

    code = "requirement_refused"


class PythonNotOnNode(PythonEnvironmentError):
    """The node has no Python of the version that the job names."""

    code = "python_not_on_node"


class NotResolved(PythonEnvironmentError):
    """The index has no set of wheels that fits; `packages` are those that the resolver blames."""

    code = "packages_not_resolved"

    def __init__(self, detail: str, *, packages: tuple[str, ...] = ()) -> None:
        super().__init__(detail)
        self.packages = packages


class NotInstalled(PythonEnvironmentError):
    """What was resolved could not be downloaded or installed, or met a limit."""

    code = "packages_not_installed"
