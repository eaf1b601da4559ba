"""Requests of the client's values: all that is given arrives, and what no request can have is named."""

from __future__ import annotations

import io
import math
import struct
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.router.handlers import query_of
from services.router.queries import validated
from shashin.client.photo_input import photo_bytes, photos_read
from shashin.client.query import Box, Filter, Part, PriceRange, Query, TimeRange
from shashin.client.requests import filter_message, locate_requests, search_request, vector_bytes
from shashin.codecs.limits import MAX_PHOTO_BYTES
from shashin.errors import InvalidQuery, PhotoEmpty, PhotoMissing, PhotoTooLarge, UserError
from shashin.v1 import search_pb2

F32 = st.floats(width=32, allow_nan=False, allow_infinity=False)


def request_of(**given: Any) -> search_pb2.SearchRequest:
    query = Query(**given)
    return search_request(query, photos_read(query))


@given(
    k=st.integers(1, 1000),
    min_score=st.none() | st.floats(-1, 1, width=32),
    each_photo=st.booleans(),
    other_photos=st.booleans(),
    ids_only=st.booleans(),
    exclude=st.lists(st.text("abc", min_size=1), max_size=5),
    kind=st.sampled_from(["photo", "vector", "listing_id", "parts"]),
)
def test_the_router_reads_what_was_given(
    k: int,
    min_score: float | None,
    each_photo: bool,
    other_photos: bool,
    ids_only: bool,
    exclude: list[str],
    kind: str,
) -> None:
    box = Box(0.25, 0.0, 0.75, 0.5)
    kinds: dict[str, dict[str, Any]] = {
        "photo": {"photo": b"jpeg", "crop": box},
        "vector": {"vector": [1.0, 2.0]},
        "listing_id": {"listing_id": "a"},
        "parts": {"parts": [Part(photo=b"p", crop=box, weight=-0.5), Part(listing_id="b")]},
    }
    what = kinds[kind]
    query = validated(
        query_of(
            request_of(
                k=k,
                min_score=min_score,
                each_photo=each_photo,
                other_photos=other_photos,
                ids_only=ids_only,
                exclude=exclude,
                **what,
            )
        )
    )
    assert query.kind == kind
    assert (query.k, query.each_photo, query.other_photos) == (k, each_photo, other_photos)
    assert (query.ids_only, list(query.excluded_listing_ids)) == (ids_only, exclude)
    assert query.min_score == (-math.inf if min_score is None else min_score)
    if kind == "photo":
        assert (query.photo, query.crop) == (b"jpeg", box)
    elif kind == "vector":
        assert query.vector == struct.pack("<2f", 1, 2)
    elif kind == "listing_id":
        assert query.listing_id == "a"
    else:
        assert [(p.photo, p.crop, p.listing_id, p.weight) for p in query.parts] == [
            (b"p", box, None, -0.5),
            (None, None, "b", 1.0),
        ]


@given(st.lists(F32, min_size=1, max_size=50))
def test_a_vector_is_the_same_from_numbers_and_arrays(numbers: list[float]) -> None:
    expected = struct.pack(f"<{len(numbers)}f", *numbers)
    assert vector_bytes(numbers) == vector_bytes(tuple(numbers)) == expected
    for dtype in ("<f4", ">f4", "f8"):
        assert vector_bytes(np.array(numbers, dtype=dtype)) == expected
    assert vector_bytes(np.repeat(np.array(numbers, "f4"), 2)[::2]) == expected


@pytest.mark.parametrize(
    "vector", ["ab", [1, "x"], [1e99], 5, [[1.0]], np.zeros((1, 4)), np.float32(1), [None]]
)
def test_what_is_no_vector_is_named(vector: Any) -> None:
    with pytest.raises(InvalidQuery, match=r"parts\[0\].vector") as raised:
        request_of(parts=[Part(vector=vector)])
    assert raised.value.field == "parts[0].vector"


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({}, "nothing to search for"),
        ({"photo": b"x", "listing_id": "a"}, "photo and listing_id"),
        ({"parts": [Part()]}, r"parts\[0\] has nothing"),
        ({"listing_id": "a", "k": 0}, "k is 0"),
        ({"listing_id": "a", "k": 1001}, "k is 1001"),
        ({"listing_id": 5}, "cannot be sent"),
        ({"listing_id": "\ud800"}, "cannot be sent"),
        ({"listing_id": "a", "exclude": ["b", 5]}, r"exclude\[1\] is a int"),
        ({"photo": b"x", "crop": (0, 1, 2)}, "crop has 3 numbers"),
        ({"listing_id": "a", "filter": Filter(brands=[b"x"])}, r"filter.brands\[0\]"),  # type: ignore[list-item]
        ({"listing_id": "a", "filter": Filter(price=PriceRange("JPY", max=2**70))}, "be sent"),
    ],
)
def test_what_no_request_can_have_is_an_invalid_query(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidQuery, match=words):
        request_of(**wrong)


