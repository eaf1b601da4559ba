"""Reads the hits of IndexService answers: columns become lists, of all queries of a call or of some."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np
import numpy.typing as npt

from shashin.v1 import events_pb2, index_pb2


@dataclass(frozen=True)
class HitLists:
    """The hits of some queries. Query i has ``counts[i]`` entries in the other lists, nearest first."""

    counts: Sequence[int]
    listing_ids: Sequence[str]
    versions: Sequence[int]
    photo_numbers: Sequence[int]
    scores: Sequence[float]
    attributes: Sequence[events_pb2.Attributes | None]
    """None of hits whose attributes were not asked for."""

    def of_queries(self, first: int, end: int) -> HitLists:
        """Return the hits of the queries from ``first`` to before ``end``."""
        if (first, end) == (0, len(self.counts)):
            return self
        begin = sum(self.counts[:first])
        hits = slice(begin, begin + sum(self.counts[first:end]))
        return HitLists(
            self.counts[first:end],
            self.listing_ids[hits],
            self.versions[hits],
            self.photo_numbers[hits],
            self.scores[hits],
            self.attributes[hits],
        )


NOTHING = HitLists((), (), (), (), (), ())


def hits_in(columns: index_pb2.HitColumns, queries: int, attributes: int) -> HitLists:
    """Return the hits of an answer to so many queries, which asked for so many attributes of each.

    Raises:
        ValueError: saying how the columns are malformed.
    """
    counts = list(columns.counts)
    hits = sum(counts)
    sizes = tuple(
        len(column)
        for column in (
            columns.listing_id_lengths,
            columns.versions,
            columns.photo_numbers,
            columns.scores,
        )
    )
    described = sum(min(count, attributes) for count in counts)
    if len(counts) != queries or sizes != (4 * hits, 8 * hits, 4 * hits, 4 * hits):
        raise ValueError(
            f"it returned {len(counts)} of {queries} queries, with {hits} hits in columns of "
            f"{', '.join(map(str, sizes))} bytes"
        )
    if len(columns.attributes) != described:
        raise ValueError(f"it returned {len(columns.attributes)} attributes instead of {described}")
    scores = np.frombuffer(columns.scores, "<f4")
    if not np.isfinite(scores).all():
        raise ValueError("it returned scores that are not finite")
    return HitLists(
        counts,
        split_ids(columns.listing_ids, np.frombuffer(columns.listing_id_lengths, "<u4")),
        np.frombuffer(columns.versions, "<u8").tolist(),
        np.frombuffer(columns.photo_numbers, "<u4").tolist(),
        scores.tolist(),
        _spread(columns.attributes, counts, attributes),
    )


def split_ids(ids: bytes, lengths: npt.NDArray[np.uint32]) -> list[str]:
    """Return strings that are stored one after another in UTF-8, with their lengths in bytes.

    Raises:
        ValueError: when they are not UTF-8, or of other lengths.
    """
    total = int(lengths.sum(dtype=np.uint64))
    if total != len(ids):
        raise ValueError(f"it returned listing ids of {len(ids)} bytes, and lengths of {total}")
    bounds = pairwise(accumulate(lengths.tolist(), initial=0))
    try:
        return [ids[start:end].decode() for start, end in bounds]
    except UnicodeDecodeError as error:
        raise ValueError(f"it returned listing ids that are not UTF-8: {error}") from error


def _spread(
    described: Sequence[events_pb2.Attributes], counts: Sequence[int], attributes: int
) -> Sequence[events_pb2.Attributes | None]:
    """Return the attributes of each hit: of the first of each query."""
    if len(described) == sum(counts):
        return described
    spread: list[events_pb2.Attributes | None] = []
    begin = 0
    for count in counts:
        end = begin + min(count, attributes)
        spread += described[begin:end]
        spread += [None] * (count - (end - begin))
        begin = end
    return spread
