"""Which hosts and buckets photos may be read from: the settings, parsed and matched. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TypeVar

from shashin.errors import UserError

T = TypeVar("T")

HTTPS_PORT = 443
_HOST = re.compile(r"(\*\.)?[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?|\[[0-9a-f:.]+\]")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,221}[a-z0-9]")

Network = IPv4Network | IPv6Network


@dataclass(frozen=True)
class HostPattern:
    """A host, or with ``*.`` in front every host below it, with its port."""

    name: str
    port: int

    def matches(self, host: str, port: int) -> bool:
        """Whether a host, in lower case, is meant."""
        if port != self.port:
            return False
        if self.name.startswith("*."):
            return host.endswith(self.name[1:]) and len(host) > len(self.name) - 1
        return host == self.name


def parse_hosts(text: str) -> tuple[HostPattern, ...]:
    """Return the hosts in a setting: ``HOST``, ``*.HOST`` or ``HOST:PORT``, comma-separated.

    Raises:
        UserError: when an entry is none of these.
    """
    return _parse(text, _host)


def parse_buckets(text: str) -> tuple[str, ...]:
    """Return the buckets in a setting: ``s3://BUCKET`` or ``gs://BUCKET``, comma-separated.

    Raises:
        UserError: when an entry is neither.
    """
    return _parse(text, _bucket)


def parse_networks(text: str) -> tuple[Network, ...]:
    """Return the networks in a setting, in CIDR notation, comma-separated.

    Raises:
        UserError: when an entry is no network.
    """
    return _parse(text, _network)


def _parse(text: str, parse: Callable[[str], T]) -> tuple[T, ...]:
    return tuple(parse(entry.strip()) for entry in text.split(",") if entry.strip())


def _host(entry: str) -> HostPattern:
    found = re.fullmatch(r"(.+?)(?::(\d{1,5}))?", entry)
    name, port = (found[1].lower(), int(found[2] or HTTPS_PORT)) if found else ("", 0)
    if not _HOST.fullmatch(name) or not 1 <= port <= 65535:
        raise UserError(
            f"{entry!r} is not a host: expected img.example.com, *.example.com or "
            "img.example.com:8443, without https://"
        )
    return HostPattern(name.strip("[]"), port)


def _bucket(entry: str) -> str:
    scheme, separator, name = entry.partition("://")
    if scheme not in {"s3", "gs"} or not separator or not _BUCKET.fullmatch(name):
        raise UserError(f"{entry!r} is not a bucket: expected s3://BUCKET or gs://BUCKET")
    return entry


def _network(entry: str) -> Network:
    try:
        return ip_network(entry)
    except ValueError as error:
        raise UserError(f"{error}: expected a network such as 10.1.0.0/16") from None


_NAT64 = ip_network("64:ff9b::/96")
_GLOBAL_UNICAST = ip_network("2000::/3")


def reached_address(text: str) -> IPv4Address | IPv6Address:
    """Return the address that a connection reaches: that within one which embeds another.

    Raises:
        ValueError: when it is not an address.
    """
    address = ip_address(text.partition("%")[0])
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour or address


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether an address is on the public Internet, for one host: nothing private or special."""
    if isinstance(address, IPv6Address) and (
        address not in _GLOBAL_UNICAST or address.teredo is not None
    ):
        return False
    return address.is_global and not (
        address.is_multicast
        or address.is_private
        or address.is_loopback
        or address.is_link_local
        or address.is_reserved
        or address.is_unspecified
    )
