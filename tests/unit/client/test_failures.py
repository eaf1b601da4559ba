"""Errors of calls: what the server sends is what the client raises."""

from __future__ import annotations

import pytest
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st

from shashin.client import SearchError
from shashin.client.failures import failure_of
from shashin.errors import (
    ApiKeyMissing,
    ApiKeyRefused,
    CallFailed,
    DeadlineExceeded,
    EmbedderOverloaded,
    InvalidQuery,
    ListingNotFound,
    NoEndpoint,
    NotServing,
    Overloaded,
    PhotoError,
    PhotoTooLarge,
    PhotoUndecodable,
    RateLimited,
    RecordsLost,
    ShashinError,
    Unauthenticated,
    Unavailable,
)
from shashin.rpc.error_details import message_of, status_of

RAISED = (
    ApiKeyMissing,
    ApiKeyRefused,
    DeadlineExceeded,
    EmbedderOverloaded,
    InvalidQuery,
    ListingNotFound,
    NoEndpoint,
    NotServing,
    Overloaded,
    PhotoTooLarge,
    PhotoUndecodable,
    RateLimited,
)


@given(
    st.sampled_from(RAISED),
    st.text(st.characters(exclude_categories=["Cs"])),
    st.integers(0, 10**6),
)
def test_an_error_of_the_router_is_the_same_error_in_the_client(
    kind: type[ShashinError], message: str, milliseconds: int
) -> None:
    raised = kind(message, retry_after_seconds=milliseconds / 1000)
    details = status_of(raised).SerializeToString()
    found = failure_of(kind.grpc_status, message_of(raised), details, "router:1").error
    assert type(found) is kind
    assert (found.message, found.reason) == (message, raised.reason)
    assert found.retryable == raised.retryable
    if kind is not InvalidQuery:
        assert found.retry_after_seconds == pytest.approx(milliseconds / 1000)


def test_an_invalid_query_names_its_field() -> None:
    raised = InvalidQuery("filter.prices[0].currency is '?'; expected a code")
    details = status_of(raised, ["filter"]).SerializeToString()
    found = failure_of("INVALID_ARGUMENT", message_of(raised), details, "router:1").error
    assert isinstance(found, InvalidQuery)
    assert found.field == "filter.prices[0].currency"


@pytest.mark.parametrize("error", [RecordsLost, NoEndpoint])
def test_a_reason_of_a_newer_router_is_kept(error: type[ShashinError]) -> None:
    sent = status_of(error("what", retry_after_seconds=2.0))
    info = error_details_pb2.ErrorInfo()
    sent.details[0].Unpack(info)
    info.reason = "ReasonOfTomorrow"
    sent.details[0].Pack(info)
    found = failure_of(
        error.grpc_status, "ReasonOfTomorrow: what", sent.SerializeToString(), "a"
    ).error
    assert isinstance(found, CallFailed)
    assert (found.reason, found.message) == ("ReasonOfTomorrow", "what")
    assert (found.retryable, found.retry_after_seconds) == (error.retryable, 2.0)


@pytest.mark.parametrize(
    ("status", "kind", "retryable"),
    [
        ("UNAVAILABLE", Unavailable, True),
        ("CANCELLED", Unavailable, True),
        ("DEADLINE_EXCEEDED", DeadlineExceeded, True),
        ("UNAUTHENTICATED", Unauthenticated, False),
        ("RESOURCE_EXHAUSTED", CallFailed, False),
        ("UNIMPLEMENTED", CallFailed, False),
    ],
)
@pytest.mark.parametrize("details", [None, b"", b"\xffgarbage"])
def test_what_no_router_answered_is_named_by_its_status(
    status: str, kind: type[ShashinError], retryable: bool, details: bytes | None
) -> None:
    found = failure_of(status, "it is what it is", details, "router:1").error
    assert type(found) is kind
    assert found.retryable == retryable
    assert "router:1: it is what it is" in found.message


def test_details_of_another_domain_say_when_to_return_and_no_more() -> None:
    sent = status_pb2.Status()
    sent.details.add().Pack(error_details_pb2.ErrorInfo(reason="InvalidQuery", domain="a.proxy"))
    retry = error_details_pb2.RetryInfo()
    retry.retry_delay.FromMilliseconds(1500)
    sent.details.add().Pack(retry)
    found = failure_of("RESOURCE_EXHAUSTED", "slow down", sent.SerializeToString(), "a").error
    assert type(found) is Overloaded
    assert found.retry_after_seconds == 1.5


@given(st.binary())
def test_no_details_break_the_client(details: bytes) -> None:
    assert isinstance(failure_of("UNAVAILABLE", "", details, "a").error, SearchError)


def test_errors_are_caught_by_their_groups() -> None:
    assert issubclass(ApiKeyRefused, Unauthenticated)
    assert issubclass(NoEndpoint, Unavailable)
    assert issubclass(PhotoTooLarge, PhotoError)
    assert all(issubclass(kind, SearchError) for kind in RAISED)
