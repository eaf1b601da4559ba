"""Filters of a selectivity, whose matching rows are anywhere, near the query, or far from it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from usearch.index import Index

from bench.figures import percentile
from bench.search import system
from bench.search.data import DataSet, K, Numbers, Vectors, exact, recall
from bench.search.sealed import CATEGORIES_OF_GROUP, category_of, price_of
from shashin.serving.served_shards import Snapshot
from shashin.shards.kinds.quantizer import nearest, train
from shashin.shards.row_filter import PriceRange, RowFilter

SELECTIVITIES = (0.5, 0.1, 0.01, 0.001, 0.0001)
LAYOUTS = ("random", "correlated", "anti-correlated")
QUERIES = 50
GROUPS = 512

_PRICES = 1_000_000
_BARE_SECONDS = 3.0
"""For bare USearch in each case: where it reads most of its graph, a query takes seconds."""


@dataclass(frozen=True)
class Grouped:
    """The rows divided into groups of neighbours, which filters name as categories."""

    of_row: Numbers
    """(n,): each row's group."""
    centroids: Vectors
    """(groups, dimensions)."""
    sizes: Numbers
    """(groups,)."""

    @cached_property
    def prices(self) -> Numbers:
        """(n,): each row's price."""
        return np.array([price_of(number) for number in range(len(self.of_row))])

    @classmethod
    def over(cls, rows: Vectors) -> Grouped:
        """Divide rows."""
        centroids = train(rows, min(GROUPS, max(1, len(rows) // 20))).centroids
        of_row = nearest(rows, centroids)
        return cls(of_row, centroids, np.bincount(of_row, minlength=len(centroids)))


def filter_for(query: Vectors, grouped: Grouped, layout: str, selectivity: float) -> RowFilter:
    """Return a filter that about such a share of the rows meets, laid out so around a query.

    Random ones have two price ranges. The others have the groups nearest to the query or farthest from it,
    in turns by prefix and by the names of all categories below, and limit the price of the last of them,
    if one group is too many.
    """
    if layout == "random":
        return RowFilter(prices=_price_ranges(selectivity))
    nearness = grouped.centroids @ query
    order = np.argsort(-nearness if layout == "correlated" else nearness, kind="stable")
    wanted = selectivity * grouped.sizes.sum()
    sums = np.cumsum(grouped.sizes[order])
    count = int(np.searchsorted(sums, wanted)) + 1
    share = wanted / sums[min(count, len(sums)) - 1]
    groups = order[:count].tolist()
    return RowFilter(
        categories=tuple(
            category_of(group, number)
            for group in groups[1::2]
            for number in range(CATEGORIES_OF_GROUP)
        ),
        category_prefixes=tuple(f"g{group}" for group in groups[::2]),
        prices=_price_ranges(share) if share < 0.999 else (),
    )


def _price_ranges(share: float) -> tuple[PriceRange, ...]:
    """Return two ranges, one of low and one of high prices, that have such a share of all."""
    half = round(share * _PRICES / 2)
    return (
        PriceRange("JPY", max_minor=half - 1),
        PriceRange("JPY", _PRICES // 2, _PRICES // 2 + half - 1),
    )


def matching(row_filter: RowFilter, grouped: Grouped) -> npt.NDArray[np.bool_]:
    """Return which rows meet a filter, (n,)."""
    mask = np.ones(len(grouped.of_row), np.bool_)
    if row_filter.categories or row_filter.category_prefixes:
        named = {name.partition("/")[0] for name in row_filter.categories}
        names = {*named, *row_filter.category_prefixes}
        mask &= np.isin(grouped.of_row, [int(name[1:]) for name in names])
    if row_filter.prices:
        found = np.zeros(len(mask), np.bool_)
        for price in row_filter.prices:
            assert price.max_minor is not None
            low = price.min_minor or 0
            found |= (grouped.prices >= low) & (grouped.prices <= price.max_minor)
        mask &= found
    return mask


@dataclass(frozen=True)
class Filtered:
    """What filters of one layout and selectivity cost."""

    data: str
    layout: str
    selectivity: float
    recall: float
    """recall@10 against exact filtered search."""
    filled: float
    """The share of queries with 10 hits, or as many as there are."""
    p50: float
    """Milliseconds, of a filter that was used before."""
    first_p50: float
    """Milliseconds, of a filter that is new to every shard."""
    usearch_p50: float
    """Milliseconds of bare USearch that asks for more until enough rows match."""
    usearch_recall: float

    @property
    def times_faster(self) -> float:
        """By how much this is faster than USearch, with a filter that was used before."""
        return self.usearch_p50 / self.p50


def over_fetched(
    index: Index, query: Vectors, mask: npt.NDArray[np.bool_], available: int
) -> Numbers:
    """Search with twice as many hits each time until ten of them match, as users of a bare index do."""
    wanted = min(K, available)
    asked = K
    while True:
        keys = np.asarray(index.search(query, asked, threads=1).keys).astype(np.int64)
        found = keys[mask[keys]]
        if len(found) >= wanted or asked >= len(mask):
            return found[:K]
        asked = min(2 * asked, len(mask))


def measured(
    data: DataSet,
    grouped: Grouped,
    snapshot: Snapshot,
    index: Index,
    cases: Sequence[tuple[str, float]],
    queries: int = QUERIES,
) -> list[Filtered]:
    """Search with filters of each layout and selectivity, and beside it with bare USearch."""
    return [
        _case(data, grouped, snapshot, index, layout, selectivity, queries)
        for layout, selectivity in cases
    ]


def _case(
    data: DataSet,
    grouped: Grouped,
    snapshot: Snapshot,
    index: Index,
    layout: str,
    selectivity: float,
    queries: int,
) -> Filtered:
    found = np.full((queries, K), -1, np.int64)
    theirs = np.full((queries, K), -1, np.int64)
    truth = np.full((queries, K), -1, np.int64)
    first: list[float] = []
    again: list[float] = []
    usearch: list[float] = []
    for number, query in enumerate(data.queries[:queries]):
        row_filter = filter_for(query, grouped, layout, selectivity)
        mask = matching(row_filter, grouped)
        truth[number] = exact(data.rows, query[np.newaxis], K, mask)[0]
        started = time.perf_counter()
        system.search(snapshot, query, row_filter=row_filter)
        first.append(time.perf_counter() - started)
        started = time.perf_counter()
        hits = system.search(snapshot, query, row_filter=row_filter)
        again.append(time.perf_counter() - started)
        rows = system.found_rows(hits)
        found[number, : len(rows)] = rows
        if sum(usearch) > _BARE_SECONDS:
            continue
        started = time.perf_counter()
        rows = over_fetched(index, query, mask, int(mask.sum()))
        usearch.append(time.perf_counter() - started)
        theirs[number, : len(rows)] = rows
    enough = np.count_nonzero(found >= 0, axis=1) >= np.count_nonzero(truth >= 0, axis=1)
    return Filtered(
        data.name,
        layout,
        selectivity,
        recall(found, truth),
        float(enough.mean()),
        1e3 * percentile(again, 0.5),
        1e3 * percentile(first, 0.5),
        1e3 * percentile(usearch, 0.5),
        recall(theirs[: len(usearch)], truth[: len(usearch)]),
    )
