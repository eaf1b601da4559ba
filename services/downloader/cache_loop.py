"""Keeps the cache of originals within its limits, and reports when it cannot be written."""

from __future__ import annotations

import asyncio

from shashin.originals import OriginalsCache
from shashin.runtime.logging import get_logger
from shashin.runtime.scope import Loop, LoopScope

_PART = "cache of originals"
_CHECK_SECONDS = 1.0

log = get_logger(__name__)


def cache_loop(cache: OriginalsCache) -> Loop:
    """Return the loop that prunes the cache."""

    async def run(loop: LoopScope) -> None:
        while loop.next_turn():
            pruning = asyncio.ensure_future(asyncio.to_thread(cache.prune_if_due))
            # Counting millions of files takes minutes, and is no stall.
            while not pruning.done() and loop.next_turn():
                await asyncio.wait([pruning], timeout=_CHECK_SECONDS)
            pruned = await pruning
            if pruned is not None and (pruned.expired or pruned.surplus):
                log.info(
                    "cache pruned",
                    expired=pruned.expired,
                    surplus=pruned.surplus,
                    bytes=pruned.bytes,
                    left_bytes=pruned.left_bytes,
                )
            if cache.problem is None:
                loop.clear(_PART)
            else:
                loop.degraded(_PART, cache.problem)
            await loop.sleep(_CHECK_SECONDS)

    return Loop(_PART, run)
