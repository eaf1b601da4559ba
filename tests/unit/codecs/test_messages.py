"""Converting messages from and to the index's types, and rejecting invalid ones."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shashin.codecs.attributes import attributes_message, attributes_of
from shashin.codecs.events import new_rows_of, parse_embedded
from shashin.codecs.hit_lists import hits_in
from shashin.codecs.index import filter_of, queries_of
from shashin.codecs.pipeline import progress_in, progress_message
from shashin.codecs.ranges import position_messages, put_log, range_messages, report_in
from shashin.errors import InvalidEvent, InvalidQuery, RecordError, UnparsableRecord, WrongVector
from shashin.kafka.records import InRecord
from shashin.offsets.coverage import LiveReport, Position, StageLag
from shashin.offsets.progress import PartitionOffsets, PipelineProgress, StageOffsets
from shashin.offsets.ranges import OffsetRange
from shashin.shards.format.row import MAX_PHOTO_NUMBER, NO_TIME, Row, RowAttributes
from shashin.shards.kinds.protocol import Hits
from shashin.shards.row_filter import PriceRange, RowFilter, TimeRange
from shashin.v1 import events_pb2, index_pb2
from tests.support.hit_columns import hit_columns
from tests.support.made_shards import DIMENSIONS, as_logged, new_row, open_shard, vector_of

INT64 = st.integers(-(2**63), 2**63 - 1)
ATTRIBUTES = st.builds(
    RowAttributes,
    category=st.text(max_size=5),
    brand=st.text(max_size=5),
    price_minor=INT64,
    currency=st.sampled_from(["", "JPY"]),
    listed_at=INT64 | st.just(NO_TIME),
)


def record(value: bytes) -> InRecord:
    return InRecord("vectors.embedded", 2, 42, 0, b"lamp", value)


def embedded(**changes: Any) -> events_pb2.EmbeddedListing:
    fields: dict[str, Any] = {
        "listing_id": "lamp",
        "version": 3,
        "vectors": [
            events_pb2.PhotoVector(
                photo_number=photo, vector=as_logged(vector_of("lamp", 3, photo)).tobytes()
            )
            for photo in (0, 2)
        ],
        **changes,
    }
    return events_pb2.EmbeddedListing(**fields)


@given(ATTRIBUTES)
def test_attributes_come_back_as_they_were(attributes: RowAttributes) -> None:
    message = attributes_message(attributes)
    travelled = events_pb2.Attributes.FromString(message.SerializeToString())
    assert attributes_of(travelled) == attributes


@given(ATTRIBUTES, st.integers(0, 2**64 - 1), st.integers(0, MAX_PHOTO_NUMBER))
def test_a_listing_has_one_row_per_vector(
    attributes: RowAttributes, version: int, photo_number: int
) -> None:
    vector = as_logged(vector_of("lamp"))
    message = embedded(
        version=version,
        attributes=attributes_message(attributes),
        vectors=[
            events_pb2.PhotoVector(photo_number=photo_number, vector=vector.tobytes()),
            events_pb2.PhotoVector(photo_number=1, vector=(-vector).tobytes()),
        ],
    )
    parsed = parse_embedded(record(message.SerializeToString()))
    rows = new_rows_of(parsed, DIMENSIONS, record=record(b""))
    assert [new.row for new in rows] == [
        Row("lamp", version, photo_number, attributes),
        Row("lamp", version, 1, attributes),
    ]
    for new, expected in zip(rows, (vector, -vector), strict=True):
        assert new.vector.dtype == np.float32
        assert new.vector.tolist() == expected.astype(np.float32).tolist()


@pytest.mark.parametrize(
    "value", [b"\xff\xff\xff", b"no protobuf", b"", embedded(listing_id="").SerializeToString()]
)
def test_an_invalid_embedded_listing_is_rejected_naming_the_record(value: bytes) -> None:
    with pytest.raises(UnparsableRecord, match=r"vectors\.embedded\[2\]@42 is not an Embedded"):
        parse_embedded(record(value))


@pytest.mark.parametrize(
    ("vector", "says"),
    [
        (b"", "photo 0 has a vector of 0 bytes; 8 dimensions in float16 have 16"),
        (bytes(14), "14 bytes"),
        (bytes(17), "17 bytes"),
        (bytes(32), "32 bytes"),
        (np.array([0, np.nan, 0, 0, 0, 0, 0, 0], dtype="<f2").tobytes(), "photo 0 .* not finite"),
        (np.array([0, 0, 0, 0, 0, 0, 0, -np.inf], dtype="<f2").tobytes(), "not finite"),
        (bytes(16), "photo 0 has a vector that is all zeros"),
        (np.array([-0.0] * 8, dtype="<f2").tobytes(), "all zeros"),
        (
            (50 * as_logged(range(1, 9))).tobytes(),
            r"of length 49\.9\d+; expected 1, within 0\.00098",
        ),
        (np.array([65504] * 8, dtype="<f2").tobytes(), "of length 185273"),
        (np.array([0.998] + [0] * 7, dtype="<f2").tobytes(), r"of length 0\.998"),
        (np.array([1.002] + [0] * 7, dtype="<f2").tobytes(), r"of length 1\.00195"),
    ],
)
def test_a_vector_that_no_index_can_hold_is_refused_by_listing_and_photo(
    vector: bytes, says: str
) -> None:
    message = embedded(vectors=[events_pb2.PhotoVector(vector=vector)])
    with pytest.raises(WrongVector, match=rf"\[2\]@42, listing lamp, .*{says}"):
        new_rows_of(message, DIMENSIONS, record=record(b""))


@given(
    st.integers(1, 4096),
    st.integers(0, 2**32 - 1),
    st.sampled_from(["normal", "sparse", "one large", "all equal"]),
)
def test_every_unit_vector_is_accepted_after_rounding_to_float16(
    dimensions: int, seed: int, shape: str
) -> None:
    rng = np.random.default_rng(seed)
    vector = rng.normal(size=dimensions)
    if shape == "sparse":
        vector *= rng.random(dimensions) < 0.1
    elif shape == "one large":
        vector *= 1e-6  # below the smallest normal float16
    elif shape == "all equal":
        vector[:] = rng.normal()
    if shape != "all equal":
        vector[0] = 1.0
    message = embedded(vectors=[events_pb2.PhotoVector(vector=as_logged(vector).tobytes())])
    (row,) = new_rows_of(message, dimensions, record=record(b""))
    assert row.vector.tolist() == as_logged(vector).astype(np.float32).tolist()


def test_a_photo_number_that_no_row_can_hold_is_refused() -> None:
    # Otherwise sealing the shard would fail, again and again.
    message = embedded()
    message.vectors[0].photo_number = MAX_PHOTO_NUMBER + 1
    with pytest.raises(InvalidEvent, match="listing lamp has a photo_number of 65536"):
        new_rows_of(message, DIMENSIONS, record=record(b""))


@given(st.binary(max_size=100))
def test_any_bytes_are_rows_or_a_record_error(value: bytes) -> None:
    with suppress(RecordError):
        message = parse_embedded(record(value))
        rows = new_rows_of(message, DIMENSIONS, record=record(value))
        assert len(rows) == len(message.vectors)


def request(**changes: Any) -> index_pb2.IndexSearchRequest:
    fields: dict[str, Any] = {
        "queries": np.ones((2, DIMENSIONS), dtype="<f4").tobytes(),
        "dimensions": DIMENSIONS,
        "k": 10,
        **changes,
    }
    return index_pb2.IndexSearchRequest(**fields)


@pytest.mark.parametrize("count", [1, 64])
@pytest.mark.parametrize("k", [1, 4096])
def test_queries_at_their_bounds_are_taken(count: int, k: int) -> None:
    numbers = np.arange(1, count * DIMENSIONS + 1, dtype="<f4").reshape(count, DIMENSIONS)
    queries = queries_of(request(queries=numbers.tobytes(), k=k), DIMENSIONS)
    assert queries.dtype == np.float32
    assert queries.shape == (count, DIMENSIONS)


@pytest.mark.parametrize("length", [1e-40, 1e-3, 1.0, 50.0, 3e38])
def test_queries_of_any_length_are_scaled_to_unit_length(length: float) -> None:
    # Otherwise their scores would be no cosine similarities.
    numbers = np.stack([as_logged(range(1, 9)), -as_logged(range(8))]).astype(np.float64)
    queries = queries_of(request(queries=(length * numbers).astype("<f4").tobytes()), DIMENSIONS)
    assert np.linalg.norm(queries, axis=1) == pytest.approx([1.0, 1.0], abs=1e-6)
    assert queries == pytest.approx(numbers, abs=1e-3)


@given(
    st.integers(1, 4).flatmap(
        lambda count: st.lists(
            st.floats(width=32), min_size=count * DIMENSIONS, max_size=count * DIMENSIONS
        )
    )
)
def test_queries_are_scaled_as_they_would_be_in_float64_or_refused(values: list[float]) -> None:
    given = np.array(values, dtype="<f4").reshape(-1, DIMENSIONS)
    if not np.isfinite(given).all():
        problem = "queries has values that are not finite"
    elif not given.any(axis=1).all():
        problem = "queries has a vector that is all zeros"
    else:
        wide = given.astype(np.float64)
        expected = wide / np.linalg.norm(wide, axis=1, keepdims=True)
        queries = queries_of(request(queries=given.tobytes()), DIMENSIONS)
        assert queries == pytest.approx(expected, rel=1e-6)
        return
    with pytest.raises(InvalidQuery, match=problem):
        queries_of(request(queries=given.tobytes()), DIMENSIONS)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"dimensions": 4}, "dimensions is 4; this endpoint holds vectors of 8"),
        ({"dimensions": 0}, "dimensions is 0"),
        ({"queries": b""}, "queries has 0 bytes"),
        ({"queries": bytes(33)}, "queries has 33 bytes"),
        ({"queries": bytes(16)}, "queries has 16 bytes"),
        ({"queries": bytes(65 * 32)}, "queries has 65 vectors; at most 64"),
        ({"queries": np.full(8, np.nan, "<f4").tobytes()}, "not finite"),
        ({"queries": np.array([0] * 7 + [np.inf], "<f4").tobytes()}, "not finite"),
        ({"queries": np.array([1] * 8 + [0] * 8, "<f4").tobytes()}, "all zeros"),
        ({"k": 0}, "k is 0; expected 1 to 4096"),
        ({"k": 4097}, "k is 4097"),
    ],
)
def test_an_invalid_query_is_rejected_naming_the_field(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidQuery, match=named):
        queries_of(request(**changes), DIMENSIONS)


def test_an_empty_filter_does_not_restrict() -> None:
    assert filter_of(index_pb2.Filter()) == RowFilter()


def test_a_bound_of_zero_is_a_bound_and_an_absent_one_is_none() -> None:
    message = index_pb2.Filter(
        categories=["shoes"],
        category_prefixes=["fashion/bags"],
        brands=["ACME", "Other"],
        prices=[
            index_pb2.PriceRange(currency="JPY", min_minor=0, max_minor=0),
            index_pb2.PriceRange(currency="EUR"),
        ],
        listed=[
            index_pb2.TimeRange(since=0, until=None),
            index_pb2.TimeRange(since=None, until=0),
            index_pb2.TimeRange(since=0, until=1),
        ],
    )
    assert filter_of(message) == RowFilter(
        ("shoes",),
        ("fashion/bags",),
        ("ACME", "Other"),
        (PriceRange("JPY", 0, 0), PriceRange("EUR")),
        (TimeRange(0), TimeRange(None, 0), TimeRange(0, 1)),
    )


@pytest.mark.parametrize("bounds", [(0, None), (None, 0), (-5, 7)])
def test_a_time_range_keeps_its_bounds(bounds: tuple[int | None, int | None]) -> None:
    since, until = bounds
    times = [index_pb2.TimeRange(since=since, until=until)]
    assert filter_of(index_pb2.Filter(listed=times)).listed == (TimeRange(since, until),)


def test_hits_of_all_queries_are_packed_in_order() -> None:
    attributes = RowAttributes("shoes", "ACME", 100, "JPY", 7)
    first = open_shard([new_row("lamp", 1, 2, attributes)])
    second = open_shard([new_row("hat", 3, 4, attributes), new_row("mug", 2, 3, attributes)])
    hits = Hits(
        [2, 0, 1],
        np.array([0, 1, 1]),
        np.array([0, 1, 0]),
        np.array([0.75, 0.5, -1], np.float32),
        b"lampmughat",
        np.array([4, 3, 3], np.uint32),
        np.array([1, 2, 3], np.uint64),
        np.array([2, 3, 4], np.uint32),
    )
    for count in (1, 2, 9):
        lists = hits_in(hit_columns([(hits, 0, 3)], [first, second], count), 3, count)
        assert lists.counts == [2, 0, 1]
        assert lists.listing_ids == ["lamp", "mug", "hat"]
        assert lists.versions == [1, 2, 3]
        assert lists.photo_numbers == [2, 3, 4]
        assert lists.scores == [0.75, 0.5, -1.0]
        described = [one and attributes_of(one.attributes) for one in lists.details]
        assert described == [attributes, attributes if count > 1 else None, attributes]
        first_query, others = lists.each_of([1, 2])
        assert (first_query.versions, others.listing_ids) == ([1, 2], ["hat"])
        assert others.details == [lists.details[2]]
        assert [part.counts for part in lists.each_of([1, 1, 1])] == [[2], [0], [1]]
        assert lists.nearest(2).listing_ids == ["lamp", "mug"]
        assert lists.lowest_score(2) == 0.5


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"counts": [2, 1]}, "2 of 3 queries"),
        ({"counts": [2, 0, 2]}, "4 hits in columns of 12, 24, 12, 12 bytes"),
        ({"versions": b"\0" * 23}, "12, 23, 12, 12 bytes"),
        ({"scores": np.array([1, np.nan, 0], "<f4").tobytes()}, "scores that are not finite"),
        ({"listing_ids": b"lampmugha"}, "listing ids of 9 bytes, and lengths of 10"),
        ({"listing_ids": b"lamp\xff\xffghat"}, "not UTF-8"),
        ({"attributes": []}, "0 attributes instead of 3"),
        ({"photo_hashes": b"\0" * 16}, "photos of 3 hits in columns of 12 and 16 bytes"),
        ({"photo_uri_lengths": b""}, "photos of 3 hits in columns of 0 and 24 bytes"),
        ({"photo_uris": b"abcd"}, "photo URIs of 4 bytes, and lengths of 3"),
        ({"photo_uris": b"a\xffc"}, "photo URIs that are not UTF-8"),
        ({"other_photos": [index_pb2.OtherPhotos()]}, "other photos of 1"),
    ],
    ids=str,
)
def test_columns_that_do_not_fit_are_refused_with_what_is_wrong(
    changes: dict[str, Any], named: str
) -> None:
    columns = index_pb2.HitColumns(
        counts=[2, 0, 1],
        listing_ids=b"lampmughat",
        listing_id_lengths=np.array([4, 3, 3], "<u4").tobytes(),
        versions=b"\0" * 24,
        photo_numbers=b"\0" * 12,
        scores=b"\0" * 12,
        attributes=[events_pb2.Attributes()] * 3,
        photo_uris=b"abc",
        photo_uri_lengths=np.array([1, 1, 1], "<u4").tobytes(),
        photo_hashes=b"\0" * 24,
    )
    assert hits_in(columns, 3, 5).listing_ids == ["lamp", "mug", "hat"]
    for name in changes:
        columns.ClearField(cast("Any", name))
    columns.MergeFrom(index_pb2.HitColumns(**changes))
    with pytest.raises(ValueError, match=named):
        hits_in(columns, 3, 5)


@given(st.lists(st.builds(OffsetRange, *[st.integers(0, 2**31)] * 3), max_size=4))
def test_ranges_travel_as_they_are(ranges: list[OffsetRange]) -> None:
    messages = range_messages(ranges)
    assert [OffsetRange(m.partition, m.from_offset, m.to_offset) for m in messages] == ranges


@given(
    st.builds(
        LiveReport,
        positions=st.dictionaries(
            st.integers(0, 9), st.builds(Position, st.integers(0, 99), st.integers(0, 99))
        ),
        partitions=st.integers(0, 9),
        end_unknown_seconds=st.floats(0, 100),
        stages=st.lists(
            st.builds(
                StageLag,
                st.sampled_from(["downloader", "embedder"]),
                st.none() | st.integers(0, 2**40),
                st.floats(0, 100),
            ),
            max_size=3,
        ).map(tuple),
    )
)
def test_what_a_live_tier_reports_comes_back_as_it_was(report: LiveReport) -> None:
    for message in (index_pb2.IndexSearchResponse, index_pb2.DescribeResponse):
        sent = message(positions=position_messages(report.positions))
        put_log(sent.log, report)
        assert report_in(message.FromString(sent.SerializeToString())) == report


@given(
    st.none()
    | st.builds(
        PipelineProgress,
        st.lists(
            st.builds(
                StageOffsets,
                st.sampled_from(["downloader", "embedder", "indexer"]),
                st.text(max_size=9),
                st.floats(0, 100),
                st.dictionaries(
                    st.integers(0, 99),
                    st.builds(PartitionOffsets, st.integers(0, 2**60), st.integers(0, 2**60)),
                    max_size=3,
                ),
            ),
            max_size=3,
        ).map(tuple),
        st.dictionaries(st.text(max_size=9), st.integers(0, 2**60), max_size=3),
        st.integers(0, 2**60),
        st.floats(0, 1e9),
    )
)
def test_how_far_the_pipeline_is_comes_back_as_it_was(progress: PipelineProgress | None) -> None:
    sent = index_pb2.DescribeResponse(pipeline=progress_message(progress)).SerializeToString()
    assert progress_in(index_pb2.DescribeResponse.FromString(sent)) == progress
