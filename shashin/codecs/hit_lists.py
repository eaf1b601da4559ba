"""Reads the hits of IndexService answers. Columns stay columns: only hits that are looked at are made objects."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple, Protocol

from shashin.codecs.columns import FLOAT32, UINT32, UINT64, are_finite, ends_of, unpacked
from shashin.v1 import events_pb2, index_pb2


class HitDetails(NamedTuple):
    """What of a hit is not needed to rank it."""

    attributes: events_pb2.Attributes
    photo_uri: str = ""
    """Empty if it is not known."""
    photo_hash: int = 0
    """As ``Row.photo_hash``; 0 if it is not known."""
    others: Sequence[index_pb2.OtherPhotos.Photo] = ()
    """The other photos of its listing in its version; none if they were not asked for."""


class QueryHits(Protocol):
    """The hits of some queries. Query i has ``counts[i]`` entries in the other columns, nearest first."""

    @property
    def counts(self) -> Sequence[int]:
        """Hits of each query."""
        ...

    @property
    def listing_ids(self) -> Sequence[str]:
        """The listing of each hit."""
        ...

    @property
    def versions(self) -> Sequence[int]:
        """The version of each hit."""
        ...

    @property
    def photo_numbers(self) -> Sequence[int]:
        """The photo of each hit."""
        ...

    @property
    def scores(self) -> Sequence[float]:
        """The score of each hit."""
        ...

    def nearest(self, count: int) -> HitLists:
        """Return the first hits of all, up to ``count``; without details."""
        ...

    def lowest_score(self, end: int) -> float:
        """Return the lowest score of the query whose hits end before ``end``: hits are nearest first."""
        ...

    def details_at(self, positions: Sequence[int]) -> Sequence[HitDetails | None]:
        """Return the details of some hits; None of those that were not asked for."""
        ...


class HitLists(NamedTuple):
    """The hits of some queries as lists."""

    counts: Sequence[int]
    listing_ids: Sequence[str]
    versions: Sequence[int]
    photo_numbers: Sequence[int]
    scores: Sequence[float]
    details: Sequence[HitDetails | None] = ()
    """None of hits whose details were not asked for."""

    def nearest(self, count: int) -> HitLists:
        """Return the first hits of all, up to ``count``; without details."""
        return HitLists(
            (count,),
            self.listing_ids[:count],
            self.versions[:count],
            self.photo_numbers[:count],
            self.scores[:count],
        )

    def lowest_score(self, end: int) -> float:
        """Return the lowest score of the query whose hits end before ``end``: hits are nearest first."""
        return self.scores[end - 1]

    def details_at(self, positions: Sequence[int]) -> Sequence[HitDetails | None]:
        """Return the details of some hits; None of those that were not asked for."""
        return [self.details[position] for position in positions]


NOTHING = HitLists((), (), (), (), ())


class _Texts:
    """Texts as they came, one after another: those that are looked at are made objects."""

    def __init__(self, joined: bytes, lengths: bytes, what: str) -> None:
        ends = ends_of(unpacked(UINT32, lengths))
        if ends[-1] != len(joined):
            raise ValueError(
                f"it returned {what} of {len(joined)} bytes, and lengths of {ends[-1]}"
            )
        self._ends = ends
        self._ascii = joined.decode() if joined.isascii() else None
        """All of them, if bytes are characters."""
        self._split = [] if self._ascii is not None else _split(joined, ends, what)

    def some(self, begin: int, end: int) -> Sequence[str]:
        """Return those from one number to before another."""
        if (text := self._ascii) is None:
            return self._split[begin:end]
        return [text[a:b] for a, b in pairwise(self._ends[begin : end + 1])]

    def one(self, number: int) -> str:
        """Return one."""
        if (text := self._ascii) is None:
            return self._split[number]
        return text[self._ends[number] : self._ends[number + 1]]


def _split(joined: bytes, ends: Sequence[int], what: str) -> list[str]:
    try:
        return [joined[start:end].decode() for start, end in pairwise(ends)]
    except UnicodeDecodeError as error:
        raise ValueError(f"it returned {what} that are not UTF-8: {error}") from error


class _Photos(NamedTuple):
    """The photos of hits, as they came."""

    uris: _Texts
    hashes: Sequence[int]
    others: Sequence[index_pb2.OtherPhotos]
    """None if they were not asked for."""


class _Columns(NamedTuple):
    """The columns of a whole answer."""

    ids: _Texts
    """Of the listings."""
    versions: array[int]
    photo_numbers: array[int]
    scores: array[float]
    described: Sequence[events_pb2.Attributes]
    """Attributes of the first ``attributes`` hits of each query."""
    attributes: int
    photos: _Photos
    """Of the same hits."""

    def details_at(self, numbers: Sequence[int]) -> list[HitDetails | None]:
        """Return the details of some of the hits that have any, by number; None for a negative one."""
        described, (uris, hashes, others) = self.described, self.photos
        uri = uris.one
        return [
            HitDetails(described[n], uri(n), hashes[n], others[n].photos if others else ())
            if n >= 0
            else None
            for n in numbers
        ]


class HitColumns:
    """The hits of some queries of an answer, as the columns that came."""

    def __init__(
        self, columns: _Columns, counts: Sequence[int], begin: int, described_begin: int
    ) -> None:
        self._columns = columns
        self.counts = counts
        self._begin = begin
        self._end = begin + sum(counts)
        self._described_begin = described_begin

    def each_of(self, sizes: Sequence[int]) -> list[HitColumns]:
        """Return the hits of the first ``sizes[0]`` queries, of the ``sizes[1]`` next ones, and so on."""
        if len(sizes) == 1 and sizes[0] == len(self.counts):
            return [self]
        found, first = [], 0
        begin, described = self._begin, self._described_begin
        most = self._columns.attributes
        for size in sizes:
            own = self.counts[first : first + size]
            found.append(HitColumns(self._columns, own, begin, described))
            first += size
            begin += sum(own)
            described += sum(min(count, most) for count in own)
        return found

    @cached_property
    def listing_ids(self) -> Sequence[str]:
        """The listing of each hit."""
        return self._columns.ids.some(self._begin, self._end)

    @cached_property
    def versions(self) -> Sequence[int]:
        """The version of each hit."""
        return self._columns.versions[self._begin : self._end].tolist()

    @cached_property
    def photo_numbers(self) -> Sequence[int]:
        """The photo of each hit."""
        return self._columns.photo_numbers[self._begin : self._end].tolist()

    @cached_property
    def scores(self) -> Sequence[float]:
        """The score of each hit."""
        return self._columns.scores[self._begin : self._end].tolist()

    @property
    def details(self) -> Sequence[HitDetails | None]:
        """The details of each hit; None of hits whose details were not asked for."""
        return self.details_at(range(self._end - self._begin))

    def nearest(self, count: int) -> HitLists:
        """Return the first hits of all, up to ``count``; without details."""
        columns, begin = self._columns, self._begin
        end = min(begin + count, self._end)
        return HitLists(
            (end - begin,),
            columns.ids.some(begin, end),
            columns.versions[begin:end].tolist(),
            columns.photo_numbers[begin:end].tolist(),
            columns.scores[begin:end].tolist(),
        )

    def lowest_score(self, end: int) -> float:
        """Return the lowest score of the query whose hits end before ``end``: hits are nearest first."""
        return self._columns.scores[self._begin + end - 1]

    def details_at(self, positions: Sequence[int]) -> Sequence[HitDetails | None]:
        """Return the details of some hits; None of those that were not asked for."""
        if len(self.counts) == 1:
            first, most = self._described_begin, self._columns.attributes
            return self._columns.details_at([first + n if n < most else -1 for n in positions])
        return self._columns.details_at([self._described_number(n) for n in positions])

    def _described_number(self, position: int) -> int:
        """Return which of the hits with details one is; -1 if it has none."""
        most, described = self._columns.attributes, self._described_begin
        for count in self.counts:
            if position < count:
                return described + position if position < most else -1
            position -= count
            described += min(count, most)
        raise IndexError(position)


def hits_in(
    columns: index_pb2.HitColumns, queries: int, attributes: int, *, other_photos: bool = False
) -> HitColumns:
    """Return the hits of an answer to so many queries, which asked for so many attributes of each.

    ``other_photos`` says whether those were asked for.

    Raises:
        ValueError: saying how the columns are malformed.
    """
    counts = list(columns.counts)
    hits = sum(counts)
    lengths, versions = columns.listing_id_lengths, columns.versions
    numbers, packed_scores = columns.photo_numbers, columns.scores
    sizes = len(lengths), len(versions), len(numbers), len(packed_scores)
    if len(counts) != queries or sizes != (4 * hits, 8 * hits, 4 * hits, 4 * hits):
        raise ValueError(
            f"it returned {len(counts)} of {queries} queries, with {hits} hits in columns of "
            f"{', '.join(map(str, sizes))} bytes"
        )
    attributes_found = columns.attributes
    described = sum([min(count, attributes) for count in counts])
    if len(attributes_found) != described:
        raise ValueError(f"it returned {len(attributes_found)} attributes instead of {described}")
    photos = _photos_in(columns, described, other_photos=other_photos)
    scores = unpacked(FLOAT32, packed_scores)
    if not are_finite(scores):
        raise ValueError("it returned scores that are not finite")
    found = _Columns(
        _Texts(columns.listing_ids, lengths, "listing ids"),
        unpacked(UINT64, versions),
        unpacked(UINT32, numbers),
        scores,
        attributes_found,
        attributes,
        photos,
    )
    return HitColumns(found, counts, 0, 0)


def _photos_in(columns: index_pb2.HitColumns, hits: int, *, other_photos: bool) -> _Photos:
    uris, lengths, hashes = columns.photo_uris, columns.photo_uri_lengths, columns.photo_hashes
    others = columns.other_photos
    sizes = len(lengths), len(hashes)
    if sizes == (0, 0):
        # An endpoint of before does not know them: empty and 0.
        lengths, hashes = bytes(4 * hits), bytes(8 * hits)
    if sizes not in {(4 * hits, 8 * hits), (0, 0)} or len(others) not in {
        hits if other_photos else 0,
        0,
    }:
        raise ValueError(
            f"it returned photos of {hits} hits in columns of {sizes[0]} and {sizes[1]} bytes, and other "
            f"photos of {len(others)}"
        )
    return _Photos(_Texts(uris, lengths, "photo URIs"), unpacked(UINT64, hashes), others)
