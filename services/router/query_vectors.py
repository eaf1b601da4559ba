"""The vectors that are searched for: of a vector, a photo, a listing, or several of these combined."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from services.router.deadline import Deadline
from services.router.embedding import Embedding
from services.router.lookup import Lookup, queries_of
from services.router.queries import Part, Query, check_vector
from shashin.codecs.unit_vectors import unit_length
from shashin.discovery.protocol import Endpoint
from shashin.errors import InvalidQuery, PhotoError
from shashin.model_space import ModelSpace
from shashin.serving.fleet import Failure, Held

_LEAST_LENGTH = 1e-3
"""Of the sum of parts that are not said to cancel each other out; a single part has length 1."""

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True)
class QueryVectors:
    """What is searched for."""

    packed: bytes
    """(queries, dimensions) little-endian float32, of any length but zero."""
    lookup_failures: Mapping[Endpoint, Failure]
    """Endpoints that failed while listings were looked up."""


class QueryVectorizer:
    """Gets the vectors of queries, from embedders and from the shards that hold a listing."""

    def __init__(self, embedding: Embedding, lookup: Lookup, *, space: ModelSpace) -> None:
        self._embedding = embedding
        self._lookup = lookup
        self._space = space

    async def vectors_of(self, query: Query, held: Held, deadline: Deadline) -> QueryVectors:
        """Return the vectors of a query: those of a listing's photos, of views of a photo, or one.

        Raises:
            InvalidQuery: when a vector is of the wrong size, or the parts cancel each other out.
            PhotoError: when a photo cannot be used.
            ListingNotFound: when a listing is not searchable.
            NoEndpoint: when nobody responds who could tell.
            DeadlineExceeded: when none responds in time.
        """
        if query.vector is not None:
            # Endpoints scale it to unit length.
            check_vector("vector", query.vector, self._space.dimensions)
            return QueryVectors(query.vector, {})
        if query.photo is not None:
            embedded = await self._embedding.embed_photo(
                query.photo, query.crop, deadline, zooms=query.crop is None
            )
            return QueryVectors(_packed(embedded), {})
        if query.listing_id is not None:
            (vectors,), failures = await self._listings([query.listing_id], held, deadline)
            return QueryVectors(_packed(vectors), failures)
        return await self._combined(query.parts, held, deadline)

    async def _combined(
        self, parts: Sequence[Part], held: Held, deadline: Deadline
    ) -> QueryVectors:
        for number, part in enumerate(parts):
            if part.vector is not None:
                check_vector(f"parts[{number}].vector", part.vector, self._space.dimensions)
        ids = list(dict.fromkeys(p.listing_id for p in parts if p.listing_id is not None))
        photos = [(number, part) for number, part in enumerate(parts) if part.photo is not None]
        (of_listings, failures), *embedded = await _all_of(
            self._listings(ids, held, deadline),
            *(self._embedded(number, part, deadline) for number, part in photos),
        )
        listings = dict(zip(ids, of_listings, strict=True))
        found = {number: vectors[0] for (number, _), vectors in zip(photos, embedded, strict=True)}
        total = np.zeros(self._space.dimensions, np.float64)
        for number, part in enumerate(parts):
            if part.listing_id is not None:
                vector = listings[part.listing_id].mean(axis=0)
                if not vector.any():
                    continue
            elif part.vector is not None:
                vector = np.frombuffer(part.vector, "<f4")
            else:
                vector = found[number]
            total += part.weight * unit_length(vector[np.newaxis])[0]
        length = float(np.linalg.norm(total))
        if length < _LEAST_LENGTH * max(abs(part.weight) for part in parts):
            raise InvalidQuery(
                "parts cancel each other out, so there is nothing to search for: change their weights"
            )
        return QueryVectors(_packed((total / length).astype(np.float32)), failures)

    async def _embedded(self, number: int, part: Part, deadline: Deadline) -> Vectors:
        assert part.photo is not None
        try:
            return await self._embedding.embed_photo(part.photo, part.crop, deadline)
        except PhotoError as error:
            raise type(error)(f"parts[{number}].photo: {error.message}") from None

    async def _listings(
        self, listing_ids: Sequence[str], held: Held, deadline: Deadline
    ) -> tuple[list[Vectors], dict[Endpoint, Failure]]:
        """Return the vectors of each listing, (m, dimensions) of unit length."""
        if not listing_ids:
            return [], {}
        found, failures = await self._lookup.look_up(
            held, listing_ids, with_vectors=True, deadline=deadline
        )
        vectors = [queries_of(one, found.get(one), failures) for one in listing_ids]
        return vectors, {failure.endpoint: failure for failure in failures}


async def _all_of(*steps: Coroutine[Any, Any, Any]) -> list[Any]:
    """Return what all steps return; if one fails, the others are cancelled and its error is raised."""
    running = [asyncio.ensure_future(step) for step in steps]
    try:
        return await asyncio.gather(*running)
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def _packed(vectors: Vectors) -> bytes:
    return vectors.astype("<f4", copy=False).tobytes()
