"""The time of a listing's event travels with it from stage to stage."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from shashin.kafka.event_time import EVENT_TIME, event_headers, event_ms, observe_since_event
from shashin.kafka.producer import OutRecord
from shashin.kafka.records import InRecord
from shashin.kafka.topics import IMAGES_DOWNLOADED, LISTINGS_EVENTS, VECTORS_EMBEDDED

Headers = tuple[tuple[str, bytes | None], ...]


def record(topic: str, timestamp_ms: int, headers: Headers = ()) -> InRecord:
    return InRecord(topic, 0, 0, timestamp_ms, b"lamp", b"", headers)


@given(appended=st.integers(1, 2**41), later=st.integers(0, 2**41))
def test_every_stage_passes_on_when_the_event_was_appended(appended: int, later: int) -> None:
    first = event_headers(record(LISTINGS_EVENTS, appended))
    second = event_headers(record(IMAGES_DOWNLOADED, later, first))
    assert second == first
    assert event_ms(record(VECTORS_EMBEDDED, later, second)) == appended


@pytest.mark.parametrize(
    "headers",
    [
        (),
        (("trace", b"1"),),
        ((EVENT_TIME, None),),
        ((EVENT_TIME, b""),),
        ((EVENT_TIME, b"soon"),),
        ((EVENT_TIME, b"-5"),),
        ((EVENT_TIME, b"9" * 400),),
        ((EVENT_TIME, "٣".encode()),),
    ],
)
def test_a_record_without_a_usable_time_has_none_and_fails_nothing(headers: Headers) -> None:
    found = record(IMAGES_DOWNLOADED, 5, headers)
    assert event_ms(found) is None
    assert event_headers(found) == ()
    observe_since_event([OutRecord(IMAGES_DOWNLOADED, b"lamp", b"", headers)])


def seen(stage: str) -> tuple[float, float]:
    name, labels = "shashin_pipeline_since_event_seconds", {"stage": stage}
    count = REGISTRY.get_sample_value(f"{name}_count", labels)
    return count or 0.0, REGISTRY.get_sample_value(f"{name}_sum", labels) or 0.0


@pytest.mark.parametrize(
    ("topic", "stage"), [(IMAGES_DOWNLOADED, "downloaded"), (VECTORS_EMBEDDED, "embedded")]
)
def test_the_end_of_a_stage_is_observed_per_listing(topic: str, stage: str) -> None:
    before, total_before = seen(stage)
    appended = int(time.time() * 1000) - 7_200_000
    headers = event_headers(record(LISTINGS_EVENTS, appended))
    observe_since_event(
        [
            OutRecord(topic, b"lamp", b"", headers),
            OutRecord(topic, b"old embedder", b""),
            OutRecord("listings.hidden", b"lamp", b"", headers),
            OutRecord(f"{topic}.dlq", b"lamp", b"", headers),
        ]
    )
    count, total = seen(stage)
    assert count == before + 1
    assert total - total_before >= 7200
