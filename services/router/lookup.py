"""Looks up listings on all endpoints: their newest visible version and its tiers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from services.router.deadline import Deadline
from services.router.no_answer import no_answer_error
from services.router.queries import check_listing_id
from shashin.codecs.limits import MAX_LISTING_IDS, MAX_QUERIES
from shashin.codecs.unit_vectors import unit_length
from shashin.errors import InvalidQuery, ListingNotFound, NoEndpoint
from shashin.model_space import ModelSpace
from shashin.serving.fleet import Failure, Held, Round, ask_all
from shashin.tiers import freshest_first
from shashin.v1 import index_pb2


@dataclass
class FoundListing:
    """The newest visible version of a listing."""

    listing_id: str
    version: int
    vectors: dict[int, bytes] = field(default_factory=dict)
    """Photo number to vector, little-endian float32; empty bytes if not requested."""
    tiers: set[str] = field(default_factory=set)

    @property
    def photo_numbers(self) -> list[int]:
        """The searchable photos, sorted."""
        return sorted(self.vectors)

    @property
    def tiers_in_order(self) -> list[str]:
        """The tiers that hold it, freshest first."""
        return freshest_first(self.tiers)


def newest_versions(
    rows: Iterable[tuple[str, index_pb2.LookupRow]],
) -> dict[str, FoundListing]:
    """Return each listing's newest version; ``rows`` are pairs of tier and row."""
    found: dict[str, FoundListing] = {}
    for tier, row in rows:
        listing = found.get(row.listing_id)
        if listing is None or listing.version < row.version:
            listing = found[row.listing_id] = FoundListing(row.listing_id, row.version)
        if listing.version == row.version:
            listing.vectors.setdefault(row.photo_number, row.vector)
            listing.tiers.add(tier)
    return found


def distinct_ids(listing_ids: Sequence[str]) -> list[str]:
    """Return the distinct ids in the given order.

    Raises:
        InvalidQuery: when there are none, too many, or an invalid one.
    """
    if not 1 <= len(listing_ids) <= MAX_LISTING_IDS:
        raise InvalidQuery(
            f"listing_ids has {len(listing_ids)} ids; expected 1 to {MAX_LISTING_IDS}: use "
            "several calls"
        )
    for number, listing_id in enumerate(listing_ids):
        check_listing_id(f"listing_ids[{number}]", listing_id)
    return list(dict.fromkeys(listing_ids))


async def look_up(
    held: Held,
    listing_ids: Sequence[str],
    *,
    space: ModelSpace,
    with_vectors: bool,
    deadline: Deadline,
) -> tuple[dict[str, FoundListing], list[Failure]]:
    """Return the listings that were found, and the endpoints that failed.

    Raises:
        NoEndpoint: when no endpoint of the model responds.
        DeadlineExceeded: when none responds in time.
    """
    request = index_pb2.LookupRequest(
        model_id=space.model_id, listing_ids=listing_ids, with_vectors=with_vectors
    )

    dimensions = space.dimensions

    def wrong_length(answer: index_pb2.LookupResponse) -> str | None:
        if with_vectors and any(len(row.vector) != 4 * dimensions for row in answer.rows):
            return (
                f"it returned vectors of other than {dimensions} dimensions, {4 * dimensions} bytes"
            )
        return None

    results: Round[index_pb2.LookupResponse] = await ask_all(
        held.peers,
        lambda peer: peer.index.Lookup(request, timeout=deadline.remaining()),
        method="Lookup",
        model_id=space.model_id,
        check=wrong_length,
    )
    if not results.answers:
        raise no_answer_error(
            results.failures,
            [*held.other_models, *results.other_models],
            model_id=space.model_id,
            deadline_seconds=deadline.seconds,
        )
    found = newest_versions(
        (peer.tier, row) for peer, answer in results.answers for row in answer.rows
    )
    return found, results.failures


def queries_of(
    listing_id: str, found: FoundListing | None, failures: Sequence[Failure]
) -> npt.NDArray[np.float32]:
    """Return a listing's vectors as queries, (m, dimensions) float32 of unit length, m <= 64.

    Raises:
        ListingNotFound: when it is not searchable.
        NoEndpoint: when it was not found but a failed endpoint may hold it.
    """
    vectors = []
    if found is not None:
        for photo_number in found.photo_numbers[:MAX_QUERIES]:
            vector = np.frombuffer(found.vectors[photo_number], dtype="<f4")
            if np.isfinite(vector).all() and vector.any():
                vectors.append(vector)
    if vectors:
        return unit_length(np.stack(vectors))
    if failures:
        raise NoEndpoint(
            f"listing {listing_id!r} was not found, but these endpoints failed and may hold it: "
            f"{'; '.join(map(str, failures))}"
        )
    raise ListingNotFound(
        f"listing {listing_id!r} is not searchable: it is unknown, hidden, or its photos are not "
        "indexed yet"
    )