def test_a_filter_arrives_whether_it_has_one_entry_or_several() -> None:
    one = filter_message(
        Filter(under="fashion/shoes", brands="Nike", price=PriceRange("JPY", max=5000))
    )
    assert one == filter_message(
        Filter(under=["fashion/shoes"], brands=["Nike"], price=[PriceRange("JPY", max=5000)])
    )
    assert list(one.category_prefixes) == ["fashion/shoes"]
    assert list(one.brands) == ["Nike"]
    assert (one.prices[0].currency, one.prices[0].max_minor) == ("JPY", 5000)
    assert not one.prices[0].HasField("min_minor")
    assert not one.listed


@given(
    bound=st.datetimes(datetime(1990, 1, 1), datetime(2100, 1, 1)),  # noqa: DTZ001
    hours=st.integers(-12, 14),
    listed_at=st.integers(-2, 2),
)
def test_rounded_bounds_match_the_same_whole_seconds(
    bound: datetime, hours: int, listed_at: int
) -> None:
    exact = bound.replace(tzinfo=timezone(timedelta(hours=hours)))
    (sent,) = filter_message(Filter(listed=TimeRange(exact, exact))).listed
    listed = math.floor(exact.timestamp()) + listed_at
    moment = datetime.fromtimestamp(listed, UTC)
    assert (listed >= sent.since) == (moment >= exact)
    assert (listed < sent.until) == (moment < exact)


def test_a_time_without_a_zone_is_named() -> None:
    with pytest.raises(InvalidQuery, match="without a time zone") as raised:
        filter_message(Filter(since=datetime(2026, 1, 1)))  # noqa: DTZ001
    assert raised.value.field == "filter.since"


def test_times_are_given_in_one_way() -> None:
    now = datetime.now(UTC)
    with pytest.raises(InvalidQuery, match="expected one of them"):
        filter_message(Filter(since=now, listed=TimeRange(now)))


@given(st.lists(st.text("abc", min_size=1), max_size=2500))
def test_each_id_is_in_one_page_of_at_most_1000(ids: list[str]) -> None:
    pages = [list(request.listing_ids) for request in locate_requests(ids)]
    assert [one for page in pages for one in page] == ids
    assert all(1 <= len(page) <= 1000 for page in pages)


class Drip(io.RawIOBase):
    """Returns a byte at a time."""

    def __init__(self, data: bytes) -> None:
        self._left = data

    def read(self, size: int = -1, /) -> bytes:
        piece, self._left = self._left[:1], self._left[1:]
        return piece


class Drawn:
    """An image that writes itself."""

    def save(self, fp: Any, format: str | None = None) -> None:  # noqa: A002
        fp.write(f"as {format}".encode())


def test_a_photo_is_read_from_wherever_it_is(tmp_path: Path) -> None:
    path = tmp_path / "sofa.jpg"
    path.write_bytes(b"sofa")
    ways = (b"sofa", bytearray(b"sofa"), memoryview(b"sofa"), str(path), path, Drip(b"sofa"))
    for way in (*ways, io.BytesIO(b"sofa")):
        assert photo_bytes(way) == b"sofa"
    assert photo_bytes(Drawn()) == b"as PNG"


def test_a_photo_that_cannot_be_sent_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(PhotoMissing, match="no such file"):
        photo_bytes(tmp_path / "none.jpg")
    with pytest.raises(UserError, match="is a directory"):
        photo_bytes(tmp_path)
    with pytest.raises(PhotoEmpty):
        photo_bytes(b"")
    with pytest.raises(InvalidQuery, match="file of text"):
        photo_bytes(io.StringIO("x"))  # type: ignore[arg-type]
    with pytest.raises(InvalidQuery, match="is a int"):
        photo_bytes(5)  # type: ignore[arg-type]
    sparse = tmp_path / "large.jpg"
    with sparse.open("wb") as file:
        file.truncate(MAX_PHOTO_BYTES + 1)
    for large in (sparse, bytes(MAX_PHOTO_BYTES + 1)):
        with pytest.raises(PhotoTooLarge, match=r"parts\[0\].photo has more than"):
            photos_read(Query(parts=[Part(photo=large)]))
    assert len(photo_bytes(bytes(MAX_PHOTO_BYTES))) == MAX_PHOTO_BYTES
