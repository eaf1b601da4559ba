"""Merges the hits of all endpoints into one list with one hit per listing. Pure.

An endpoint returns only its nearest listings, so a merged list may lack some: if newer versions
from one endpoint supersede the hits of another, the next hits of the latter may belong into the
list. ``truncated`` returns the answers for which that is possible. Once there are none, the list is
exact, up to the order of equal scores.

Merging cannot detect a newer version that is in no answer because it is too far from the query. Its
older version stays a hit until ``listings.hidden`` hides it, seconds after the newer one became
searchable (shashin.serving.hiding). Visibility is decided there; merging only bridges that interval.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import repeat
from operator import gt
from typing import NamedTuple

from shashin.codecs.hit_lists import QueryHits
from shashin.codecs.limits import MAX_HITS
from shashin.tiers import age_of


@dataclass(frozen=True)
class EndpointHits:
    """One endpoint's hits for a batch of queries."""

    tier: str
    k: int
    """Hits requested per query."""
    lists: QueryHits

    def max_unseen_score(self) -> float:
        """Return an upper bound of the scores of hits beyond those returned.

        Minus infinity if it returned fewer hits than requested, so that there are none.
        """
        unseen, end = -math.inf, 0
        for count in self.lists.counts:
            end += count
            if count >= self.k:
                unseen = max(unseen, self.lists.lowest_score(end))
        return unseen


class MergedHit(NamedTuple):
    """The newest version of a listing, with its photo nearest to any of the queries."""

    listing_id: str
    version: int
    photo_number: int
    score: float
    tier: str
    source: int
    """Index of its answer."""
    position: int
    """Index in the lists of that answer."""


def merge(
    answers: Sequence[EndpointHits],
    k: int,
    *,
    excluded: Collection[str] = (),
    min_score: float = -math.inf,
) -> list[MergedHit]:
    """Return up to ``k`` best listings of at least ``min_score``, by descending score, then by listing id.

    Only the newest version of a listing counts, even if an older one is nearer. The listings
    ``excluded`` are never hits.
    """
    if not excluded and len(answers) == 1 and len(answers[0].lists.counts) == 1:
        alone = _first_of(answers[0], k, min_score)
        if alone is not None:
            return alone
    best: dict[str, tuple[int, float, int, int, int, int]] = {}
    for source, answer in enumerate(answers):
        # A row with the same score in two tiers is attributed to the fresher one.
        freshness = -age_of(answer.tier)
        lists = answer.lists
        columns = zip(
            lists.listing_ids, lists.versions, lists.scores, lists.photo_numbers, strict=True
        )
        for position, (listing_id, version, score, photo_number) in enumerate(columns):
            hit = (version, score, -photo_number, freshness, source, position)
            known = best.get(listing_id)
            if known is None or hit > known:
                best[listing_id] = hit
    for listing_id in excluded:
        best.pop(listing_id, None)
    near = ((listing_id, hit) for listing_id, hit in best.items() if hit[1] >= min_score)
    ranked = sorted(near, key=lambda item: (-item[1][1], item[0]))[:k]
    return [
        MergedHit(
            listing_id, version, -negative_photo, score, answers[source].tier, source, position
        )
        for listing_id, (version, score, negative_photo, _, source, position) in ranked
    ]


def _first_of(answer: EndpointHits, k: int, min_score: float) -> list[MergedHit] | None:
    """Return the first hits of one query's answer; None if they need to be merged.

    They have each listing once. Those of equal score may be in another order.
    """
    first = answer.lists.nearest(k + 1)
    scores = first.scores
    if not all(map(gt, scores, scores[1:])):
        return None
    columns = (first.listing_ids, first.versions, first.photo_numbers, scores)
    hits = list(map(MergedHit, *columns, repeat(answer.tier), repeat(0), range(k)))
    while hits and hits[-1].score < min_score:
        hits.pop()
    return hits


def truncated(
    answers: Sequence[EndpointHits],
    merged: Sequence[MergedHit],
    k: int,
    *,
    min_score: float = -math.inf,
) -> list[int]:
    """Return the indexes of answers that may lack a listing of the exact merged list.

    An answer with ``MAX_HITS`` requested is not included: it cannot be extended.
    """
    is_full = len(merged) >= k

    def may_lack(answer: EndpointHits) -> bool:
        unseen = answer.max_unseen_score()
        if unseen == -math.inf or answer.k >= MAX_HITS:
            return False
        return unseen > merged[-1].score if is_full else unseen >= min_score

    return [number for number, answer in enumerate(answers) if may_lack(answer)]
