"""What a call costs, in units of a query by one vector. Pure.

A photo is embedded first, and its bytes are in memory meanwhile; a listing stands for its photos' vectors;
and each part of a query for itself. A photo without a crop that is searched for alone may be several vectors,
those of zoomed views as well: then each of them is embedded and searched for. How many is the embedders'
decision, so it is what they answered last.
"""

from __future__ import annotations

from collections.abc import Sequence

from services.router.queries import Query
from shashin.v1 import search_pb2

_LISTING = 3.0
_PHOTO = 4.0
"""Per vector: embedding and searching for it."""
_BYTES = 256 * 1024
"""Of a photo, that count as one more unit: a large one is much to keep and to decode."""
_PART_LISTING = 1.0
_PART_VECTOR = 0.25
_HITS = 250
_LOCATED = 250
_NEWEST = 100


def cost_of_search(request: search_pb2.SearchRequest, photo_vectors: int) -> float:
    """Return what a search costs, at least 1; ``photo_vectors`` are those of a photo that may be zoomed."""
    return _cost(
        request.WhichOneof("query"),
        len(request.photo),
        1 if request.HasField("crop") else photo_vectors,
        [(part.WhichOneof("part"), len(part.photo)) for part in request.parts],
        request.k,
    )


def cost_of_query(query: Query, photo_vectors: int) -> float:
    """Return what a search costs that came in another way, as ``cost_of_search``."""
    return _cost(
        query.kind,
        len(query.photo or b""),
        photo_vectors if query.crop is None else 1,
        [(part.kind, len(part.photo or b"")) for part in query.parts],
        query.k,
    )


def _cost(
    kind: str | None,
    photo_bytes: int,
    photo_vectors: int,
    parts: Sequence[tuple[str | None, int]],
    k: int,
) -> float:
    """Return the cost of a search for something of a kind, or for parts: the kind and photo's bytes of each."""
    cost = 1.0
    if kind == "photo":
        cost = _photo(photo_bytes, photo_vectors)
    elif kind == "listing_id":
        cost = _LISTING
    elif kind != "vector":
        cost += sum(_cost_of_part(*part) for part in parts)
    return cost + k / _HITS


def _cost_of_part(kind: str | None, photo_bytes: int) -> float:
    match kind:
        case "photo":
            return _photo(photo_bytes)
        case "listing_id":
            return _PART_LISTING
        case _:
            return _PART_VECTOR


def _photo(size: int, vectors: int = 1) -> float:
    # It is decoded once, however many vectors it has.
    return _PHOTO * vectors + size / _BYTES


def cost_of_locate(request: search_pb2.LocateRequest) -> float:
    """Return what a look-up of listings costs, at least 1."""
    return 1.0 + len(request.listing_ids) / _LOCATED


def cost_of_newest(limit: int) -> float:
    """Return what the newest listings cost, at least 1."""
    return 1.0 + limit / _NEWEST
