"""A card for which PyPI's torch has no kernels gets the variant that has them, and nothing else from there.

PyTorch's own index is a local one here; that the real one answers alike was not tried.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.integration.environments.conftest import write_wheel

from perak.agent.environments import Environments, IndexSettings, Interpreter
from perak.agent.environments.index import TORCH_INDEX_URL, TORCH_PACKAGES
from perak.domain.hardware.torch import TorchChoice

if TYPE_CHECKING:
    from tests.integration.environments.conftest import LocalServer

CHOICE = TorchChoice(variant="cu126", release="2.14")


@pytest.fixture
def torch_index(state_dir: Path) -> Path:
    """The folders of two variants as PyTorch's index has them: a page of links for each package."""
    root = state_dir / "torch-index"
    for variant in ("cu126", "cu130"):
        for name in (*TORCH_PACKAGES, "lib"):
            (root / variant / name).mkdir(parents=True)
        for version in ("2.13.0", "2.14.1"):
            write_wheel(root / variant / "torch", "torch", f"{version}+{variant}", requires=("lib",))
        write_wheel(root / variant / "lib", "lib", "9.0")
    return root


def versions_in(path: Path) -> set[str]:
    return {each.name.removesuffix(".dist-info") for each in path.rglob("*.dist-info")}


def test_the_variant_is_installed_and_the_rest_comes_from_the_index(
    make_environments: Callable[[IndexSettings], Environments],
    wheels: Path,
    torch_index: Path,
    python: Interpreter,
    serve: Callable[[Path], LocalServer],
) -> None:
    write_wheel(wheels, "torch", "2.14.1", requires=("lib",))
    write_wheel(wheels, "torch", "2.15.0", requires=("lib",))
    server = serve(torch_index)
    environments = make_environments(
        IndexSettings(
            index_url=None,
            find_links=(str(wheels),),
            torch_index_url=f"http://127.0.0.1:{server.port}",
        )
    )
    made = environments.ensure(python.version, ["torch"], log=lambda line: None, torch=CHOICE)
    assert versions_in(made.path) == {"torch-2.14.1+cu126", "lib-2.0"}
    assert all(path.startswith("/cu126/torch") for path in server.requests)

    plain = environments.ensure(python.version, ["torch"], log=lambda line: None)
    assert versions_in(plain.path) == {"torch-2.15.0", "lib-2.0"}, "other cards get what they always got"


def test_a_node_offers_the_variants_that_it_may_install(
    make_environments: Callable[[IndexSettings], Environments],
) -> None:
    def offered(env: dict[str, str]) -> tuple[str, ...]:
        return make_environments(IndexSettings.from_environment(env, ())).torch_variants

    assert "cu126" in offered({})
    assert offered({"PERAK_TORCH_INDEX_URL": "off"}) == ()
    assert offered({"PIP_INDEX_URL": "https://mirror.example/simple"}) == (), "it may not reach the world"
    mirrored = {
        "PIP_INDEX_URL": "https://mirror.example/simple",
        "PERAK_TORCH_INDEX_URL": "https://t.example",
    }
    assert "cu126" in offered(mirrored)


def test_only_the_index_and_pytorchs_own_may_be_reached() -> None:
    index = IndexSettings.from_environment({}, ())
    assert index.torch_index_url == TORCH_INDEX_URL
    plain, more = index.allowed_addresses(), index.with_torch("cu126").allowed_addresses()
    assert more - plain == {("download.pytorch.org", 443)}
