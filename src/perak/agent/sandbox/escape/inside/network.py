"""Attacks by a network that a job should not have."""

from __future__ import annotations

import socket
from typing import Any

from perak.agent.sandbox.escape.inside.look import connects, read

Bait = Any
METADATA = (
    "169.254.169.254",  # AWS, GCP, Azure, OpenStack, DigitalOcean
    "169.254.170.2",  # AWS ECS
    "168.63.129.16",  # Azure's wire server
    "100.100.100.200",  # Alibaba Cloud
    "192.0.0.192",  # Oracle Cloud
    "fd00:ec2::254",  # AWS over IPv6
)
ELSEWHERE = ("192.0.2.1", "10.0.0.1", "2001:db8::1", "fe80::1")
FAMILIES = {
    "AX.25": 3,
    "key": 15,
    "AF_ALG": 38,
    "vsock": 40,
    "Bluetooth": 31,
    "CAN": 29,
    "TIPC": 30,
    "XDP": 44,
}


def loopback(bait: Bait) -> list[str]:
    found = []
    for family, host, port in (
        (socket.AF_INET, "127.0.0.1", bait["port4"]),
        (socket.AF_INET6, "::1", bait["port6"]),
    ):
        try:
            if port and connects(family, (host, port)):
                found.append(f"a port of the node at {host} is open")
        except OSError:
            continue  # no such family in here
    return found


def abstract_sockets(bait: Bait) -> list[str]:
    return (
        ["an abstract socket of the node is open"]
        if connects(socket.AF_UNIX, "\0" + bait["abstract"])
        else []
    )


def host_sockets(bait: Bait) -> list[str]:
    return [f"{path} is open" for path in bait["sockets"] if connects(socket.AF_UNIX, path)]


def is_routed(address: str) -> bool:
    """A datagram socket that connects looks the way up, and sends nothing."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as each:
            each.connect((address, 80))
    except OSError:
        return False
    return True


def metadata(bait: Bait) -> list[str]:
    return [f"there is a way to {each}" for each in METADATA if is_routed(each)]


def network(bait: Bait) -> list[str]:
    found = []
    for line in read("/proc/net/dev").decode().splitlines()[2:]:
        name = line.split(":")[0].strip()
        if name != "lo":
            found.append(f"the network device {name} is there")
    return found + [f"there is a way to {each}" for each in ELSEWHERE if is_routed(each)]


def opens(family: int, kind: int, protocol: int = 0) -> bool:
    try:
        socket.socket(family, kind, protocol).close()
    except OSError:
        return False
    return True


def raw_sockets(bait: Bait) -> list[str]:
    found = []
    for name, family, protocol in (("IPv4", socket.AF_INET, 1), ("IPv6", socket.AF_INET6, 58)):
        if opens(family, socket.SOCK_RAW, protocol):
            found.append(f"a raw {name} socket opens")
    return found


def packet_sockets(bait: Bait) -> list[str]:
    kinds = {"raw": socket.SOCK_RAW, "datagram": socket.SOCK_DGRAM}
    return [f"a {name} packet socket opens" for name, kind in kinds.items() if opens(17, kind, 0x300)]


def odd_sockets(bait: Bait) -> list[str]:
    found = []
    for name, family in FAMILIES.items():
        if any(
            opens(family, kind) for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET)
        ):
            found.append(f"a socket of the family {name} opens")
    return found
