"""Query validation; each error names the invalid field."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from shashin.codecs.filters import check_filter
from shashin.codecs.limits import MAX_EXCLUDED, MAX_K, MAX_PHOTO_BYTES
from shashin.codecs.listing_rules import listing_id_problem
from shashin.errors import InvalidQuery, PhotoEmpty, PhotoTooLarge
from shashin.photo_box import Box, box_problem
from shashin.v1 import index_pb2

DEFAULT_K = 10
MAX_DEADLINE_MS = 60_000
MAX_PARTS = 8
MAX_WEIGHT = 10.0
_LEAST_WEIGHT = 0.001

_KINDS = ("photo", "vector", "listing_id")


@dataclass(frozen=True)
class Part:
    """One of several things that a query combines: exactly one of photo, vector and listing id is given."""

    photo: bytes | None = None
    vector: bytes | None = None
    """Little-endian float32, 4 bytes per dimension."""
    listing_id: str | None = None
    crop: Box | None = None
    """The part of the photo that is searched for; None means all of it."""
    weight: float = 1.0

    @property
    def kind(self) -> str | None:
        """What it is; None if it is nothing."""
        return next(iter(_given(self)), None)


@dataclass(frozen=True)
class Query:
    """One search: exactly one of photo, vector, listing id and parts is given."""

    photo: bytes | None = None
    vector: bytes | None = None
    """Little-endian float32, 4 bytes per dimension."""
    listing_id: str | None = None
    crop: Box | None = None
    """The part of the photo that is searched for; None means all of it."""
    parts: Sequence[Part] = ()
    k: int = 0
    """Requested hits, 1 to 1000; 0 means 10."""
    min_score: float = -math.inf
    each_photo: bool = False
    """Whether each photo is a hit, instead of each listing."""
    other_photos: bool = False
    """Whether hits list the other photos of their listing."""
    ids_only: bool = False
    """Whether hits have neither attributes nor photo URIs."""
    excluded_listing_ids: Sequence[str] = ()
    row_filter: index_pb2.Filter = field(default_factory=index_pb2.Filter)
    deadline_ms: int = 0
    """1 to 60000; 0 means the router's default."""

    @cached_property
    def excluded(self) -> frozenset[str]:
        """The listings that are no hits: those that are searched for, and those that it excludes."""
        own = [self.listing_id, *[part.listing_id for part in self.parts]]
        return frozenset([*self.excluded_listing_ids, *[one for one in own if one is not None]])

    @property
    def kind(self) -> str:
        """What is searched for."""
        return next(iter(_given(self)), "parts")

    @property
    def needs_photos(self) -> bool:
        """Whether the other photos of hits are needed."""
        return self.each_photo or self.other_photos

    @property
    def needs_details(self) -> bool:
        """Whether more of hits is needed than what ranks them."""
        return self.needs_photos or not self.ids_only


def validated(query: Query) -> Query:
    """Validate the query and return it with defaults filled in.

    Raises:
        InvalidQuery: naming the invalid field.
        PhotoEmpty: when the photo has no bytes.
        PhotoTooLarge: when the photo is larger than 16 MiB.
    """
    given = _given(query)
    given += ["parts"] if query.parts else []
    if len(given) != 1:
        raise InvalidQuery(
            f"the query has {' and '.join(given) or 'nothing to search for'}; expected exactly one "
            "of photo, vector, listing_id and parts"
        )
    if not 0 <= query.k <= MAX_K:
        raise InvalidQuery(
            f"k is {query.k}; expected 1 to {MAX_K}, or 0 for the default of {DEFAULT_K}"
        )
    if not 0 <= query.deadline_ms <= MAX_DEADLINE_MS:
        raise InvalidQuery(
            f"deadline_ms is {query.deadline_ms}; expected 1 to {MAX_DEADLINE_MS}, or 0 for "
            "the router's default"
        )
    if query.min_score != -math.inf and not -1 <= query.min_score <= 1:
        raise InvalidQuery(
            f"min_score is {query.min_score:g}; expected -1 to 1, a cosine similarity"
        )
    _check_what("", query.photo, query.listing_id, query.crop)
    _check_parts(query.parts)
    _check_excluded(query.excluded_listing_ids)
    if query.row_filter.ByteSize():
        check_filter(query.row_filter)
    return query if query.k else replace(query, k=DEFAULT_K)


