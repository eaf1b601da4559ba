"""Merging: the hits of many endpoints become one list in which a listing occurs once. Pure.

An endpoint gives its nearest listings only, so a merged list may lack some: if the hits of one
endpoint are superseded by newer versions from another, what the first one held back could have
been nearer. ``may_hold_back`` names the endpoints of which that is possible; once it names none,
every listing whose newest version belongs into the list is in it, up to the order of equal scores.

What merging cannot know is a newer version that no answer showed, because it is too far from the
query. Its older version is a hit until ``listings.hidden`` hides it, moments after the newer one
became searchable: visibility is decided there, and merging only covers for those moments.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from shashin.codecs.limits import MAX_HITS
from shashin.tiers import age_of


@dataclass(frozen=True)
class EndpointHits:
    """What one endpoint answered to a batch of queries, as columns.

    Query i owns ``counts[i]`` entries of the other columns, nearest first.
    """

    tier: str
    asked: int
    """Hits asked for, for each query."""
    counts: Sequence[int]
    listing_ids: Sequence[str]
    versions: Sequence[int]
    photo_numbers: Sequence[int]
    scores: Sequence[float]

    def max_unseen_score(self) -> float:
        """Return an upper bound of the score of whatever the endpoint held back.

        Minus infinity when it had fewer hits than asked for, so that it held nothing back.
        """
        ends = accumulate(self.counts, initial=0)
        return max(
            (
                min(self.scores[start:end])
                for start, end in pairwise(ends)
                if end - start >= self.asked
            ),
            default=-math.inf,
        )


@dataclass(frozen=True)
class MergedHit:
    """One listing in its newest version, at the photo that is nearest to any of the queries."""

    listing_id: str
    version: int
    photo_number: int
    score: float
    tier: str
    source: int
    """Which of the answers gave it."""
    position: int
    """Its place in the columns of that answer."""


def merge(answers: Sequence[EndpointHits], k: int, *, leave_out: str = "") -> list[MergedHit]:
    """Return the up to ``k`` best listings, by falling score and then by listing id.

    Of a listing only the newest version among the answers counts, even if an older one is
    nearer. ``leave_out`` is a listing that is never a hit.
    """
    best: dict[str, tuple[int, float, int, int, int, int]] = {}
    for source, answer in enumerate(answers):
        # A row with the same score in two tiers is named by the fresher one.
        freshness = -age_of(answer.tier)
        columns = zip(
            answer.listing_ids, answer.versions, answer.scores, answer.photo_numbers, strict=True
        )
        for position, (listing_id, version, score, photo_number) in enumerate(columns):
            hit = (version, score, -photo_number, freshness, source, position)
            known = best.get(listing_id)
            if known is None or hit > known:
                best[listing_id] = hit
    best.pop(leave_out, None)
    ranked = sorted(best.items(), key=lambda item: (-item[1][1], item[0]))[:k]
    return [
        MergedHit(
            listing_id, version, -negative_photo, score, answers[source].tier, source, position
        )
        for listing_id, (version, score, negative_photo, _, source, position) in ranked
    ]


def may_hold_back(
    answers: Sequence[EndpointHits], merged: Sequence[MergedHit], k: int
) -> list[int]:
    """Return which answers may lack a listing that belongs into the merged list.

    An endpoint that was asked for ``MAX_HITS`` already cannot be asked for more.
    """
    worst = merged[-1].score if len(merged) >= k else -math.inf
    return [
        number
        for number, answer in enumerate(answers)
        if answer.asked < MAX_HITS and answer.max_unseen_score() > worst
    ]
