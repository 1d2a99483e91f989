"""Only names, extras, versions and markers pass; what would make the installer look elsewhere does not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perak.agent.environments.errors import RequirementRefused
from perak.agent.environments.requirements import PACKAGES_MAX, check_packages, package_name


@pytest.mark.parametrize(
    "text",
    [
        "numpy",
        "scikit-learn>=1.5,<2",
        "torch == 2.9.0",
        "six (>=1.16)",
        "uvicorn[standard]~=0.30",
        "a[b, c]==1.*",
        "zope.interface!=5",
        "x===1.0+local.1",
        "tomli; python_version < '3.11'",
        'colorama>=0.4 ; sys_platform == "win32" and (extra == "a")',
    ],
)
def test_requirements_from_the_index_pass(text: str) -> None:
    assert check_packages([f" {text} "]) == (text,)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("-e .", "options are the node's"),
        ("--index-url https://evil.example", "options are the node's"),
        ("--index-url=file:///", "options are the node's"),
        ("-r /etc/passwd", "options are the node's"),
        ("git+https://example.org/x", "never from a URL"),
        ("six @ https://example.org/six.whl", "never from a URL"),
        ("six@file:///tmp/six.whl", "never from a URL"),
        ("file:six", "never from a URL"),
        ("./six", "never from a path"),
        ("/tmp/six-1-py3-none-any.whl", "never from a path"),
        ("six-1.0-py3-none-any.whl", "never from a path"),
        ("..", "never from a path"),
        ("six --hash=sha256:0", "not a requirement"),
        ("six\n-r other", "not a requirement"),
        ("six; python_version < '3' # comment\n", "not a requirement"),
        ("six #comment", "not a requirement"),
        ("six==1 \\", "never from a path"),
        ("six==$HOME", "not a requirement"),
        ("", "not a requirement"),
        ("a" * 1000, "longer than"),
    ],
)
def test_everything_else_is_refused_with_its_reason(text: str, reason: str) -> None:
    with pytest.raises(RequirementRefused, match=reason):
        check_packages(["numpy", text])


@given(st.text(max_size=60))
def test_what_passes_is_one_line_without_options_or_addresses(text: str) -> None:
    try:
        (checked,) = check_packages([text])
    except RequirementRefused:
        return
    assert not set(checked) & set("\n\r\\/@#$:&|`")
    assert checked[0].isalnum()
    assert package_name(checked)


def test_order_and_repetition_do_not_matter_and_there_is_a_most() -> None:
    assert check_packages(["b", "a", "b "]) == check_packages(["a", "b"]) == ("a", "b")
    with pytest.raises(RequirementRefused, match="is the most"):
        check_packages(["a"] * (PACKAGES_MAX + 1))
    assert package_name("Zope.Interface[x]>=5") == "zope-interface"
