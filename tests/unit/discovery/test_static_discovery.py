"""Discovery of a list in the setting: each part is an endpoint, or rejected by name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shashin.discovery.open import open_discovery
from shashin.discovery.protocol import Endpoint
from shashin.errors import UserError

HOSTS = st.sampled_from(["127.0.0.1", "index-server.shop.svc", "gpu", "[::1]", "[fd00:0:1::7]"])
MODELS = st.text(
    st.characters(exclude_characters=",", exclude_categories=["C", "Z"]), min_size=1, max_size=8
)
SERVED = st.sampled_from(
    ["indexer", "indexer/live", "embedder", *(f"index-server/{t}" for t in ("hourly", "daily"))]
)


async def endpoints_of(text: str) -> list[Endpoint]:
    return await open_discovery(f"static:{text}").endpoints()


async def test_each_part_is_an_endpoint_sorted_by_name() -> None:
    found = await endpoints_of(
        "indexer=127.0.0.1:50053,index-server/hourly=10.0.0.7:50054,embedder=10.0.0.8:50052"
    )
    assert found == [
        Endpoint("embedder", "embedder", "10.0.0.8:50052"),
        Endpoint("index-server-hourly", "index-server", "10.0.0.7:50054", "hourly"),
        Endpoint("indexer", "indexer", "127.0.0.1:50053", "live"),
    ]


async def test_a_part_may_name_the_model() -> None:
    (found,) = await endpoints_of("index-server/daily@demo-v1=index-server:50054")
    assert (found.tier, found.model_id) == ("daily", "demo-v1")
    assert found.address == "index-server:50054"


async def test_an_ipv6_address_is_in_brackets() -> None:
    (found,) = await endpoints_of("embedder@demo-v1=[fd00::7]:50052")
    assert found.address == "[fd00::7]:50052"


async def test_a_part_may_name_its_group_of_replicas_and_its_zone() -> None:
    both, grouped = await endpoints_of(
        "index-server/hourly@m;x=a:1;group=hourly-0;zone=eu-1a,index-server/hourly=[::1]:2;group=hourly-0"
    )
    assert (both.model_id, both.address) == ("m;x", "a:1")
    assert (both.group, both.zone) == ("hourly-0", "eu-1a")
    assert (grouped.address, grouped.group, grouped.zone) == ("[::1]:2", "hourly-0", "")
    assert both.group_key == grouped.group_key


async def test_endpoints_without_a_group_or_of_another_tier_are_no_replicas() -> None:
    found = await endpoints_of(
        "index-server/hourly=a:1,index-server/hourly=b:1,"
        "index-server/hourly=c:1;group=x,index-server/daily=d:1;group=x"
    )
    assert len({endpoint.group_key for endpoint in found}) == 4


async def test_endpoints_with_the_same_name_are_numbered_in_order() -> None:
    found = await endpoints_of(
        "index-server/hourly=b:1, index-server/hourly=a:1,\nindex-server/daily=c:1"
    )
    assert [(endpoint.name, endpoint.address) for endpoint in found] == [
        ("index-server-daily", "c:1"),
        ("index-server-hourly-0", "b:1"),
        ("index-server-hourly-1", "a:1"),
    ]


@given(
    st.lists(
        st.tuples(SERVED, st.none() | MODELS, HOSTS, st.integers(1, 65535)),
        min_size=1,
        max_size=5,
        unique_by=lambda part: part[2:],
    )
)
async def test_any_list_of_endpoints_is_parsed(
    parts: list[tuple[str, str | None, str, int]],
) -> None:
    written = [
        f"{served}{'' if model is None else f'@{model}'}={host}:{port}"
        for served, model, host, port in parts
    ]
    found = await endpoints_of(",".join(written))
    assert len({endpoint.name for endpoint in found}) == len(parts)
    assert sorted((e.role, e.model_id, e.address) for e in found) == sorted(
        (served.partition("/")[0], model or "", f"{host}:{port}")
        for served, model, host, port in parts
    )


GOOD = "indexer=127.0.0.1:50053"


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ("indexer", "it has no address"),
        ("=h:1", "unknown role '', expected indexer, index-server or embedder"),
        ("router=h:1", "unknown role 'router'"),
        ("Indexer=h:1", "unknown role 'Indexer'"),
        ("index-server=h:1", "the tier is missing, expected index-server/hourly"),
        ("index-server/=h:1", "the tier is missing"),
        ("index-server/live=h:1", "unknown tier 'live'"),
        ("index-server/horly=h:1", "unknown tier 'horly'"),
        ("indexer/hourly=h:1", "unknown tier 'hourly', expected indexer/live"),
        ("embedder/hourly=h:1", "an embedder has no tier"),
        ("embedder@=h:1", "no model follows the @"),
        ("embedder=h", "address 'h' has no port"),
        ("embedder=h:", "the port '', which is not in the range 1 to 65535"),
        ("embedder=h:0", "the port '0'"),
        ("embedder=h:65536", "the port '65536'"),
        ("embedder=h:grpc", "the port 'grpc'"),
        ("embedder=h:²", "the port '²'"),
        ("embedder=:50052", "'' is not a valid host"),
        ("embedder=a b:1", "'a b' is not a valid host"),
        ("embedder=http://h:1", "'http://h' is not a valid host"),
        ("embedder=h/x:1", "'h/x' is not a valid host"),
        ("embedder=fd00::7:50052", "the IPv6 address 'fd00::7' is not in brackets"),
        ("embedder=[fd00::7]", "address '[fd00::7]' has the port '7]'"),
        ("embedder=[fd00::z]:1", "'fd00::z' is not an IPv6 address"),
        ("embedder=[]:1", "'' is not an IPv6 address"),
        ("embedder=h:1;rack=a", "unknown option 'rack', expected group or zone"),
        ("embedder=h:1;group=", "group '' is not a name"),
        ("embedder=h:1;zone=a b", "zone 'a b' is not a name"),
        ("embedder=h:1;zone=a;zone=a", "zone is given twice"),
        ("embedder=127.0.0.1:50053", f"'{GOOD}' has the same address"),
    ],
)
def test_an_invalid_part_is_named_with_what_was_expected(wrong: str, why: str) -> None:
    with pytest.raises(UserError) as refused:
        open_discovery(f"static:{GOOD},{wrong}")
    assert refused.value.message.startswith(f"endpoint {wrong!r} is invalid: ")
    assert why in refused.value.message


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "the list is empty"),
        (" ", "the list is empty"),
        (f"{GOOD},", "endpoint 2 of 2 is empty"),
        (f",{GOOD}", "endpoint 1 of 2 is empty"),
    ],
)
def test_an_empty_endpoint_is_named_by_its_position(text: str, named: str) -> None:
    with pytest.raises(UserError, match=named):
        open_discovery(f"static:{text}")
