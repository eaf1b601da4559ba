"""Merging against brute force over all rows of all endpoints."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from services.router.merge import EndpointHits, MergedHit, merge, truncated
from shashin.codecs.hit_lists import HitLists
from shashin.codecs.limits import MAX_HITS

TIERS = ("live", "hourly", "daily")


@dataclass(frozen=True)
class StoredRow:
    endpoint: int
    listing_id: str
    version: int
    photo_number: int
    scores: tuple[float, ...]
    """One per query."""


def answer_of(
    rows: Sequence[StoredRow], endpoint: int, queries: int, requested: int
) -> EndpointHits:
    """Answer like an endpoint: the nearest listings, each in the newest version found."""
    counts, columns = [], []
    for query in range(queries):
        best: dict[str, tuple[StoredRow, float]] = {}
        own = [row for row in rows if row.endpoint == endpoint]
        for row in sorted(own, key=lambda row: -row.scores[query]):
            known = best.get(row.listing_id)
            if known is None and len(best) == requested:
                break
            if known is None or known[0].version < row.version:
                best[row.listing_id] = (row, row.scores[query])
        found = sorted(best.values(), key=lambda hit: -hit[1])
        counts.append(len(found))
        columns += found
    return EndpointHits(
        tier=TIERS[endpoint],
        k=requested,
        lists=HitLists(
            counts=counts,
            listing_ids=[row.listing_id for row, _ in columns],
            versions=[row.version for row, _ in columns],
            photo_numbers=[row.photo_number for row, _ in columns],
            scores=[score for _, score in columns],
            details=[None] * len(columns),
        ),
    )


def search(
    rows: Sequence[StoredRow],
    queries: int,
    k: int,
    excluded: Collection[str] = (),
    min_score: float = -math.inf,
) -> list[MergedHit]:
    """Request k hits at first, and over-fetch until no answer is truncated."""
    answers = [answer_of(rows, endpoint, queries, k) for endpoint in range(len(TIERS))]
    count = k
    while True:
        merged = merge(answers, k, excluded=excluded, min_score=min_score)
        incomplete = truncated(answers, merged, k, min_score=min_score)
        if not incomplete:
            return merged
        count *= 2
        for endpoint in incomplete:
            answers[endpoint] = answer_of(rows, endpoint, queries, count)


def shown(hits: list[MergedHit]) -> list[tuple[object, ...]]:
    """Return what of hits a caller sees."""
    return [(h.listing_id, h.version, h.photo_number, h.score, h.tier) for h in hits]


def best_rows(rows: Sequence[StoredRow]) -> dict[str, tuple[int, float]]:
    """Return each listing's newest version and the best score of its rows."""
    best: dict[str, tuple[int, float]] = {}
    for row in rows:
        hit = (row.version, max(row.scores))
        best[row.listing_id] = max(hit, best.get(row.listing_id, hit))
    return best


@st.composite
def stored_rows(draw: st.DrawFn, versions: int) -> tuple[list[StoredRow], int]:
    """Return rows whose scores all differ, and the number of queries."""
    queries = draw(st.integers(1, 3))
    size = draw(st.integers(0, 40))
    order = draw(st.permutations(range(size * queries)))
    rows = {}
    for number in range(size):
        row = StoredRow(
            endpoint=draw(st.integers(0, len(TIERS) - 1)),
            listing_id=f"listing-{draw(st.integers(0, 9))}",
            version=draw(st.integers(1, versions)),
            photo_number=draw(st.integers(0, 3)),
            scores=tuple(order[number * queries + q] / 256 for q in range(queries)),
        )
        rows[row.endpoint, row.listing_id, row.version, row.photo_number] = row
    return list(rows.values()), queries


@given(stored_rows(versions=1), st.integers(1, 8))
def test_with_one_visible_version_the_answer_equals_brute_force(
    stored: tuple[list[StoredRow], int], k: int
) -> None:
    rows, queries = stored
    expected = sorted(
        ((-score, listing) for listing, (_, score) in best_rows(rows).items()),
    )[:k]
    assert [(-hit.score, hit.listing_id) for hit in search(rows, queries, k)] == expected


@given(stored_rows(versions=3), st.integers(1, 8))
def test_superseded_versions_make_the_answer_neither_short_nor_wrong(
    stored: tuple[list[StoredRow], int], k: int
) -> None:
    rows, queries = stored
    hits = search(rows, queries, k)
    newest = best_rows(rows)
    assert len({hit.listing_id for hit in hits}) == len(hits) == min(k, len(newest))
    assert hits == sorted(hits, key=lambda hit: (-hit.score, hit.listing_id))
    worst = hits[-1].score if len(hits) == k else -1.0
    shown = {hit.listing_id: (hit.version, hit.score) for hit in hits}
    for listing, (version, score) in newest.items():
        if score > worst:
            assert shown[listing] == (version, score), "a better hit is missing"
    for hit in hits:
        assert hit.score == max(
            max(row.scores)
            for row in rows
            if (row.listing_id, row.version) == (hit.listing_id, hit.version)
        )


