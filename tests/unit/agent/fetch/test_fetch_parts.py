"""The small parts of fetching: what is told, and which connections are refused before they are made."""

from __future__ import annotations

import pytest

from perak.agent.fetch.progress import Teller
from perak.agent.fetch.reach import NotReachable, Reach, check_public


def test_a_long_download_is_told_of_now_and_then() -> None:
    lines: list[str] = []
    clock = iter([0.0, 1.0, 6.0, 6.0, 7.0, 12.0, 12.0])
    teller = Teller(lines.append, "pulling x", 4 * 10**9, every_seconds=5, clock=lambda: next(clock))

    teller.now(10**9)  # after 1 s: too soon
    teller.now(2 * 10**9)
    teller.done(3 * 10**9)
    teller.now(1)
    teller.now(5 * 10**8)

    assert lines == ["pulling x: 2.0 GB of 4.0 GB", "pulling x: 3.5 GB of 4.0 GB"]


def test_only_the_providers_own_hosts_may_do_without_tls() -> None:
    reach = Reach(private_hosts=frozenset({"registry.lan:5000", "store.lan"}))

    reach.connect("registry.lan", 5000, tls=False)
    reach.connect("store.lan", 80, tls=False)
    for host, port in (("registry.lan", 80), ("example.org", 80)):
        with pytest.raises(NotReachable, match="speaks no TLS"):
            reach.connect(host, port, tls=False)


def test_one_private_address_among_public_ones_is_enough_to_refuse() -> None:
    check_public("example.org", ["93.184.215.14", "2606:2800:21f:cb07::1"])
    with pytest.raises(NotReachable, match=r"leads to 10\.0\.0\.1"):
        check_public("example.org", ["93.184.215.14", "10.0.0.1"])
