"""Continuous searches for unchanged listings: every complete answer must contain them."""

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
    """Searches with the vectors of unchanged listings."""

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
            return  # The router or all of its endpoints are down.
        self.answered += 1
        hits = [hit.listing_id for hit in answer.hits]
        if len(hits) != len(set(hits)):
            self.twice[listing_id] = f"an answer contains a listing twice: {hits}"
        if answer.coverage.complete:
            self.complete += 1
            if listing_id not in hits:
                self.missed[listing_id] = "a complete answer did not contain it"
