"""Pointers: the format stays readable, and invalid ones are rejected by name."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shashin.errors import CorruptShard, RepositoryError, UnknownFormat
from shashin.offsets.ranges import OffsetRange
from shashin.repository.pointer import PointedShard, Pointer, pointer_key

GOLDEN = Path(__file__).parent / "golden" / "pointer-v2.json"
GOLDEN_V1 = GOLDEN.with_name("pointer-v1.json")
KEY = "serving/demo-v1/hourly.json"


def pointed(partition: int, start: int, end: int) -> PointedShard:
    shard = f"demo-v1.hourly.p{partition:04d}.{start:012d}-{end:012d}"
    return PointedShard(
        shard,
        f"indexes/demo-v1/hourly/1699999200/{shard}/manifest.json",
        (OffsetRange(partition, start, end),),
        bucket_start=1_699_999_200,
        bucket_seconds=3600,
        rows=3 * (end - start),
        rewrites=partition,
    )


KNOWN = Pointer("demo-v1", "hourly", (pointed(0, 0, 240), pointed(1, 7, 10)))
RANGES = st.builds(OffsetRange, st.integers(0, 9), st.integers(0, 9), st.integers(0, 9))


def document(**changes: Any) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(GOLDEN.read_bytes())
    return {**read, **changes}


def test_a_pointer_of_the_first_format_stays_readable() -> None:
    read = Pointer.from_json(GOLDEN_V1.read_bytes(), key=KEY)
    named = [(shard.shard_id, shard.manifest_key) for shard in KNOWN.shards]
    assert [(shard.shard_id, shard.manifest_key) for shard in read.shards] == named
    assert KNOWN.has_ranges
    assert not read.has_ranges


def test_the_written_format_does_not_change() -> None:
    assert KNOWN.to_json() == GOLDEN.read_bytes()


@given(
    st.text(),
    st.lists(st.builds(PointedShard, st.text(), st.text(), st.tuples(RANGES)), max_size=5),
)
def test_a_pointer_that_was_written_is_read_with_its_shards_in_order(
    model: str, shards: list[PointedShard]
) -> None:
    written = Pointer(model, "hourly", tuple(shards))
    read = Pointer.from_json(written.to_json(), key=pointer_key(model, "hourly"))
    assert read == Pointer(model, "hourly", tuple(sorted(shards)))


@pytest.mark.parametrize("found", ["shashin.pointer/3", "shashin.manifest/1", "", None, 1])
def test_another_format_is_refused_by_name(found: object) -> None:
    with pytest.raises(UnknownFormat, match=r"hourly\.json has format .*; this version reads"):
        Pointer.from_json(json.dumps(document(format=found)).encode(), key=KEY)


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b"null", b"7", b'"format"', b"{}", b"\xff\xfe", b"[" * 100_000]
    + [
        json.dumps(document(**changes)).encode()
        for changes in (
            {"shards": 7},
            {"shards": ["shard"]},
            {"shards": [{"shard_id": "a"}]},
            {"shards": [{"shard_id": "a", "manifest_key": 1}]},
            {"shards": [{"shard_id": "a", "manifest_key": "b", "more": 1}]},
            {"model_id": None},
            {"from_the_future": 1},
        )
    ],
    ids=lambda data: repr(data[:10]),
)
def test_an_invalid_pointer_is_rejected_by_name(data: bytes) -> None:
    with pytest.raises(CorruptShard, match=r"hourly\.json is not a pointer"):
        Pointer.from_json(data, key=KEY)


@pytest.mark.parametrize("changes", [{"model_id": "demo-v2"}, {"tier": "daily"}])
def test_the_pointer_of_another_tier_or_model_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(CorruptShard, match=r"hourly\.json is the pointer of 'demo-v"):
        Pointer.from_json(json.dumps(document(**changes)).encode(), key=KEY)


@given(st.data())
def test_a_pointer_that_is_cut_short_is_refused(data: st.DataObject) -> None:
    whole = GOLDEN.read_bytes().rstrip()
    with pytest.raises(CorruptShard):
        Pointer.from_json(whole[: data.draw(st.integers(0, len(whole) - 1))], key=KEY)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_pointer_or_a_repository_error(data: bytes) -> None:
    with suppress(RepositoryError):
        Pointer.from_json(data, key=KEY)


def test_a_tier_has_one_pointer() -> None:
    assert pointer_key("demo-v1", "hourly") == KEY
