"""A host name -> its addresses, and whether an address belongs to the public internet.

It knows no connections: what is done with an address that is not public is decided elsewhere.
"""

import ipaddress
import socket

_NEVER_PUBLIC = tuple(
    ipaddress.ip_network(network)
    for network in (
        "192.0.0.0/24",  # protocol assignments; some clouds' metadata, and older Pythons take most of it for global
        "192.88.99.0/24",  # relays of 6to4
        "168.63.129.16/32",  # Azure's own services, at an address that is public by number only
        "2001::/23",  # Teredo and other protocol assignments, which can hold an IPv4 address
        "2002::/16",  # 6to4, which holds an IPv4 address
        "3fff::/20",  # documentation
    )
)
_UNICAST_V6 = ipaddress.ip_network("2000::/3")
"""All of IPv6 that is handed out. IPv4 addresses in IPv6 form (mapped, compatible, NAT64) lie outside of it."""


def system_addresses(host: str, port: int) -> list[str]:
    """What the system's resolver knows of a name, in its order, each once. It decides by itself how long it takes.

    Raises:
        OSError: as `socket.getaddrinfo` does.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def is_public(address: str) -> bool:
    """Whether a numeric address can only be that of a host on the public internet.

    False for loopback, private, link-local, shared, multicast, reserved and unspecified addresses, for those of the
    clouds' metadata services, for every IPv6 form of an IPv4 address, and for what is no address at all.
    """
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    if parsed.version == 6 and parsed not in _UNICAST_V6:
        return False
    if any(parsed in network for network in _NEVER_PUBLIC if network.version == parsed.version):
        return False
    return parsed.is_global and not (parsed.is_multicast or parsed.is_reserved)
