"""Slices become endpoints: one per pod that takes new calls, whatever the slices look like."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shashin.discovery.endpoint_slices import (
    active_model_in,
    endpoints_in,
    model_label,
    takes_new_calls,
)
from shashin.discovery.protocol import Endpoint
from shashin.errors import UserError
from shashin.model_space import ModelSpace
from tests.support.kube_objects import config_map, endpoint, endpoint_slice

MAYBE = st.sampled_from([True, False, None])


def addresses(*slices: dict[str, Any]) -> list[str]:
    return [found.address for found in endpoints_in(slices).endpoints]


def test_role_tier_model_group_and_zone_are_kept() -> None:
    found = endpoints_in(
        [
            endpoint_slice("a", endpoint("10.0.0.1", pod="e"), role="embedder", tier="", port=1),
            endpoint_slice("b", endpoint("10.0.0.2", pod="i"), role="indexer", tier="", port=2),
            endpoint_slice(
                "c", endpoint("10.0.0.3", pod="s", zone="z"), tier="daily", model="m", port=3
            ),
        ]
    )
    assert found.endpoints == [
        Endpoint("e", "embedder", "10.0.0.1:1"),
        Endpoint("i", "indexer", "10.0.0.2:2", "live"),
        Endpoint("s", "index-server", "10.0.0.3:3", "daily", "m", group="c", zone="z"),
    ]
    assert not found.problems


def test_pods_of_one_service_of_index_servers_are_replicas_and_no_others_are() -> None:
    def groups(role: str, tier: str) -> set[object]:
        pods = [endpoint(f"10.0.0.{number}", pod=f"pod-{number}") for number in (1, 2, 3)]
        slices = [
            endpoint_slice("a", *pods[:2], role=role, tier=tier, service="one"),
            endpoint_slice("b", *pods[2:], role=role, tier=tier, service="one"),
        ]
        return {found.group_key for found in endpoints_in(slices).endpoints}

    assert len(groups("index-server", "daily")) == 1
    assert len(groups("indexer", "live")) == 3


@pytest.mark.parametrize(
    ("conditions", "takes"),
    [
        ({}, True),
        ({"ready": None, "serving": None, "terminating": None}, True),
        ({"ready": True}, True),
        ({"ready": False}, False),
        ({"ready": True, "serving": True, "terminating": False}, True),
        ({"ready": False, "serving": False, "terminating": False}, False),
        # It drains: it answers, but ends soon.
        ({"ready": False, "serving": True, "terminating": True}, False),
        ({"ready": False, "serving": False, "terminating": True}, False),
        # The Service publishes pods that are not ready, so that ready says nothing.
        ({"ready": True, "serving": False, "terminating": False}, False),
        ({"ready": True, "serving": True, "terminating": True}, False),
    ],
)
def test_only_a_pod_that_answers_and_goes_on_takes_new_calls(
    conditions: dict[str, bool | None], takes: bool
) -> None:
    entry = {"addresses": ["10.0.0.1"], "conditions": conditions}
    assert takes_new_calls(entry) == takes


@given(MAYBE, MAYBE, MAYBE)
def test_a_pod_that_terminates_gets_no_new_call_whatever_else_is_said(
    ready: bool | None, serving: bool | None, terminating: bool | None
) -> None:
    entry = endpoint("10.0.0.1", ready=ready, serving=serving, terminating=terminating)
    if terminating or serving is False:
        assert not takes_new_calls(entry)


@pytest.mark.parametrize("role", ["index-server", "embedder"])
def test_pods_that_are_not_ready_are_called_only_if_no_other_of_their_service_is(role: str) -> None:
    ready = endpoint("10.0.0.1")
    lost = endpoint("10.0.0.2", ready=False, serving=False, terminating=False)
    goes = endpoint("10.0.0.3", ready=False, serving=True, terminating=True)

    def called(*pods: Any) -> list[str]:
        return addresses(endpoint_slice("a", *pods, role=role), endpoint_slice("b", role=role))

    assert called(ready, lost, goes) == ["10.0.0.1:50054"]
    # As when a node was out of Kubernetes' sight for a while: all of its pods answer.
    assert called(lost, goes) == ["10.0.0.2:50054"]
    assert called(goes) == []


def test_an_indexer_is_called_whether_it_is_ready_or_not() -> None:
    ready = endpoint("10.0.0.1", pod="indexer-0")
    lost = endpoint("10.0.0.2", pod="indexer-1", ready=False, serving=False, terminating=False)
    found = addresses(endpoint_slice("indexer", ready, lost, role="indexer"))
    assert found == ["10.0.0.1:50054", "10.0.0.2:50054"]


def test_an_ipv6_address_is_in_brackets() -> None:
    assert addresses(endpoint_slice("a", endpoint("fd00::7", pod="p"), family="IPv6")) == [
        "[fd00::7]:50054"
    ]


def test_a_pod_of_two_address_families_is_called_once() -> None:
    six = endpoint_slice("a", endpoint("fd00::7", pod="p"), family="IPv6")
    four = endpoint_slice("b", endpoint("10.0.0.7", pod="p"))
    assert addresses(six, four) == addresses(four, six) == ["10.0.0.7:50054"]


def test_a_pod_that_moves_between_slices_is_there_once_and_never_away() -> None:
    old = endpoint_slice("a", endpoint("10.0.0.7", pod="p", ready=False, serving=False))
    new = endpoint_slice("b", endpoint("10.0.0.7", pod="p"))
    assert addresses(new, new) == addresses(old, new) == ["10.0.0.7:50054"]


def test_two_services_with_the_same_pods_name_them_once() -> None:
    found = addresses(
        endpoint_slice("a", endpoint("10.0.0.7"), endpoint("10.0.0.8")),
        endpoint_slice("headless", endpoint("10.0.0.7", pod="p")),
    )
    assert sorted(found) == ["10.0.0.7:50054", "10.0.0.8:50054"]


PODS = st.builds(
    lambda number, named, ready: endpoint(
        f"10.0.0.{number}", pod=f"pod-{number}" if named else "", ready=ready, serving=ready
    ),
    st.integers(1, 5),
    st.booleans(),
    st.booleans(),
)
SLICES = st.builds(
    lambda name, pods, tier, port_name: endpoint_slice(name, *pods, tier=tier, port_name=port_name),
    st.sampled_from(["a", "b", "c"]),
    st.lists(PODS, max_size=4),
    st.sampled_from(["hourly", "daily", "weekly"]),
    st.sampled_from(["grpc", "grpc", "http"]),
)


@given(st.lists(SLICES, max_size=5, unique_by=lambda one: one["metadata"]["name"]), st.randoms())
def test_no_address_is_called_twice_and_the_order_of_slices_does_not_matter(
    slices: list[dict[str, Any]], order: random.Random
) -> None:
    found = endpoints_in(slices)
    called = [one.address for one in found.endpoints]
    assert len(set(called)) == len(called)
    assert sorted(found.endpoints) == found.endpoints
    order.shuffle(slices)
    assert endpoints_in(slices) == found


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        (
            endpoint_slice("x", endpoint("10.0.0.1"), role="router"),
            "endpoint slice 'x': label shashin.dev/role is 'router', expected indexer, index-server",
        ),
        (
            endpoint_slice("x", endpoint("10.0.0.1"), tier="live"),
            "endpoint slice 'x': label shashin.dev/tier is 'live', expected hourly, daily, monthly",
        ),
        (
            endpoint_slice("x", endpoint("10.0.0.1"), tier=""),
            "label shashin.dev/tier is '', expected hourly",
        ),
        (
            endpoint_slice("x", endpoint("10.0.0.1"), port_name="http"),
            "endpoint slice 'x': no port is named 'grpc', found 'http'",
        ),
        (
            endpoint_slice("x", endpoint("example.org"), family="FQDN"),
            "endpoint slice 'x': address type 'FQDN', expected IPv4 or IPv6",
        ),
    ],
)
def test_a_slice_that_cannot_be_used_is_named_and_the_others_are_kept(
    wrong: dict[str, Any], problem: str
) -> None:
    found = endpoints_in([wrong, endpoint_slice("good", endpoint("10.0.0.9"))])
    assert [one.address for one in found.endpoints] == ["10.0.0.9:50054"]
    (said,) = found.problems
    assert problem in said


@pytest.mark.parametrize("endpoints", [None, []])
@pytest.mark.parametrize("ports", [None, [], [{"name": None, "port": None}]])
def test_a_service_without_pods_is_no_problem(endpoints: Any, ports: Any) -> None:
    empty = {**endpoint_slice("x"), "endpoints": endpoints, "ports": ports}
    found = endpoints_in([empty])
    assert (found.endpoints, found.problems) == ([], [])


@pytest.mark.parametrize(
    ("model_id", "label"),
    [
        ("demo-v1", "demo-v1"),
        ("a" * 63, "a" * 63),
        ("a" * 64, None),
        ("torchvision:resnet50", None),
        ("demo.", None),
        ("", None),
    ],
)
def test_a_model_id_that_is_no_label_is_left_to_the_endpoint_to_say(
    model_id: str, label: str | None
) -> None:
    assert model_label(model_id) == label


def test_the_active_model_is_read() -> None:
    found = active_model_in(config_map("x", model_id="demo:v1", dimensions="128"))
    assert found == ModelSpace("demo:v1", 128)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ({}, "model_id is missing"),
        ({"model_id": "demo-v1"}, "dimensions is None, expected the length"),
        ({"model_id": "demo-v1", "dimensions": "0"}, "dimensions is '0'"),
        ({"model_id": "demo-v1", "dimensions": "²"}, "dimensions is '²'"),
        ({"model_id": "demo-v1", "dimensions": "9999999"}, "dimensions is '9999999'"),
        ({"model_id": "../x", "dimensions": "128"}, "model id '../x' cannot be used"),
    ],
)
def test_an_active_model_that_is_none_is_refused_by_name(data: dict[str, str], why: str) -> None:
    made = {**config_map("x"), "data": data}
    with pytest.raises(UserError, match="config map 'shashin-active-model': ") as refused:
        active_model_in(made)
    assert why in refused.value.message
