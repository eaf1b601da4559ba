"""The required configuration of the topics."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shashin.kafka.topics import (
    DEAD_LETTER_SUFFIX,
    IMAGES_DOWNLOADED,
    INDEXES_SEALED,
    LISTINGS_EVENTS,
    LISTINGS_HIDDEN,
    MAX_RECORD_BYTES,
    TOPICS,
    VECTORS_EMBEDDED,
    hidden_key,
)

BY_NAME = {topic.name: topic for topic in TOPICS}
PIPELINE = (LISTINGS_EVENTS, IMAGES_DOWNLOADED, VECTORS_EMBEDDED)


def test_a_topic_is_defined_once() -> None:
    assert len(BY_NAME) == len(TOPICS)


def test_a_listing_keeps_its_partition_through_the_pipeline_and_in_the_hidden_rows() -> None:
    per_listing = {topic.name for topic in TOPICS if topic.per_listing}
    assert per_listing == {*PIPELINE, LISTINGS_HIDDEN}
    assert INDEXES_SEALED in BY_NAME


def test_every_input_topic_of_a_stage_has_a_dead_letter_topic() -> None:
    dead_letters = {name for name in BY_NAME if name.endswith(DEAD_LETTER_SUFFIX)}
    assert dead_letters == {name + DEAD_LETTER_SUFFIX for name in PIPELINE}


@pytest.mark.parametrize("name", PIPELINE)
def test_the_largest_record_fits_its_dead_letter_topic_together_with_the_cause(name: str) -> None:
    # A record that cannot be dead-lettered would be retried forever.
    largest = int(BY_NAME[name].config.get("max.message.bytes", MAX_RECORD_BYTES))
    assert largest <= MAX_RECORD_BYTES
    limit = int(BY_NAME[name + DEAD_LETTER_SUFFIX].config["max.message.bytes"])
    reasons_of_twenty_photos = 20 * 8 * 1024
    assert limit >= largest + reasons_of_twenty_photos


def test_buckets_are_cut_by_the_clock_of_the_broker() -> None:
    assert BY_NAME[VECTORS_EMBEDDED].config["message.timestamp.type"] == "LogAppendTime"


def test_hidden_listings_have_no_retention_limit() -> None:
    config = BY_NAME[LISTINGS_HIDDEN].config
    assert config["cleanup.policy"] == "compact"
    assert not {"retention.ms", "retention.bytes"} & config.keys()


def test_twenty_thumbnails_fit_a_record() -> None:
    largest = int(BY_NAME[IMAGES_DOWNLOADED].config["max.message.bytes"])
    assert largest == MAX_RECORD_BYTES
    assert largest / 20 > 256 * 256 * 3, "even an incompressible thumbnail fits"


@given(st.lists(st.tuples(st.sampled_from(["lamp", "chair", "lamp\x001"]), st.integers(1, 12))))
def test_compaction_keeps_the_highest_version_of_each_listing_in_any_order(
    written: list[tuple[str, int]],
) -> None:
    kept = {hidden_key(listing, below): (listing, below) for listing, below in written}
    assert _highest(kept.values()) == _highest(written)


def _highest(records: Iterable[tuple[str, int]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for listing, below in records:
        found[listing] = max(below, found.get(listing, 0))
    return found
