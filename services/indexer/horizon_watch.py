"""Follows the stored horizons, which retention raises: what lies before them is not asked for."""

from __future__ import annotations

from services.indexer.live_tier import LiveTier
from shashin.errors import ShashinError
from shashin.repository.horizons import Horizons
from shashin.runtime.logging import get_logger
from shashin.runtime.scope import Loop, LoopScope

POLL_SECONDS = 15.0
"""Well below the time that the image builder leaves between raising a horizon and retiring shards."""

_PART = "horizons"

log = get_logger(__name__)


class HorizonWatch:
    """Raises the horizons of open partitions as the stored ones rise."""

    def __init__(
        self, live: LiveTier, horizons: Horizons, *, poll_seconds: float = POLL_SECONDS
    ) -> None:
        self._live = live
        self._horizons = horizons
        self._poll_seconds = poll_seconds

    def loop(self) -> Loop:
        """Return the loop."""
        return Loop("horizon watch", self.run)

    async def run(self, loop: LoopScope) -> None:
        """Poll until stopped; one that cannot be read stays as it was."""
        while await loop.sleep(self._poll_seconds):
            try:
                with loop.waiting_for("the stored horizons"):
                    stored = await self._horizons.all()
            except ShashinError as error:
                loop.degraded(_PART, error.message)
                continue
            loop.clear(_PART)
            for horizon in stored:
                state = self._live.partitions.get(horizon.partition)
                if state is not None and state.horizon_offset < horizon.offset:
                    log.info("horizon raised", partition=horizon.partition, offset=horizon.offset)
                    state.horizon_offset = horizon.offset
