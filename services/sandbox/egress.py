"""Which destination outside a tool may reach: the rules of the allow-list, and which addresses no list can open. No I/O."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

HEAD_BYTES = 8 * 1024

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
# At least one dot, and a last label with a letter first: an address never looks like this, in whatever notation.
_NAME = re.compile(rf"(?=.{{4,253}}$)(?:{_LABEL}\.)+(?=[a-z]){_LABEL}")
_CONNECT = re.compile(rb"CONNECT ([!-~]{1,300}) HTTP/1\.[01]")

# Not global in all but name, or with an IPv4 address inside: "this network", protocol assignments (one cloud's metadata is among
# them), 6to4, NAT64, Teredo, documentation. What `ipaddress` calls global differs between versions of Python, so they are listed.
_NEVER = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3",
        "168.63.129.16/32",  # The host of a virtual machine in Azure.
        "::/3", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20", "4000::/2", "8000::/1",
    )
)  # fmt: skip


class Refused(Exception):
    """A connection that is not made. `reason` is a label of a few values; the message is for people."""

    def __init__(self, reason: str, status: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.status = status


@dataclass(frozen=True)
class Destination:
    """A host, by its name in lower case, and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def destination(text: str) -> Destination:
    """Reads "api.example.com:443".

    Raises:
        ValueError: it is not that; an address in place of a name is none either, since names are what the list is about.
    """
    host, _, port = text.rpartition(":")
    host = host.lower()
    if not _NAME.fullmatch(host) or not re.fullmatch(r"[1-9][0-9]{0,4}", port) or int(port) > 65535:
        raise ValueError(f'{text[:300]!r} is no destination: write "host.example.com:443", a full name and a port, no address')
    return Destination(host, int(port))


def asked(head: bytes, allowed: frozenset[Destination]) -> Destination:
    """Where a request of the proxy wants to go, if it may.

    Raises:
        Refused: it is no CONNECT to a destination in `allowed`.
    """
    line, _, _ = head.partition(b"\r\n")
    found = _CONNECT.fullmatch(line)
    if found is None:
        raise Refused("not_connect", "405 Method Not Allowed", "the proxy answers CONNECT only: use https")
    try:
        wanted = destination(found[1].decode("ascii"))
    except ValueError as error:
        raise Refused("not_a_name", "403 Forbidden", str(error)) from None
    if wanted not in allowed:
        listed = ", ".join(sorted(map(str, allowed)))
        raise Refused("not_listed", "403 Forbidden", f"{wanted} is not in this toolset's network list ({listed})")
    return wanted


def is_public(address: str) -> bool:
    """Whether `address`, as a resolver gives it, is the public internet's: not of this machine, its network or its cloud."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    return parsed.is_global and not any(parsed in network for network in _NEVER if network.version == parsed.version)
