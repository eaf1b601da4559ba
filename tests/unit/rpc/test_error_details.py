"""The details of errors, as any client of gRPC reads them."""

from __future__ import annotations

import pytest
from google.rpc import error_details_pb2
from hypothesis import given
from hypothesis import strategies as st

from shashin.errors import InvalidQuery, NoEndpoint, Overloaded, ShashinError
from shashin.rpc.error_details import field_of, message_of, status_of
from shashin.v1 import search_pb2

FIELDS = search_pb2.SearchRequest.DESCRIPTOR.fields_by_name


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ("k is 600; expected 1 to 500", "k"),
        ("deadline_ms is 70000", "deadline_ms"),
        ("filter.max_price_minor is negative", "filter.max_price_minor"),
        ("parts[2].weight is 11", "parts[2].weight"),
        ("the query has nothing to search for", ""),
        ("keys is no field", ""),
        ("k", ""),
        ("", ""),
    ],
)
def test_the_field_is_what_the_message_begins_with(message: str, field: str) -> None:
    assert field_of(message, FIELDS) == field


@given(st.text(), st.sampled_from([InvalidQuery, NoEndpoint]))
def test_any_message_can_be_sent_and_stays_as_it_is(message: str, kind: type[ShashinError]) -> None:
    error = kind(message.encode("utf-8", "replace").decode())
    status = status_of(error, FIELDS)
    assert type(status).FromString(status.SerializeToString()) == status
    assert status.message == message_of(error) == f"{kind.__name__}: {error.message}"


@given(st.floats(0.001, 1e6))
def test_how_long_to_wait_is_told_exactly(seconds: float) -> None:
    retry = error_details_pb2.RetryInfo()
    details = status_of(Overloaded("full", retry_after_seconds=seconds)).details
    assert any(detail.Unpack(retry) for detail in details)
    assert retry.retry_delay.ToNanoseconds() == pytest.approx(seconds * 1e9, abs=1)


def test_without_a_known_wait_none_is_told() -> None:
    retry = error_details_pb2.RetryInfo()
    assert not any(detail.Unpack(retry) for detail in status_of(NoEndpoint("none")).details)