def _given(what: Query | Part) -> list[str]:
    """Return which of photo, vector and listing id are given."""
    return [kind for kind in _KINDS if getattr(what, kind) is not None]


def check_listing_id(name: str, listing_id: str) -> None:
    """Validate a listing id.

    Raises:
        InvalidQuery: naming the field.
    """
    if problem := listing_id_problem(listing_id):
        raise InvalidQuery(f"{name} has {problem}")


def _check_parts(parts: Sequence[Part]) -> None:
    if len(parts) > MAX_PARTS:
        raise InvalidQuery(f"parts has {len(parts)} entries; expected at most {MAX_PARTS}")
    for number, part in enumerate(parts):
        name = f"parts[{number}]"
        given = _given(part)
        if len(given) != 1:
            raise InvalidQuery(
                f"{name} has {' and '.join(given) or 'nothing to search for'}; expected exactly one of "
                "photo, vector and listing_id"
            )
        if not _LEAST_WEIGHT <= abs(part.weight) <= MAX_WEIGHT:
            raise InvalidQuery(
                f"{name}.weight is {part.weight:g}; expected {_LEAST_WEIGHT:g} to {MAX_WEIGHT:g}, or the "
                "same below 0 to find what resembles it less"
            )
        _check_what(f"{name}.", part.photo, part.listing_id, part.crop)


def _check_what(prefix: str, photo: bytes | None, listing_id: str | None, crop: Box | None) -> None:
    if listing_id is not None:
        check_listing_id(f"{prefix}listing_id", listing_id)
    if photo is not None:
        _check_photo(f"{prefix}photo", photo)
    if crop is None:
        return
    if photo is None:
        raise InvalidQuery(f"{prefix}crop is given without a photo; expected it only beside one")
    if problem := box_problem(crop):
        raise InvalidQuery(f"{prefix}crop.{problem}")


def _check_excluded(listing_ids: Sequence[str]) -> None:
    if len(listing_ids) > MAX_EXCLUDED:
        raise InvalidQuery(
            f"excluded_listing_ids has {len(listing_ids)} ids; expected at most {MAX_EXCLUDED}"
        )
    for number, listing_id in enumerate(listing_ids):
        check_listing_id(f"excluded_listing_ids[{number}]", listing_id)


def _check_photo(name: str, photo: bytes) -> None:
    if not photo:
        raise PhotoEmpty(f"{name} is empty; expected an image file")
    if len(photo) > MAX_PHOTO_BYTES:
        raise PhotoTooLarge(
            f"{name} has {len(photo)} bytes; expected at most {MAX_PHOTO_BYTES}: send a "
            "smaller one, 256 pixels on the short side is enough"
        )


def check_vector(name: str, data: bytes, dimensions: int) -> None:
    """Check that ``data`` is a vector of little-endian float32, of any length but zero.

    Raises:
        InvalidQuery: when it has the wrong size, values that are not finite, or only zeros.
    """
    if len(data) != 4 * dimensions:
        raise InvalidQuery(
            f"{name} has {len(data)} bytes; the active model has {dimensions} dimensions, "
            f"{4 * dimensions} bytes of little-endian float32"
        )
    length = math.hypot(*struct.unpack(f"<{dimensions}f", data))
    if not math.isfinite(length):
        raise InvalidQuery(f"{name} has values that are not finite")
    if not length:
        raise InvalidQuery(f"{name} is all zeros: cosine similarity is undefined")
