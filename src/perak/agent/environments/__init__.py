"""Python environments for jobs: resolved, installed and cached on the node, see `environments.py`."""

from perak.agent.environments.environments import Environment, Environments
from perak.agent.environments.errors import (
    NotInstalled,
    NotResolved,
    PythonEnvironmentError,
    PythonNotOnNode,
    RequirementRefused,
)
from perak.agent.environments.index import IndexSettings
from perak.agent.environments.pythons import Interpreter, interpreters

__all__ = [
    "Environment",
    "Environments",
    "IndexSettings",
    "Interpreter",
    "NotInstalled",
    "NotResolved",
    "PythonEnvironmentError",
    "PythonNotOnNode",
    "RequirementRefused",
    "interpreters",
]
