"""Makes the router's messages of the client's values. Pure.

Only what a message could not hold is an error here; all else is for the router to judge, which knows the
rules of its own version.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from shashin.client.query import Filter, PriceRange, Query, ReadPart, TimeRange
from shashin.codecs.limits import MAX_K, MAX_LISTING_IDS
from shashin.errors import InvalidQuery
from shashin.v1 import index_pb2, search_pb2

_KINDS = ("photo", "vector", "listing_id")


def search_request(query: Query, read: Sequence[ReadPart]) -> search_pb2.SearchRequest:
    """Return the request of a query whose photos have been read (``photos_read``).

    Raises:
        InvalidQuery: naming the field that no request can have.
    """
    own, *parts = read
    given = [kind for kind in _KINDS if getattr(own, kind) is not None]
    given += ["parts"] if parts else []
    if len(given) != 1:
        raise InvalidQuery(
            f"the query has {' and '.join(given) or 'nothing to search for'}; expected exactly one "
            "of photo, vector, listing_id and parts"
        )
    if not isinstance(query.k, int) or not 1 <= query.k <= MAX_K:
        raise InvalidQuery(f"k is {query.k}; expected 1 to {MAX_K}", field="k")
    try:
        return search_pb2.SearchRequest(
            **_what("", own),
            parts=[_part(number, part) for number, part in enumerate(parts)],
            k=query.k,
            filter=None if query.filter is None else filter_message(query.filter),
            min_score=query.min_score,
            each_photo=query.each_photo,
            other_photos=query.other_photos,
            ids_only=query.ids_only,
            excluded_listing_ids=_strings("exclude", query.exclude),
        )
    except (TypeError, ValueError) as error:
        raise InvalidQuery(f"the query cannot be sent: {error}") from None


def locate_requests(listing_ids: str | Iterable[str]) -> list[search_pb2.LocateRequest]:
    """Return the requests that locate any number of listings, each of at most 1000.

    Raises:
        InvalidQuery: if an id is no string that a request can have.
    """
    ids = _strings("ids", listing_ids)
    try:
        return [
            search_pb2.LocateRequest(listing_ids=ids[start : start + MAX_LISTING_IDS])
            for start in range(0, len(ids), MAX_LISTING_IDS)
        ]
    except (TypeError, ValueError) as error:
        raise InvalidQuery(f"the ids cannot be sent: {error}", field="ids") from None


def filter_message(given: Filter) -> index_pb2.Filter:
    """Return the message of a filter.

    Raises:
        InvalidQuery: if a time has no time zone, or there are two kinds of ranges of time.
    """
    times = [given.listed] if isinstance(given.listed, TimeRange) else list(given.listed)
    if given.since is not None or given.until is not None:
        if times:
            raise InvalidQuery(
                "filter has listed and since or until; expected one of them", field="filter.listed"
            )
        times = [TimeRange(given.since, given.until)]
    prices = [given.price] if isinstance(given.price, PriceRange) else list(given.price)
    return index_pb2.Filter(
        categories=_strings("filter.categories", given.categories),
        category_prefixes=_strings("filter.under", given.under),
        brands=_strings("filter.brands", given.brands),
        prices=[
            index_pb2.PriceRange(currency=one.currency, min_minor=one.min, max_minor=one.max)
            for one in prices
        ],
        listed=[
            index_pb2.TimeRange(
                since=_seconds("since", one.since), until=_seconds("until", one.until)
            )
            for one in times
        ],
    )


def vector_bytes(vector: Sequence[float] | Any, name: str = "vector") -> bytes:
    """Return a vector, a sequence of numbers or a NumPy array (dimensions,), as little-endian float32.

    Raises:
        InvalidQuery: if it is none, or has a number that no float32 can be.
    """
    # An array is packed by itself, so that NumPy is imported by callers only.
    shape = getattr(vector, "shape", None)
    if shape is not None and len(shape) != 1:
        raise InvalidQuery(
            f"{name} has the shape {tuple(shape)}; expected (dimensions,)", field=name
        )
    try:
        if shape is not None and hasattr(vector, "astype"):
            return bytes(vector.astype("<f4").tobytes())
        numbers = [float(number) for number in vector]
        return struct.pack(f"<{len(numbers)}f", *numbers)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidQuery(
            f"{name} is not a sequence of float32: {error}; expected numbers, one per dimension",
            field=name,
        ) from None


def _what(prefix: str, part: ReadPart) -> dict[str, Any]:
    vector = None if part.vector is None else vector_bytes(part.vector, f"{prefix}vector")
    return {
        "photo": part.photo,
        "vector": vector,
        "listing_id": part.listing_id,
        "crop": None if part.crop is None else _crop(f"{prefix}crop", part.crop),
    }


def _part(number: int, part: ReadPart) -> search_pb2.QueryPart:
    name = f"parts[{number}]"
    given = [kind for kind in _KINDS if getattr(part, kind) is not None]
    if len(given) != 1:
        raise InvalidQuery(
            f"{name} has {' and '.join(given) or 'nothing to search for'}; expected exactly one of "
            "photo, vector and listing_id",
            field=name,
        )
    return search_pb2.QueryPart(**_what(f"{name}.", part), weight=part.weight)


def _crop(name: str, box: Sequence[float]) -> search_pb2.CropBox:
    if len(box) != 4:
        raise InvalidQuery(
            f"{name} has {len(box)} numbers; expected 4: left, top, right, bottom", field=name
        )
    left, top, right, bottom = box
    return search_pb2.CropBox(left=left, top=top, right=right, bottom=bottom)


def _strings(name: str, given: str | Iterable[str]) -> list[str]:
    found = [given] if isinstance(given, str) else list(given)
    for number, one in enumerate(found):
        if not isinstance(one, str):
            raise InvalidQuery(
                f"{name}[{number}] is a {type(one).__name__}; expected a string",
                field=f"{name}[{number}]",
            )
    return found


def _seconds(name: str, time: datetime | None) -> int | None:
    """Return Unix seconds: rounded up, since listings have whole ones, and so no more and no fewer match."""
    if time is None:
        return None
    if time.utcoffset() is None:
        raise InvalidQuery(
            f"filter.{name} is {time.isoformat()} without a time zone; expected one, as with "
            "datetime.now(UTC)",
            field=f"filter.{name}",
        )
    return math.ceil(time.timestamp())
