"""The required configuration of the topics."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shashin.kafka.topics import (
    DEAD_LETTER_SUFFIX,
    HIDDEN_DEPENDS_ON,
    IMAGES_DOWNLOADED,
    INDEXES_SEALED,
    LISTINGS_EVENTS,
    LISTINGS_HIDDEN,
    MAX_RECORD_BYTES,
    TOPICS,
    VECTORS_EMBEDDED,
    hidden_key,
    hidden_retention_ms,
    wrong_hidden_retention,
    wrong_settings,
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


HIDDEN = BY_NAME[LISTINGS_HIDDEN]
DAY_MS = 24 * 3600 * 1000
DEPENDS_ON = {name: BY_NAME[name].config for name in HIDDEN_DEPENDS_ON}


def test_hidden_listings_outlive_every_way_of_an_event_to_its_row() -> None:
    assert HIDDEN.config["cleanup.policy"] == "compact,delete"
    assert HIDDEN.config["retention.bytes"] == "-1"
    days = int(HIDDEN.config["retention.ms"]) / DAY_MS
    twice_each_topic, dead_letters, segments, repeats = 2 * (30 + 7 + 400), 3 * 90, 9 * 7, 30
    assert days == twice_each_topic + dead_letters + segments + repeats
    assert wrong_hidden_retention(HIDDEN.config, DEPENDS_ON) == []


@given(
    st.dictionaries(
        st.sampled_from(HIDDEN_DEPENDS_ON), st.integers(-1, 500).map(lambda days: days * DAY_MS)
    ),
    st.integers(-1, 5000),
)
def test_a_retention_that_is_too_short_is_named_with_the_one_that_suffices(
    changed: dict[str, int], days: int
) -> None:
    others = {
        name: {**config, "retention.ms": str(changed.get(name, config["retention.ms"]))}
        for name, config in DEPENDS_ON.items()
    }
    actual = {**HIDDEN.config, "retention.ms": str(max(-1, days * DAY_MS))}
    needed = hidden_retention_ms(others)
    wrong = wrong_hidden_retention(actual, others)
    if days >= 0 and (needed is None or days * DAY_MS < needed):
        (setting,) = wrong
        assert (setting.name, setting.expected) == ("retention.ms", str(needed or -1))
        corrected = {**actual, setting.name: setting.expected}
        assert wrong_hidden_retention(corrected, others) == []
    else:
        assert wrong == []


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"cleanup.policy": "compact", "retention.ms": "1", "retention.bytes": "7"}, []),
        ({"cleanup.policy": "delete,compact"}, []),
        ({"cleanup.policy": "delete"}, ["cleanup.policy"]),
        ({"retention.bytes": "7"}, ["retention.bytes"]),
    ],
)
def test_hidden_listings_may_be_compacted_alone_and_never_only_deleted(
    changes: dict[str, str], wrong: list[str]
) -> None:
    actual = {**HIDDEN.config, "max.message.bytes": "1048588", **changes}
    found = [*wrong_settings(HIDDEN, actual), *wrong_hidden_retention(actual, DEPENDS_ON)]
    assert [setting.name for setting in found] == wrong


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
