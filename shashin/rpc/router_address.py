"""The address of one or several routers, as users write it. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_address

from shashin.errors import UserError

FORMS = "HOST:PORT, dns:///NAME:PORT or grpcs://HOST:PORT"

_TLS = "grpcs://"
_ADDRESS = re.compile(r"(?:(?P<scheme>[a-z0-9]+)://)?(?!.*://)[^\s@?#]+")
_IP_AND_PORT = re.compile(r"(?:\[(?P<v6>[^\]]+)\]|(?P<v4>[0-9.]+)):[0-9]{1,5}")
_SCHEMES = {None, "grpcs", "grpc", "dns"}


@dataclass(frozen=True)
class RouterAddress:
    """Where routers are."""

    target: str
    """As gRPC writes it."""
    with_tls: bool
    several: bool = False
    """Whether it lists several IP addresses, so that it has no name that a certificate could be of."""

    @classmethod
    def parsed(cls, address: str) -> RouterAddress:
        """Parse an address: ``grpcs://NAME:PORT`` is TLS with all routers of the name, all else plaintext.

        ``IP:PORT,IP:PORT`` are several routers.

        Raises:
            UserError: if it does not have one of the forms.
        """
        check_router_address(address)
        with_tls = address.startswith(_TLS)
        if address.startswith((_TLS, "grpc://")):
            address = "dns:///" + address.partition("://")[2]
        if "," in address:
            listed = address.removeprefix("dns:///")
            return cls(f"{_family(listed)}:{listed}", with_tls, several=True)
        return cls(address, with_tls)


def check_router_address(address: str) -> None:
    """Check a router's address.

    Raises:
        UserError: if it does not have one of the forms.
    """
    found = _ADDRESS.fullmatch(address)
    if found is None or found["scheme"] not in _SCHEMES:
        raise UserError(f"{address!r} is not an address of routers: expected {FORMS}")


def _family(listed: str) -> str:
    families = {_family_of(one) for one in listed.split(",")}
    if families == {4}:
        return "ipv4"
    if families == {6}:
        return "ipv6"
    raise UserError(
        f"{listed!r} lists routers that are not all IP addresses with a port, of one family: expected "
        "IP:PORT,IP:PORT; for routers with names, give those one name: dns:///NAME:PORT"
    )


def _family_of(listed: str) -> int:
    found = _IP_AND_PORT.fullmatch(listed)
    try:
        return ip_address(found["v6"] or found["v4"]).version if found is not None else 0
    except ValueError:
        return 0
