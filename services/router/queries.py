"""Query validation; each error names the invalid field."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from shashin.codecs.filters import check_filter
from shashin.codecs.limits import MAX_PHOTO_BYTES
from shashin.codecs.listing_rules import listing_id_problem
from shashin.errors import InvalidQuery, PhotoEmpty, PhotoTooLarge
from shashin.v1 import index_pb2

DEFAULT_K, MAX_K = 10, 500
MAX_DEADLINE_MS = 60_000


@dataclass(frozen=True)
class Query:
    """One search: exactly one of photo, vector and listing id is given."""

    photo: bytes | None = None
    vector: bytes | None = None
    """Little-endian float32, 4 bytes per dimension."""
    listing_id: str | None = None
    k: int = 0
    """Requested listings, 1 to 500; 0 means 10."""
    row_filter: index_pb2.Filter = field(default_factory=index_pb2.Filter)
    deadline_ms: int = 0
    """1 to 60000; 0 means the router's default."""


def validated(query: Query) -> Query:
    """Validate the query and return it with defaults filled in.

    Raises:
        InvalidQuery: naming the invalid field.
        PhotoEmpty: when the photo has no bytes.
        PhotoTooLarge: when the photo is larger than 16 MiB.
    """
    kinds = {"photo": query.photo, "vector": query.vector, "listing_id": query.listing_id}
    given = [kind for kind, value in kinds.items() if value is not None]
    if len(given) != 1:
        raise InvalidQuery(
            f"the query has {' and '.join(given) or 'nothing to search for'}; expected exactly one "
            "of photo, vector and listing_id"
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
    if query.listing_id is not None:
        check_listing_id("listing_id", query.listing_id)
    if query.photo is not None:
        _check_photo(query.photo)
    if query.row_filter.ByteSize():
        check_filter(query.row_filter)
    return query if query.k else replace(query, k=DEFAULT_K)


def check_listing_id(name: str, listing_id: str) -> None:
    """Validate a listing id.

    Raises:
        InvalidQuery: naming the field.
    """
    if problem := listing_id_problem(listing_id):
        raise InvalidQuery(f"{name} has {problem}")


def _check_photo(photo: bytes) -> None:
    if not photo:
        raise PhotoEmpty("photo is empty; expected an image file")
    if len(photo) > MAX_PHOTO_BYTES:
        raise PhotoTooLarge(
            f"photo has {len(photo)} bytes; expected at most {MAX_PHOTO_BYTES}: send a "
            "smaller one, 256 pixels on the short side is enough"
        )


def check_vector(data: bytes, dimensions: int) -> None:
    """Check that ``data`` is a vector of little-endian float32, of any length but zero.

    Raises:
        InvalidQuery: when it has the wrong size, values that are not finite, or only zeros.
    """
    if len(data) != 4 * dimensions:
        raise InvalidQuery(
            f"vector has {len(data)} bytes; the active model has {dimensions} dimensions, "
            f"{4 * dimensions} bytes of little-endian float32"
        )
    vector: npt.NDArray[np.float32] = np.frombuffer(data, dtype="<f4")
    # One product of a usual vector tells that nothing is wrong; its square may also be too large or small.
    with np.errstate(over="ignore", invalid="ignore"):
        if 0.0 < vector.dot(vector) < math.inf:
            return
    if not np.isfinite(vector).all():
        raise InvalidQuery("vector has values that are not finite")
    if not vector.any():
        raise InvalidQuery("vector is all zeros: cosine similarity is undefined")
