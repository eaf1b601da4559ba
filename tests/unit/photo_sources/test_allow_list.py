"""Hosts, buckets and networks that photos may be read from, and addresses that never are."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shashin.errors import UserError
from shashin.photo_sources.allow_list import (
    HostPattern,
    is_public,
    parse_buckets,
    parse_hosts,
    parse_networks,
    reached_address,
)


def test_hosts_are_exact_or_everything_below_with_their_port() -> None:
    hosts = parse_hosts("img.example.com, *.CDN.example.com ,photos:8443,[::1]:444,")
    assert hosts == (
        HostPattern("img.example.com", 443),
        HostPattern("*.cdn.example.com", 443),
        HostPattern("photos", 8443),
        HostPattern("::1", 444),
    )
    assert parse_hosts(" ") == ()


@pytest.mark.parametrize(
    ("host", "port", "matches"),
    [
        ("a.example.com", 443, True),
        ("a.b.example.com", 443, True),
        ("example.com", 443, False),
        (".example.com", 443, False),
        ("example.com.evil.org", 443, False),
        ("evil-example.com", 443, False),
        ("a.example.com", 8443, False),
    ],
)
def test_a_wildcard_is_any_host_below_it_and_nothing_else(
    host: str, port: int, matches: bool
) -> None:
    assert HostPattern("*.example.com", 443).matches(host, port) is matches


@pytest.mark.parametrize(
    "text",
    ["https://example.com", "*", "*.", "a.*.com", "a b", "example.com/x", "x:0", "x:99999", "u@x"],
)
def test_anything_else_is_not_a_host(text: str) -> None:
    with pytest.raises(UserError, match="is not a host: expected"):
        parse_hosts(f"img.example.com,{text}")


def test_buckets_have_a_scheme() -> None:
    assert parse_buckets("s3://photos, gs://more.photos") == ("s3://photos", "gs://more.photos")


@pytest.mark.parametrize("text", ["photos", "s3://", "s3://a/b", "file://photos", "s3://A_B!"])
def test_anything_else_is_not_a_bucket(text: str) -> None:
    with pytest.raises(UserError, match="is not a bucket: expected"):
        parse_buckets(text)


@pytest.mark.parametrize("text", ["10.0.0.0/40", "10.1.2.3/8", "home"])
def test_anything_else_is_not_a_network(text: str) -> None:
    with pytest.raises(UserError, match=r"expected a network such as 10\.1\.0\.0/16"):
        parse_networks(text)


@pytest.mark.parametrize(
    "address",
    [
        *("0.0.0.0", "10.1.2.3", "100.64.0.1", "127.0.0.1", "169.254.169.254", "172.16.0.1"),
        *("192.168.0.1", "192.0.2.1", "198.18.0.1", "224.0.0.1", "239.1.1.1", "240.0.0.1"),
        *("255.255.255.255", "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12:3456::1"),
        *("ff02::1", "ff0e::1", "2001:db8::1", "::127.0.0.1", "::ffff:127.0.0.1"),
        *("::ffff:10.0.0.1", "64:ff9b::10.0.0.1", "64:ff9b:1::1", "2002:7f00:1::", "2002:a00:1::"),
        *("2001:0:4136:e378:8000:63bf:3fff:fdd2", "fec0::1", "100::1"),
    ],
)
def test_an_address_that_is_not_public_is_known_in_every_form(address: str) -> None:
    assert not is_public(reached_address(address))


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "93.184.216.34", "2606:2800:220:1::1", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8"],
)
def test_a_public_address_is_known(address: str) -> None:
    assert is_public(reached_address(address))


@given(st.ip_addresses(v=4))
def test_embedding_an_address_changes_nothing(address: IPv4Address) -> None:
    plain = is_public(address)
    embedded = (
        IPv6Address((0xFFFF << 32) + int(address)),
        IPv6Address(int(ip_address("64:ff9b::")) + int(address)),
        IPv6Address((0x2002 << 112) + (int(address) << 80)),
    )
    for form in embedded:
        assert is_public(reached_address(str(form))) is plain
