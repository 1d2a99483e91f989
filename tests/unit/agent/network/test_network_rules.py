"""Where a job may go: what it named."""

from __future__ import annotations

import pytest

from perak.agent.network.rules import Rules

RULES = Rules.of(("models.example.org:443", "*.example.net:80", "93.184.216.34:8080"))


@pytest.mark.parametrize(
    "address",
    [
        ("models.example.org", 443),
        ("Models.Example.org", 443),
        ("models.example.org.", 443),
        ("a.example.net", 80),
        ("a.b.example.net", 80),
        ("93.184.216.34", 8080),
    ],
)
def test_what_the_job_named_is_permitted(address: tuple[str, int]) -> None:
    assert RULES.permit(address)


@pytest.mark.parametrize(
    "address",
    [
        ("models.example.org", 80),
        ("example.org", 443),
        ("evil.models.example.org", 443),
        ("models.example.org.evil.org", 443),
        ("example.net", 80),
        ("badexample.net", 80),
        ("a.example.net", 443),
        ("", 443),
        (".", 80),
    ],
)
def test_nothing_else_is(address: tuple[str, int]) -> None:
    assert not RULES.permit(address)
