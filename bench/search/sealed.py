"""Shards of the rows of a data set, written as an indexer writes them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bench.search.data import DIMENSIONS, Vectors
from shashin.model_space import ModelSpace
from shashin.offsets.ranges import OffsetRange
from shashin.shards.format.manifest import Manifest
from shashin.shards.format.row import NewRow, Row, RowAttributes
from shashin.shards.kinds.protocol import IndexKind
from shashin.shards.kinds.registry import index_kind
from shashin.shards.writer import Origin, ShardWriter
from shashin.tiers import HOURLY

SPACE = ModelSpace("bench", DIMENSIONS)
LISTS = 2_048
"""Of the quantizer, for kinds that have one."""

CATEGORIES_OF_GROUP = 4

_LISTED_AT = 1_700_000_000


def prepared_kind(name: str, rows: Vectors) -> IndexKind:
    """Return a kind to build shards of these rows; with a quantizer of theirs if it has one."""
    kind = index_kind(name)
    if not hasattr(kind, "with_quantizer"):
        return kind
    from shashin.shards.kinds.quantizer import train  # older versions have no such module

    prepared: IndexKind = kind.with_quantizer(train(rows, LISTS))
    return prepared


def new_rows(
    first: int, rows: Vectors, categories: npt.NDArray[np.integer] | None = None
) -> list[NewRow]:
    """Return rows with their vectors, each of a listing of its own that is named by its number.

    The price is a pseudo-random permutation of the number, so that a limit is a random filter.
    """
    made = []
    for number, vector in enumerate(rows, start=first):
        category = "shoes"
        if categories is not None:
            category = category_of(int(categories[number - first]), number)
        attributes = RowAttributes(category, "ACME", price_of(number), "JPY", _LISTED_AT)
        uri = f"s3://photos/{number}.jpg"
        made.append(NewRow(Row(listing_id(number), 1, 0, attributes, photo_uri=uri), vector))
    return made


def category_of(group: int, number: int) -> str:
    """Return the category of a row of a group: one of a few below the group's."""
    return f"g{group}/{number % CATEGORIES_OF_GROUP}"


def price_of(number: int) -> int:
    """Return the price of a row, evenly spread over 0 to 999,999."""
    return number * 618_033 % 1_000_003 % 1_000_000


def listing_id(number: int) -> str:
    """Return the listing of a row."""
    return f"r{number:09d}"


def row_of(listing: str) -> int:
    """Return the row of a listing."""
    return int(listing[1:])


def write_shards(
    folder: Path,
    kind: IndexKind,
    rows: Vectors,
    count: int,
    categories: npt.NDArray[np.integer] | None = None,
) -> list[Manifest]:
    """Write all rows as so many shards, a folder each named by its id; returns their manifests."""
    bounds = np.linspace(0, len(rows), count + 1).astype(int).tolist()
    manifests = []
    for number, (begin, end) in enumerate(pairwise(bounds)):
        of_shard = None if categories is None else categories[begin:end]
        manifests.append(_write_shard(folder, kind, number, begin, rows[begin:end], of_shard))
    return manifests


def _write_shard(
    folder: Path,
    kind: IndexKind,
    number: int,
    begin: int,
    rows: Vectors,
    categories: npt.NDArray[np.integer] | None,
) -> Manifest:
    writer = ShardWriter(SPACE, kind.builder(DIMENSIONS))
    writer.add(new_rows(begin, rows, categories))
    ranges: Sequence[OffsetRange] = (OffsetRange(0, begin, begin + len(rows)),)
    origin = Origin(HOURLY, number * 3600, 3600, tuple(ranges), "time")
    return writer.finish(folder / origin.shard_id(SPACE), origin)
