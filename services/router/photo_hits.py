"""The photos of the listings of an answer. Pure.

The k nearest photos are among those of the k nearest listings, each of which is as near as its nearest
photo. So photos are hits of their own, exactly, without another search.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from services.router.merge import EndpointHits, MergedHit
from shashin.codecs.hit_lists import HitDetails


class FoundPhoto(NamedTuple):
    """A photo of a listing that was found."""

    photo_number: int
    score: float
    """The highest of all queries whose answers have it."""
    uri: str
    photo_hash: int


class Hit(NamedTuple):
    """One listing of an answer, or one of its photos."""

    found: MergedHit
    details: HitDetails | None
    """None if they were not asked for."""
    others: Sequence[FoundPhoto] = ()
    """The other photos of the listing, nearest first; none if they were not asked for."""


def with_others(hits: Sequence[Hit], answers: Sequence[EndpointHits]) -> list[Hit]:
    """Return the hits with the other photos of their listings, of all answers that have these."""
    photos = _photos_of({hit.found.listing_id: hit.found for hit in hits}, answers)
    return [hit._replace(others=_others(hit, photos[hit.found.listing_id])) for hit in hits]


def photos_as_hits(hits: Sequence[Hit], k: int, min_score: float) -> list[Hit]:
    """Return the k nearest photos of hits that have their others, each as a hit.

    They are by descending score, then by listing and photo number; those below ``min_score`` are left out.
    """
    photos = [photo for hit in hits for photo in (hit._replace(others=()), *_as_hits(hit))]
    near = [hit for hit in photos if hit.found.score >= min_score]
    near.sort(key=lambda hit: (-hit.found.score, hit.found.listing_id, hit.found.photo_number))
    return near[:k]


def _as_hits(hit: Hit) -> list[Hit]:
    assert hit.details is not None
    return [
        Hit(
            hit.found._replace(photo_number=photo.photo_number, score=photo.score),
            hit.details._replace(photo_uri=photo.uri, photo_hash=photo.photo_hash, others=()),
        )
        for photo in hit.others
    ]


def _photos_of(
    merged: Mapping[str, MergedHit], answers: Sequence[EndpointHits]
) -> dict[str, dict[int, FoundPhoto]]:
    """Return the photos of each listing in the version that was found, by number.

    A query of several vectors finds a listing several times, with other scores.
    """
    found: dict[str, dict[int, FoundPhoto]] = {listing_id: {} for listing_id in merged}
    for answer in answers:
        lists = answer.lists
        columns = zip(
            lists.listing_ids, lists.versions, lists.photo_numbers, lists.scores, strict=True
        )
        wanted = [
            (position, listing_id, number, score)
            for position, (listing_id, version, number, score) in enumerate(columns)
            if (hit := merged.get(listing_id)) is not None and hit.version == version
        ]
        described = lists.details_at([position for position, *_ in wanted])
        for (_, listing_id, number, score), details in zip(wanted, described, strict=True):
            if details is None:
                continue
            photos = found[listing_id]
            own = FoundPhoto(number, score, details.photo_uri, details.photo_hash)
            others = (FoundPhoto(o.photo_number, o.score, o.uri, o.hash) for o in details.others)
            for photo in (own, *others):
                known = photos.get(photo.photo_number)
                if known is None or known.score < photo.score:
                    photos[photo.photo_number] = photo
    return found


def _others(hit: Hit, photos: Mapping[int, FoundPhoto]) -> list[FoundPhoto]:
    others = [photo for number, photo in photos.items() if number != hit.found.photo_number]
    return sorted(others, key=lambda photo: (-photo.score, photo.photo_number))
