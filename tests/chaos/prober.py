"""Searching all the while for listings that nothing changes: an answer that says it is complete
must have them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from shashin.client.router import RouterClient
from shashin.errors import ShashinError

_PAUSE_SECONDS = 0.05


@dataclass
class Prober:
    """Searches with the vectors of listings that stay as they are."""

    address: str
    vectors: Mapping[str, npt.NDArray[np.float32]]
    asked: int = 0
    answered: int = 0
    complete: int = 0
    missed: dict[str, str] = field(default_factory=dict)
    twice: dict[str, str] = field(default_factory=dict)

    async def run(self) -> None:
        """Search until cancelled."""
        async with RouterClient(self.address) as router:
            while True:
                for listing_id, vector in self.vectors.items():
                    await self._ask(router, listing_id, vector)
                    await asyncio.sleep(_PAUSE_SECONDS)

    async def _ask(
        self, router: RouterClient, listing_id: str, vector: npt.NDArray[np.float32]
    ) -> None:
        self.asked += 1
        try:
            answer = await router.search(vector=vector, k=20, within_seconds=2.0)
        except ShashinError:
            return  # The router is dead, or all that it could ask.
        self.answered += 1
        hits = [hit.listing_id for hit in answer.hits]
        if len(hits) != len(set(hits)):
            self.twice[listing_id] = f"an answer has a listing twice: {hits}"
        if answer.coverage.complete:
            self.complete += 1
            if listing_id not in hits:
                self.missed[listing_id] = "an answer that said it was complete did not have it"
