"""Searches by unseen photos of listings on sale, and by photos of sold ones."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from shashin.client.concurrently import together
from shashin.client.router import RouterClient
from shashin.workload.listings import DemoListing

_CONCURRENCY = 2
"""Concurrent searches."""


@dataclass
class Searches:
    """Results of the searches by photo."""

    ranks: list[int | None] = field(default_factory=list)
    """Rank of the photo's own listing, from 1; None if it is not among the first ten."""
    seconds: list[float] = field(default_factory=list)
    ghosts: set[str] = field(default_factory=set)
    """Sold listings among the hits."""

    def recall_at(self, k: int) -> float | None:
        """Return the share of queries whose listing is among the first k; None if there were none."""
        if not self.ranks:
            return None
        return sum(rank is not None and rank <= k for rank in self.ranks) / len(self.ranks)


async def search_unseen(
    router: RouterClient,
    listings: Sequence[DemoListing],
    sold: Collection[str],
    progress: Callable[[int], None],
) -> Searches:
    """Search with each listing's query photo."""
    found = Searches()
    gate = asyncio.Semaphore(_CONCURRENCY)

    async def one(listing: DemoListing) -> None:
        assert listing.query is not None
        photo = await asyncio.to_thread(listing.query.read_bytes)
        async with gate:
            started = time.perf_counter()
            answer = await router.search(photo=photo, k=10)
            found.seconds.append(time.perf_counter() - started)
        ids = [hit.listing_id for hit in answer.hits]
        found.ranks.append(ids.index(listing.listing_id) + 1 if listing.listing_id in ids else None)
        found.ghosts.update(set(ids) & set(sold))
        progress(len(found.ranks))

    await together(*(one(listing) for listing in listings))
    return found


async def find_ghosts(
    router: RouterClient, sold: Sequence[DemoListing], progress: Callable[[int], None]
) -> set[str]:
    """Return the sold listings that a search by their own photo, or by their id, still finds."""
    ghosts = set(await router.locate([listing.listing_id for listing in sold]))
    for number, listing in enumerate(sold, start=1):
        photo = await asyncio.to_thread(listing.photos[0].read_bytes)
        answer = await router.search(photo=photo, k=10)
        ghosts |= {hit.listing_id for hit in answer.hits} & {listing.listing_id}
        progress(number)
    return ghosts
