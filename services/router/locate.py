"""Locate: which listings are searchable, and in which tiers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from services.router.deadline import Deadline
from services.router.lookup import FoundListing, Lookup, distinct_ids
from shashin.serving.fleet import INDEX_ROLES, Failure, Fleet


@dataclass(frozen=True)
class Located:
    """The listings that were found, in request order, and the endpoints that failed."""

    listings: list[FoundListing]
    failures: list[Failure]


class Locator:
    """Looks listings up on the endpoints of one model."""

    def __init__(self, fleet: Fleet, lookup: Lookup, *, deadline_ms: int) -> None:
        self._fleet = fleet
        self._lookup = lookup
        self._deadline_seconds = deadline_ms / 1000

    async def locate(self, listing_ids: Sequence[str], caller_seconds: float | None) -> Located:
        """Locate listings; if ``caller_seconds`` is None, the router's own deadline applies.

        Raises:
            InvalidQuery: when there are no ids, too many, or an invalid one.
            NoEndpoint: when no endpoint of the model responds.
            DeadlineExceeded: when none responds in time.
        """
        ids = distinct_ids(listing_ids)
        # A thousand listings over many shards may take longer than a search, so the caller decides.
        deadline = Deadline.within(
            self._deadline_seconds if caller_seconds is None else caller_seconds
        )
        with self._fleet.hold(*INDEX_ROLES) as held:
            found, failures = await self._lookup.look_up(
                held, ids, with_vectors=False, deadline=deadline
            )
        listings = [found[listing_id] for listing_id in ids if listing_id in found]
        return Located(listings, failures)
