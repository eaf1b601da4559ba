"""The newest listings of an endpoint: visible, each once, in order."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shashin.serving.newest import newest_listings
from shashin.shards.format.row import NO_TIME, NewRow, Row, RowAttributes
from shashin.shards.open_shard import OpenShard
from shashin.shards.sealed_shard import SealedShard
from shashin.shards.shard import Shard
from tests.support.hidden_map import HiddenMap
from tests.support.made_shards import BUCKET_START, new_row, open_shard, write


def listed(listing_id: str, at: int = NO_TIME, version: int = 1, photo: int = 0) -> NewRow:
    return new_row(listing_id, version, photo, RowAttributes("shoes", "ACME", 1, "JPY", at))


def names(rows: list[Row]) -> list[str]:
    return [row.listing_id for row in rows]


def at_bucket(shard: OpenShard, bucket: int, rows: list[NewRow]) -> OpenShard:
    shard.add(rows, position=shard.from_offset + len(rows), bucket_start=bucket)
    return shard


def test_what_was_listed_last_comes_first_and_what_has_no_time_in_the_order_of_the_log() -> None:
    shard = open_shard(
        [listed("a"), listed("b", 50), listed("c"), listed("d", 90), listed("e", 50)]
    )
    assert names(newest_listings([shard], 10)) == ["d", "e", "b", "c", "a"]
    assert names(newest_listings([shard], 2)) == ["d", "e"]


def test_a_listing_comes_once_in_its_newest_version_with_its_first_photo() -> None:
    rows = [
        listed("a", 10, photo=0),
        listed("a", 10, photo=1),
        listed("b", 20, photo=2),
        listed("a", 10, version=3, photo=1),
        listed("a", 10, version=3, photo=2),
        listed("a", 10, version=2, photo=0),
    ]
    found = newest_listings([open_shard(rows)], 10)
    assert [(row.listing_id, row.version, row.photo_number) for row in found] == [
        ("b", 1, 2),
        ("a", 3, 1),
    ]


def test_of_two_shards_the_newer_version_counts() -> None:
    old = open_shard([listed("a", 10), listed("b", 20)])
    new = open_shard([listed("a", 30, version=2)], from_offset=2)
    for shards in ([old, new], [new, old]):
        found = newest_listings(shards, 10)
        assert [(row.listing_id, row.version) for row in found] == [("a", 2), ("b", 1)]


def test_hidden_rows_are_absent_whether_hidden_before_or_after_they_came() -> None:
    hidden = HiddenMap()
    hidden.raise_to("a", 2)
    shard = open_shard(
        [listed("a"), listed("b"), listed("b", version=2), listed("c")], hidden=hidden
    )
    shard.hide("c", 2)
    shard.hide("b", 2)
    found = newest_listings([shard], 10)
    assert [(row.listing_id, row.version) for row in found] == [("b", 2)]


def test_older_buckets_are_asked_only_if_newer_ones_have_too_few() -> None:
    hours = [
        at_bucket(
            open_shard(from_offset=10 * n),
            BUCKET_START + 3600 * n,
            [listed(f"{n}-{i}", 1000 * n + i) for i in range(3)],
        )
        for n in range(3)
    ]
    calls: list[int] = []

    class Watched(OpenShard):
        def latest_listings(self, count: int) -> list[tuple[int, Row]]:
            calls.append(self.from_offset)
            return super().latest_listings(count)

    for shard in hours:
        shard.__class__ = Watched
    assert names(newest_listings(hours, 3)) == ["2-2", "2-1", "2-0"]
    assert calls == [20]
    assert len(newest_listings(hours, 4)) == 4
    assert calls == [20, 20, 10]


def test_a_time_in_the_future_is_first_only_among_the_latest_records() -> None:
    shard = open_shard([listed("odd", 10**15), *(listed(f"l-{i}", i) for i in range(5))])
    assert names(newest_listings([shard], 6))[0] == "odd"
    assert names(newest_listings([shard], 5)) == ["l-4", "l-3", "l-2", "l-1", "l-0"]


def test_a_sealed_shard_has_the_same_newest_listings_as_before_it_was_sealed(
    tmp_path: Path,
) -> None:
    shard = open_shard([listed(f"l-{i % 7}", i % 5, version=1 + i // 7) for i in range(20)])
    before = newest_listings([shard], 5)
    sealed = SealedShard(write(shard, tmp_path), tmp_path)
    assert newest_listings([sealed], 5) == before


@pytest.mark.parametrize("read_back", [1, 2, 4096])
@given(
    records=st.lists(
        st.tuples(st.sampled_from("abcdef"), st.integers(1, 3), st.sampled_from([NO_TIME, 1, 2])),
        max_size=30,
        unique_by=lambda record: record[:2],
    ),
    hidden=st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 4)),
    limit=st.integers(1, 8),
)
def test_it_is_what_a_plain_list_would_give(
    read_back: int, records: list[tuple[str, int, int]], hidden: dict[str, int], limit: int
) -> None:
    shard: Shard = open_shard([listed(name, at, version) for name, version, at in records])
    for name, below in hidden.items():
        shard.hide(name, below)
    visible = [
        (number, *record)
        for number, record in enumerate(records)
        if record[1] >= hidden.get(record[0], 0)
    ]
    latest = list(dict.fromkeys(name for _, name, _, _ in reversed(visible)))[:limit]
    newest = [
        max((one for one in visible if one[1] == name), key=lambda one: one[2]) for name in latest
    ]
    expected = sorted(newest, key=lambda one: (one[3], one[0]), reverse=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shashin.shards.shard._READ_BACK", read_back)
        found = newest_listings([shard], limit)
    assert [(row.listing_id, row.version) for row in found] == [one[1:3] for one in expected]
