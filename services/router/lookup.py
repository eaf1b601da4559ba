"""Looks up listings on all endpoints: their newest visible version and its tiers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from services.router.deadline import Deadline
from services.router.gaps import Described, holders_of_more
from services.router.no_answer import listed, no_answer_error
from services.router.queries import check_listing_id
from shashin.codecs.limits import MAX_LISTING_IDS, MAX_QUERIES
from shashin.codecs.unit_vectors import unit_length
from shashin.errors import InvalidQuery, ListingNotFound, NoEndpoint
from shashin.model_space import ModelSpace
from shashin.serving.fleet import Failure, Held
from shashin.serving.replica_calls import GroupOutcome, ReplicaCalls, Replicas, groups_of
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


class Lookup:
    """Looks listings up on the endpoints of one model, one replica per group."""

    def __init__(
        self, calls: ReplicaCalls, held_ranges: Callable[[], Described], *, space: ModelSpace
    ) -> None:
        self._calls = calls
        self._held_ranges = held_ranges
        self._space = space

    async def look_up(
        self, held: Held, listing_ids: Sequence[str], *, with_vectors: bool, deadline: Deadline
    ) -> tuple[dict[str, FoundListing], list[Failure]]:
        """Return the listings that were found, and the endpoints of groups that did not answer.

        While replicas differ, those that hold more than the ones asked first are asked as well: an answer
        does not say what was looked through.

        Raises:
            NoEndpoint: when no endpoint of the model responds.
            DeadlineExceeded: when none responds in time.
        """
        request = index_pb2.LookupRequest(
            model_id=self._space.model_id, listing_ids=listing_ids, with_vectors=with_vectors
        )
        groups = list(groups_of(held.peers).values())
        outcomes = await self._ask([Replicas(group) for group in groups], request, held, deadline)
        tried = {endpoint for outcome in outcomes for endpoint in outcome.tried}
        answered = {outcome.answer[0].endpoint for outcome in outcomes if outcome.answer}
        if more := holders_of_more(groups, answered, tried, self._held_ranges()):
            outcomes += await self._ask(more, request, held, deadline)
        answers = [outcome.answer for outcome in outcomes if outcome.answer]
        unanswered = [outcome for outcome in outcomes if not outcome.answer]
        failures = [failure for outcome in unanswered for failure in outcome.failures]
        if not answers:
            others = [other for outcome in unanswered for other in outcome.other_models]
            raise no_answer_error(
                failures,
                [*held.other_models, *others],
                model_id=self._space.model_id,
                deadline_seconds=deadline.seconds,
            )
        rows = ((peer.tier, row) for peer, answer in answers for row in answer.rows)
        return newest_versions(rows), failures

    async def _ask(
        self,
        groups: Sequence[Replicas],
        request: index_pb2.LookupRequest,
        held: Held,
        deadline: Deadline,
    ) -> list[GroupOutcome[index_pb2.LookupResponse]]:
        dimensions = self._space.dimensions

        def wrong_length(answer: index_pb2.LookupResponse) -> str | None:
            if request.with_vectors and any(len(r.vector) != 4 * dimensions for r in answer.rows):
                return (
                    f"it returned vectors of other than {dimensions} dimensions, "
                    f"{4 * dimensions} bytes"
                )
            return None

        return await self._calls.ask_groups(
            groups,
            lambda peer: peer.calls.send(
                "Lookup", peer.index.Lookup, request, seconds=deadline.remaining()
            ),
            method="Lookup",
            model_id=self._space.model_id,
            seconds_left=deadline.remaining,
            joined=held.joined,
            check=wrong_length,
        )


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
            f"{listed(failures)}"
        )
    raise ListingNotFound(
        f"listing {listing_id!r} is not searchable: it is unknown, hidden, or its photos are not "
        "indexed yet"
    )
