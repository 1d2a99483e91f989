"""How many connections one address may have, and all together."""

from __future__ import annotations

from perak.server.connections import SPARE_FILES, ConnectionLimits, Connections, Full, Seat

MANY = 10_000


def test_one_address_takes_no_more_than_its_share_and_others_go_on() -> None:
    connections = Connections(ConnectionLimits(total=10, per_address=3), files_max=MANY)
    seats = [connections.enter("192.0.2.1") for _ in range(3)]
    refused = connections.enter("192.0.2.1")
    assert isinstance(refused, Full)
    assert "--connections-per-address" in refused.reason
    assert isinstance(connections.enter("192.0.2.2"), Seat)
    assert isinstance(seats[0], Seat)
    seats[0].leave()
    assert isinstance(connections.enter("192.0.2.1"), Seat)
    assert len(connections) == 4


def test_all_together_leave_room_for_the_exchanges_own_files() -> None:
    connections = Connections(ConnectionLimits(), files_max=SPARE_FILES + 2)
    assert [type(connections.enter(f"192.0.2.{n}")) for n in range(3)] == [Seat, Seat, Full]


def test_an_ipv6_network_counts_as_one_address_and_a_mapped_one_as_ipv4() -> None:
    connections = Connections(ConnectionLimits(per_address=2), files_max=MANY)
    assert isinstance(connections.enter("2001:db8:0:1::1"), Seat)
    assert isinstance(connections.enter("2001:db8:0:1:ffff::2"), Seat)
    assert isinstance(connections.enter("2001:db8:0:1::3"), Full)
    assert isinstance(connections.enter("2001:db8:0:2::1"), Seat)
    assert isinstance(connections.enter("::ffff:192.0.2.1"), Seat)
    assert isinstance(connections.enter("192.0.2.1"), Seat)
    assert isinstance(connections.enter("192.0.2.1"), Full)
