"""Discovery of a fixed list in the setting itself: for compose files and tests.

``static:indexer=127.0.0.1:50053,index-server/hourly@demo-v1=[fd00::7]:50054,embedder=gpu:50052``

``;group=`` and ``;zone=`` after an address name the replicas that hold the same shards, and where they
run: ``index-server/hourly=10.0.0.7:50054;group=hourly-0;zone=a``
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from ipaddress import AddressValueError, IPv6Address
from typing import get_args

from shashin.discovery.protocol import EMBEDDER, INDEX_SERVER, INDEXER, Endpoint, Role
from shashin.errors import UserError
from shashin.model_space import ModelSpace
from shashin.tiers import LIVE, TIERS

FORM = "static:ROLE/TIER@MODEL=HOST:PORT;group=GROUP;zone=ZONE,..."
"""The form of the URI; tier, model, group and zone are optional."""

_OPTIONS = ("group", "zone")
# Without a colon: what follows a model's id that looks like an option is an address, with a port.
_OPTION = re.compile(r";(?P<name>[^;=:]*)=(?P<value>[^;=:]*)$")
_OPTION_VALUE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}")
_ROLES: tuple[Role, ...] = get_args(Role)
_SERVED_TIERS = tuple(tier for tier in TIERS if tier != LIVE)


class StaticDiscovery:
    """Always the same endpoints, whether they respond or not."""

    def __init__(self, endpoints: Iterable[Endpoint]) -> None:
        self._endpoints = sorted(endpoints)

    async def endpoints(self) -> list[Endpoint]:
        """Return all of them."""
        return self._endpoints

    async def active_model(self) -> ModelSpace | None:
        """Return None: callers use the model of their settings."""
        return None

    @property
    def problem(self) -> str | None:
        """Return None: nothing can be out of date."""
        return None

    async def close(self) -> None:
        """Do nothing: nothing is open."""


def static_endpoints(text: str) -> list[Endpoint]:
    """Parse the endpoints after ``static:``, in their order.

    They are named after role and tier, and numbered from 0 if several share them.

    Raises:
        UserError: naming the invalid part.
    """
    parts = [part.strip() for part in text.split(",")]
    if "" in parts:
        which = f"endpoint {parts.index('') + 1} of {len(parts)}" if text.strip() else "the list"
        raise UserError(f"{which} is empty, expected {FORM}")
    endpoints = [_endpoint(part) for part in parts]
    seen: dict[str, str] = {}
    for part, endpoint in zip(parts, endpoints, strict=True):
        if endpoint.address in seen:
            raise _invalid(part, f"{seen[endpoint.address]!r} has the same address")
        seen[endpoint.address] = part
    return _numbered(endpoints)


def _endpoint(part: str) -> Endpoint:
    # From the right: neither an address nor an option's value can contain an equals sign.
    options: dict[str, str] = {}
    core = part
    while option := _OPTION.search(core):
        name, value = option.group("name"), option.group("value")
        core = core[: option.start()]
        _check_option(part, name, value, options)
        options[name] = value
    served, equals, address = core.rpartition("=")
    if not equals:
        raise _invalid(part, "it has no address, expected ROLE/TIER@MODEL=HOST:PORT")
    role_and_tier, at, model_id = served.partition("@")
    if at and not model_id:
        raise _invalid(part, "no model follows the @")
    role_name, slash, tier = role_and_tier.partition("/")
    role = next((known for known in _ROLES if known == role_name), None)
    if role is None:
        raise _invalid(part, f"unknown role {role_name!r}, expected {_any_of(_ROLES)}")
    if slash or role == INDEX_SERVER:
        _check_tier(part, role, tier)
    problem = _address_problem(address)
    if problem:
        raise _invalid(part, f"{problem}, expected HOST:PORT or [IPV6]:PORT")
    name = f"{role}-{tier}" if role == INDEX_SERVER else role
    return Endpoint(
        name,
        role,
        address,
        LIVE if role == INDEXER else tier,
        model_id,
        group=options.get("group", ""),
        zone=options.get("zone", ""),
    )


def _check_option(part: str, name: str, value: str, known: Mapping[str, str]) -> None:
    if name not in _OPTIONS:
        raise _invalid(part, f"unknown option {name!r}, expected {_any_of(_OPTIONS)}")
    if name in known:
        raise _invalid(part, f"{name} is given twice")
    if not _OPTION_VALUE.fullmatch(value):
        raise _invalid(
            part, f"{name} {value!r} is not a name: expected letters, digits, '.', '_' or '-'"
        )


def _check_tier(part: str, role: Role, tier: str) -> None:
    if role == EMBEDDER:
        raise _invalid(part, "an embedder has no tier")
    expected = (LIVE,) if role == INDEXER else _SERVED_TIERS
    if tier not in expected:
        found = f"unknown tier {tier!r}" if tier else "the tier is missing"
        raise _invalid(
            part, f"{found}, expected {_any_of(f'{role}/{known}' for known in expected)}"
        )


def _address_problem(address: str) -> str | None:
    host, colon, port = address.rpartition(":")
    if not colon:
        return f"address {address!r} has no port"
    if not (port.isascii() and port.isdigit() and 1 <= int(port) <= 65535):
        return f"address {address!r} has the port {port!r}, which is not in the range 1 to 65535"
    return _host_problem(host)


def _host_problem(host: str) -> str | None:
    if host.startswith("[") and host.endswith("]"):
        try:
            IPv6Address(host[1:-1])
        except AddressValueError:
            return f"{host[1:-1]!r} is not an IPv6 address"
        return None
    if not host or any(c.isspace() or c in "/[]@" for c in host):
        return f"{host!r} is not a valid host"
    if ":" in host:
        return f"the IPv6 address {host!r} is not in brackets"
    return None


def _numbered(endpoints: list[Endpoint]) -> list[Endpoint]:
    counts = Counter(endpoint.name for endpoint in endpoints)
    used: Counter[str] = Counter()
    named = []
    for endpoint in endpoints:
        name = endpoint.name
        if counts[name] > 1:
            named.append(replace(endpoint, name=f"{name}-{used[name]}"))
            used[name] += 1
        else:
            named.append(endpoint)
    return named


def _invalid(part: str, why: str) -> UserError:
    return UserError(f"endpoint {part!r} is invalid: {why}")


def _any_of(choices: Iterable[str]) -> str:
    *others, last = choices
    return f"{', '.join(others)} or {last}" if others else last
