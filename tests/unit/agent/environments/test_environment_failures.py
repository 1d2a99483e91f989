"""What uv prints becomes one line that names the package."""

import pytest

from perak.agent.environments.failures import explain


@pytest.mark.parametrize(
    ("output", "message", "blamed"),
    [
        (
            "error: No solution found when resolving dependencies\n  cause: Because nosuch was not found in "
            "the package registry and you require nosuch, we can conclude that your requirements are "
            "unsatisfiable.",
            "the package index of this node has no package nosuch. Check the spelling.",
            ("nosuch",),
        ),
        (
            "  × No solution found when resolving dependencies:\n  ╰─▶ Because "
            "only-sdist==2.14 has no usable wheels and\n      you require only-sdist==2.14, we can conclude "
            "that your requirements are unsatisfiable.\n\nhint: Wheels are required for `only-sdist`",
            "only-sdist==2.14 has no wheel for Python 3.11.2 on this platform",
            ("only-sdist",),
        ),
        (
            "  × No solution found when resolving dependencies:\n  ╰─▶ Because a==1 depends on b>=2 and you "
            "require b<2,\n      we can conclude that your requirements are unsatisfiable.",
            "the packages can't be had together: Because a==1 depends on b>=2 and you require b<2, we can",
            ("a", "b"),
        ),
        (
            "error: Failed to fetch: `https://index.example/simple/a/`\n  Caused by: operation timed out",
            "the package index of this node could not be read: Failed to fetch",
            (),
        ),
    ],
)
def test_the_message_names_package_and_remedy(output: str, message: str, blamed: tuple[str, ...]) -> None:
    text, packages = explain(output, ["a", "b", "only-sdist"], "3.11.2")
    assert text.startswith(message)
    assert packages == blamed
