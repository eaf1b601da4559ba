"""Discovery that is written out in the setting itself: for compose files and tests.

``static:indexer=127.0.0.1:50053,index-server/hourly@demo-v1=[fd00::7]:50054,embedder=gpu:50052``
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from ipaddress import AddressValueError, IPv6Address
from typing import get_args

from shashin.discovery.protocol import EMBEDDER, INDEX_SERVER, INDEXER, Endpoint, Role
from shashin.errors import UserError
from shashin.tiers import LIVE, TIERS

FORM = "static:ROLE/TIER@MODEL=HOST:PORT,..."
"""How the URI is written; tier and model may be left out."""

_ROLES: tuple[Role, ...] = get_args(Role)
_SERVED_TIERS = tuple(tier for tier in TIERS if tier != LIVE)


class StaticDiscovery:
    """Always the same endpoints, whether they answer or not."""

    def __init__(self, endpoints: Iterable[Endpoint]) -> None:
        self._endpoints = sorted(endpoints)

    async def endpoints(self) -> list[Endpoint]:
        """Return all of them."""
        return self._endpoints

    async def close(self) -> None:
        """Do nothing: nothing is open."""


def static_endpoints(text: str) -> list[Endpoint]:
    """Return the endpoints that are written after ``static:``, in their order.

    They are named for role and tier, and numbered from 0 when several have the same.

    Raises:
        UserError: naming the part that is wrong.
    """
    parts = [part.strip() for part in text.split(",")]
    if "" in parts:
        number = f"endpoint {parts.index('') + 1} of {len(parts)}" if text.strip() else "it"
        raise UserError(f"{number} is empty, expected {FORM}")
    endpoints = [_endpoint(part) for part in parts]
    seen: dict[str, str] = {}
    for part, endpoint in zip(parts, endpoints, strict=True):
        if endpoint.address in seen:
            raise _wrong(part, f"{seen[endpoint.address]!r} has the same address")
        seen[endpoint.address] = part
    return _numbered(endpoints)


def _endpoint(part: str) -> Endpoint:
    # A model's name may hold an equals sign, an address cannot.
    served, equals, address = part.rpartition("=")
    if not equals:
        raise _wrong(part, "it has no address, expected ROLE/TIER@MODEL=HOST:PORT")
    what, at, model_id = served.partition("@")
    if at and not model_id:
        raise _wrong(part, "no model follows the @")
    written, slash, tier = what.partition("/")
    role = next((known for known in _ROLES if known == written), None)
    if role is None:
        raise _wrong(part, f"role {written!r} is not known, expected {_any_of(_ROLES)}")
    if slash or role == INDEX_SERVER:
        _check_tier(part, role, tier)
    fault = _fault_of(address)
    if fault:
        raise _wrong(part, f"{fault}, expected HOST:PORT or [IPV6]:PORT")
    name = f"{role}-{tier}" if role == INDEX_SERVER else role
    return Endpoint(name, role, address, LIVE if role == INDEXER else tier, model_id)


def _check_tier(part: str, role: Role, tier: str) -> None:
    if role == EMBEDDER:
        raise _wrong(part, "an embedder has no tier")
    expected = (LIVE,) if role == INDEXER else _SERVED_TIERS
    if tier not in expected:
        found = f"tier {tier!r} is not known" if tier else "the tier is missing"
        raise _wrong(part, f"{found}, expected {_any_of(f'{role}/{known}' for known in expected)}")


def _fault_of(address: str) -> str | None:
    host, colon, port = address.rpartition(":")
    if not colon:
        return f"address {address!r} has no port"
    if not (port.isascii() and port.isdigit() and 1 <= int(port) <= 65535):
        return f"address {address!r} has the port {port!r}, which is not one of 1 to 65535"
    return _fault_of_host(host)


def _fault_of_host(host: str) -> str | None:
    if host.startswith("[") and host.endswith("]"):
        try:
            IPv6Address(host[1:-1])
        except AddressValueError:
            return f"{host[1:-1]!r} is not an IPv6 address"
        return None
    if not host or any(c.isspace() or c in "/[]@" for c in host):
        return f"{host!r} is not a host"
    if ":" in host:
        return f"the IPv6 address {host!r} has no brackets"
    return None


def _numbered(endpoints: list[Endpoint]) -> list[Endpoint]:
    alike = Counter(endpoint.name for endpoint in endpoints)
    taken: Counter[str] = Counter()
    named = []
    for endpoint in endpoints:
        name = endpoint.name
        if alike[name] > 1:
            named.append(replace(endpoint, name=f"{name}-{taken[name]}"))
            taken[name] += 1
        else:
            named.append(endpoint)
    return named


def _wrong(part: str, why: str) -> UserError:
    return UserError(f"endpoint {part!r} is wrong: {why}")


def _any_of(choices: Iterable[str]) -> str:
    *others, last = choices
    return f"{', '.join(others)} or {last}" if others else last
