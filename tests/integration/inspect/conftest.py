"""A device to inspect: pocl's, on the processor; without PyOpenCL or any platform the tests are skipped."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from perak.agent.inspect.opencl import Session
    from perak.agent.inspect.targets import Target

pytest.importorskip("pyopencl", reason="PyOpenCL is not installed: pip install perak[inspect]")


@pytest.fixture(scope="session")
def target() -> Target:
    from perak.agent.inspect.targets import targets

    found = [each for each in targets() if each.identity.kind == "cpu"]
    if not found:
        pytest.skip("no OpenCL platform shows the processor: pocl is not installed")
    return found[0]


@pytest.fixture(scope="session")
def session(target: Target) -> Session:
    from perak.agent.inspect.opencl import Session

    assert target.shown is not None
    return Session(target.shown)


@pytest.fixture(scope="session")
def make_session(target: Target) -> Callable[[], Session]:
    from perak.agent.inspect.opencl import Session

    assert target.shown is not None
    shown = target.shown
    return lambda: Session(shown)
