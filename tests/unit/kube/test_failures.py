"""Failures of the API become errors that say what was asked, why it failed and what to do."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shashin.errors import (
    KubernetesConflict,
    KubernetesError,
    KubernetesForbidden,
    KubernetesGone,
    KubernetesInvalid,
    KubernetesNotFound,
    KubernetesUnauthenticated,
    KubernetesUnavailable,
)
from shashin.kube.failures import MAX_RETRY_AFTER_SECONDS, failure, failure_of
from shashin.kube.resource import Request, Resource

SLICES = Resource("discovery.k8s.io", "v1", "endpointslices")
REQUEST = Request("watch", SLICES, "shop")


def status(code: int, message: str = "why", **fields: object) -> bytes:
    return json.dumps({"kind": "Status", "code": code, "message": message, **fields}).encode()


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (400, KubernetesInvalid),
        (401, KubernetesUnauthenticated),
        (403, KubernetesForbidden),
        (404, KubernetesNotFound),
        (408, KubernetesUnavailable),
        (409, KubernetesConflict),
        (410, KubernetesGone),
        (422, KubernetesInvalid),
        (429, KubernetesUnavailable),
        (500, KubernetesUnavailable),
        (503, KubernetesUnavailable),
        (504, KubernetesUnavailable),
    ],
)
def test_a_status_has_its_error(code: int, error: type[KubernetesError]) -> None:
    found = failure(code, {}, status(code), REQUEST)
    assert type(found) is error
    assert found.message.startswith(
        "cannot watch endpointslices.discovery.k8s.io in namespace 'shop': "
    )
    assert "why" in found.message
    assert found.retryable == (error is KubernetesUnavailable)


@given(st.integers(300, 599), st.binary(max_size=400), st.text(max_size=9))
def test_any_response_becomes_an_error_of_one_line(code: int, body: bytes, after: str) -> None:
    found = failure(code, {"Retry-After": after}, body, REQUEST)
    assert found.message
    assert "\n" not in found.message
    assert len(found.message) < 1000


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
FIELDS = st.sampled_from(["code", "message", "details", "reason"])
DETAILS = st.dictionaries(st.sampled_from(["causes", "retryAfterSeconds"]), json_values)


@given(st.dictionaries(FIELDS, json_values | DETAILS))
def test_any_status_object_becomes_an_error(found: dict[str, object]) -> None:
    assert isinstance(failure_of(found, REQUEST), KubernetesError)


@pytest.mark.parametrize(
    ("namespace", "where"),
    [("shop", "in a Role of namespace 'shop'"), (None, "in a ClusterRole")],
)
def test_what_rbac_lacks_is_named(namespace: str | None, where: str) -> None:
    request = Request("patch", SLICES, namespace, "one", "status")
    found = failure(403, {}, status(403), request)
    assert found.message.endswith(
        "grant the verb 'patch' on 'endpointslices/status' of API group 'discovery.k8s.io' " + where
    )


def test_an_invalid_object_has_every_cause_and_not_the_message_that_repeats_them() -> None:
    causes = [{"field": f"spec.f{number}", "message": f"wrong {number}"} for number in range(12)]
    found = failure(422, {}, status(422, "a long list", details={"causes": causes}), REQUEST)
    assert "spec.f0: wrong 0; spec.f1: wrong 1; " in found.message
    assert found.message.endswith("spec.f9: wrong 9; and 2 more")
    assert "a long list" not in found.message


@pytest.mark.parametrize(
    ("header", "details", "seconds"),
    [
        ("3", None, 3.0),
        (None, 7, 7.0),
        ("3", 7, 3.0),
        ("9999", None, MAX_RETRY_AFTER_SECONDS),
        ("-1", None, 0.0),
        ("soon", None, 0.0),
        ("nan", "x", 0.0),
        (None, None, 0.0),
    ],
)
def test_a_server_may_ask_to_be_left_alone(
    header: str | None, details: object, seconds: float
) -> None:
    headers = {} if header is None else {"Retry-After": header}
    body = status(429, details={"retryAfterSeconds": details})
    found = failure(429, headers, body, REQUEST)
    assert isinstance(found, KubernetesUnavailable)
    assert found.retry_after_seconds == seconds


def test_a_page_of_a_proxy_is_shortened() -> None:
    found = failure(502, {}, b"<html>\n  " + b"bad gateway " * 99, REQUEST)
    assert "HTTP status 502: <html> bad gateway" in found.message
    assert found.message.endswith("...")


@pytest.mark.parametrize(
    ("resource", "namespace", "name", "path"),
    [
        (Resource("", "v1", "pods"), None, "", "/api/v1/pods"),
        (Resource("", "v1", "pods"), "shop", "a", "/api/v1/namespaces/shop/pods/a"),
        (SLICES, "shop", "", "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices"),
        (SLICES, "a/b", "?x", "/apis/discovery.k8s.io/v1/namespaces/a%2Fb/endpointslices/%3Fx"),
    ],
)
def test_a_path_is_that_of_the_resource(
    resource: Resource, namespace: str | None, name: str, path: str
) -> None:
    assert resource.path(namespace, name) == path


def test_a_create_goes_to_the_collection_and_is_named_all_the_same() -> None:
    request = Request("create", SLICES, "shop", "one")
    assert request.path.endswith("/endpointslices")
    assert str(request) == "create endpointslices.discovery.k8s.io 'one' in namespace 'shop'"
