"""Addresses of routers as users write them."""

from __future__ import annotations

import pytest

from shashin.errors import UserError
from shashin.rpc.router_address import RouterAddress


@pytest.mark.parametrize(
    ("address", "parsed"),
    [
        ("router:50051", RouterAddress("router:50051", with_tls=False)),
        ("grpc://router:50051", RouterAddress("dns:///router:50051", with_tls=False)),
        ("grpcs://router:443", RouterAddress("dns:///router:443", with_tls=True)),
        ("dns:///router:50051", RouterAddress("dns:///router:50051", with_tls=False)),
        (
            "10.0.0.1:50051,10.0.0.2:50051",
            RouterAddress("ipv4:10.0.0.1:50051,10.0.0.2:50051", with_tls=False, several=True),
        ),
        (
            "grpcs://[::1]:1,[::2]:2",
            RouterAddress("ipv6:[::1]:1,[::2]:2", with_tls=True, several=True),
        ),
    ],
)
def test_an_address_is_parsed(address: str, parsed: RouterAddress) -> None:
    assert RouterAddress.parsed(address) == parsed


@pytest.mark.parametrize(
    "address",
    [
        "",
        "http://router:1",
        "a b:1",
        "one:1,two:2",
        "10.0.0.1:1,[::1]:1",
        "10.0.0.999:1,10.0.0.1:1",
    ],
)
def test_anything_else_is_refused_in_words(address: str) -> None:
    with pytest.raises(UserError, match="expected"):
        RouterAddress.parsed(address)