@given(stored_rows(versions=1), st.integers(1, 8), st.sets(st.integers(0, 9)))
def test_excluded_listings_leave_no_gap(
    stored: tuple[list[StoredRow], int], k: int, numbers: set[int]
) -> None:
    rows, queries = stored
    excluded = {f"listing-{number}" for number in numbers}
    others = [row for row in rows if row.listing_id not in excluded]
    hits = search(rows, queries, k, excluded)
    assert [(hit.listing_id, hit.score) for hit in hits] == [
        (hit.listing_id, hit.score) for hit in search(others, queries, k)
    ]


@given(stored_rows(versions=1), st.integers(1, 8), st.integers(-1, 121))
def test_a_minimal_score_keeps_those_that_reach_it_and_no_others(
    stored: tuple[list[StoredRow], int], k: int, least: int
) -> None:
    rows, queries = stored
    everything = search(rows, queries, k)
    reached = [hit for hit in everything if hit.score >= least / 256]
    assert shown(search(rows, queries, k, min_score=least / 256)) == shown(reached)


@given(stored_rows(versions=3), st.integers(1, 8))
def test_the_order_in_which_endpoints_answer_does_not_matter(
    stored: tuple[list[StoredRow], int], k: int
) -> None:
    rows, queries = stored
    answers = [answer_of(rows, endpoint, queries, k) for endpoint in range(len(TIERS))]
    rotated = answers[1:] + answers[:1]

    assert shown(merge(answers, k)) == shown(merge(rotated, k))


def hits_of(tier: str, *rows: tuple[str, int, int, float], k: int = 10) -> EndpointHits:
    ids, versions, photos, scores = zip(*rows, strict=True) if rows else ((), (), (), ())
    lists = HitLists([len(rows)], ids, versions, photos, scores, [None] * len(rows))
    return EndpointHits(tier, k, lists)


def test_an_older_version_is_no_hit_even_if_it_is_nearer() -> None:
    sealed = hits_of("hourly", ("lamp", 1, 0, 0.99), ("mug", 1, 0, 0.5))
    live = hits_of("live", ("lamp", 2, 3, 0.4))
    merged = merge([sealed, live], 10)
    assert [(hit.listing_id, hit.version, hit.photo_number) for hit in merged] == [
        ("mug", 1, 0),
        ("lamp", 2, 3),
    ]
    assert [hit.tier for hit in merged] == ["hourly", "live"]


def test_a_row_in_two_tiers_is_one_hit_of_the_freshest_tier() -> None:
    answers = [hits_of("hourly", ("lamp", 1, 0, 0.75)), hits_of("live", ("lamp", 1, 0, 0.75))]
    for order in (answers, answers[::-1]):
        assert [hit.tier for hit in merge(order, 10)] == ["live"]


def test_a_listing_is_attributed_to_the_tier_with_its_best_row() -> None:
    answers = [hits_of("hourly", ("lamp", 1, 1, 0.76)), hits_of("live", ("lamp", 1, 0, 0.75))]
    assert [(hit.tier, hit.photo_number) for hit in merge(answers, 10)] == [("hourly", 1)]


def test_equal_scores_are_ordered_by_listing_id() -> None:
    answers = [
        hits_of("live", ("b", 1, 0, 0.5), ("c", 1, 0, 0.5)),
        hits_of("daily", ("a", 1, 0, 0.5)),
    ]
    assert [hit.listing_id for hit in merge(answers, 2)] == ["a", "b"]


def test_an_answer_with_fewer_hits_than_requested_is_not_truncated() -> None:
    answer = hits_of("live", ("lamp", 1, 0, 0.1), k=2)
    assert truncated([answer], merge([answer], 5), 5) == []


def test_an_answer_that_may_lack_a_nearer_listing_is_truncated() -> None:
    sealed = hits_of("hourly", ("lamp", 1, 0, 0.9), ("mug", 1, 0, 0.8), k=2)
    live = hits_of("live", ("lamp", 2, 0, 0.1), ("mug", 2, 0, 0.1), ("hat", 1, 0, 0.2), k=4)
    merged = merge([sealed, live], 2)
    assert truncated([sealed, live], merged, 2) == [0]


def test_an_answer_with_the_maximum_hits_of_a_call_is_not_extended() -> None:
    rows = [(f"listing-{i}", 1, 0, 0.9) for i in range(MAX_HITS)]
    live = hits_of("live", *((listing, 2, 0, 0.1) for listing, *_ in rows), k=2 * MAX_HITS)
    almost = hits_of("hourly", *rows[1:], k=MAX_HITS - 1)
    assert truncated([almost, live], merge([almost, live], 2), 2) == [0]
    most = hits_of("hourly", *rows, k=MAX_HITS)
    assert truncated([most, live], merge([most, live], 2), 2) == []
