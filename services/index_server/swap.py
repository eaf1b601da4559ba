"""Swaps shards in: opens and masks new ones, then serves them all at once.

A search keeps the shards that it started with, so a swap fails no search. If a new shard cannot be
served, no shard is removed: the old ones stay, next to the good new ones.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from shashin.errors import RecordsLost, RepositoryError, ShashinError
from shashin.kafka.topics import LISTINGS_HIDDEN
from shashin.metrics import index_server as metrics
from shashin.model_space import ModelSpace
from shashin.repository.hidden_snapshots import HiddenSnapshots
from shashin.runtime.backoff import backoff_seconds
from shashin.runtime.failpoints import failpoint
from shashin.runtime.logging import get_logger
from shashin.runtime.scope import LoopScope
from shashin.serving.catch_up import CatchUp, Joined, Joining
from shashin.serving.served_shards import ServedShards, Snapshot
from shashin.shards.format.manifest import Manifest
from shashin.shards.sealed_shard import SealedShard

INITIAL_RETRY_SECONDS = 1.0
MAX_RETRY_SECONDS = 30.0
"""Between attempts to load bad shards while the same ones are wanted."""

CONCURRENT_LOADS = 8
"""Shards that are verified and opened at a time where they need not be fetched."""

_SHARDS = "shards"
_HIDDEN_GAPS = "hidden rows of shards"
_REACHED_SECONDS = 0.02
"""Between checks for whether the log of hidden listings was reached."""

Load = Callable[[], Awaitable[Joining]]

log = get_logger(__name__)


@dataclass(frozen=True)
class Swap:
    """The shards to serve next, and those to drop."""

    serve: tuple[SealedShard, ...]
    drop: tuple[SealedShard, ...]


def plan_swap(
    serving: tuple[SealedShard, ...], loaded: Mapping[str, SealedShard], wanted: Collection[str]
) -> Swap:
    """Return the shards to serve: all wanted ones that could be loaded, by id.

    If any could not, the shards served so far stay as well.
    """
    missing = set(wanted) - loaded.keys()
    kept = [shard for shard in serving if shard.shard_id not in wanted] if missing else []
    serve = [loaded[shard_id] for shard_id in sorted(set(wanted) & loaded.keys())]
    keep = {shard.shard_id for shard in (*serve, *kept)}
    return Swap(
        serve=(*serve, *kept),
        drop=tuple(shard for shard in serving if shard.shard_id not in keep),
    )


def _retry_delays() -> Iterator[float]:
    return backoff_seconds(first=INITIAL_RETRY_SECONDS, longest=MAX_RETRY_SECONDS)


class ShardSwapper:
    """The served shards of one tier, and what is wrong with those that cannot be served."""

    def __init__(
        self,
        space: ModelSpace,
        tier: str,
        served: ServedShards,
        snapshots: HiddenSnapshots,
        catch_up: CatchUp,
        *,
        concurrent_loads: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._space = space
        self._tier = tier
        self._served = served
        self._snapshots = snapshots
        self._catch_up = catch_up
        self._loads = asyncio.Semaphore(concurrent_loads)
        self._clock = clock
        self._retry_delays = _retry_delays()
        self._retry_at = 0.0
        self.serving: tuple[SealedShard, ...] = ()
        self.bad: Mapping[str, str] = {}
        """Wanted shards that cannot be served, with the reason."""

    @property
    def retry_due(self) -> bool:
        """Whether there are bad shards that should be tried again now."""
        return bool(self.bad) and self.seconds_until_retry <= 0

    @property
    def seconds_until_retry(self) -> float:
        """How long bad shards should be left alone."""
        return self._retry_at - self._clock()

    def restart_backoff(self) -> None:
        """Begin again with short delays: other shards are wanted now."""
        self._retry_delays = _retry_delays()

    def check(self, manifest: Manifest) -> None:
        """Check that a shard belongs here, before anything of it is fetched or opened.

        Raises:
            RepositoryError: when it is of another model or tier.
        """
        if manifest.model_id != self._space.model_id:
            raise RepositoryError(
                f"shard {manifest.shard_id} has vectors of model {manifest.model_id}; "
                f"SHASHIN_MODEL_ID is {self._space.model_id}"
            )
        if manifest.dimensions != self._space.dimensions:
            raise RepositoryError(
                f"shard {manifest.shard_id} has {manifest.dimensions} dimensions; "
                f"SHASHIN_DIMENSIONS is {self._space.dimensions}"
            )
        if manifest.tier != self._tier:
            raise RepositoryError(
                f"shard {manifest.shard_id} belongs to the {manifest.tier} tier; SHASHIN_TIER is "
                f"{self._tier}"
            )

    async def opened(self, manifest: Manifest, folder: Path) -> Joining:
        """Return the shard in a folder, whose files were verified, with its snapshots.

        Raises:
            CorruptShard, UnknownFormat: when it cannot be opened.
            ObjectStoreError: when its snapshots cannot be read.
        """
        shard = await asyncio.to_thread(SealedShard, manifest, folder)
        snapshots = await self._snapshots.read(manifest)
        for key, error in snapshots.unreadable.items():
            log.error("unreadable snapshot: not used", key=key, error=error.message)
        return Joining(shard, tuple(snapshots.by_key.values()))

    async def swap_to(self, wanted: Mapping[str, Load], loop: LoopScope) -> bool:
        """Serve the wanted shards, by id, as far as they can be; returns False if stopped before.

        Those that are not served yet are loaded. What cannot be served is in ``bad`` afterwards.
        """
        dropped: list[object] = []
        continues = await self._swap_to(wanted, loop, dropped)
        # Their files are unmapped one by one, and hundreds of them would hold the event loop up.
        await asyncio.to_thread(dropped.clear)
        return continues

    async def _swap_to(
        self, wanted: Mapping[str, Load], loop: LoopScope, dropped: list[object]
    ) -> bool:
        """As ``swap_to``; what is no longer served is added to ``dropped``, and has no other owner then."""
        began = self._clock()
        joining, bad = await self._load_new(wanted, loop)
        joined = Joined(Snapshot(()))
        if joining:
            if not await self._log_reached(loop):
                return False
            with loop.waiting_for(f"what {LISTINGS_HIDDEN} has for new shards"):
                joined = await self._catch_up.join(joining)
        try:
            for partition, record in joined.unreadable.items():
                problem = f"{record}: {record.problem}"
                loop.degraded(f"{LISTINGS_HIDDEN}[{partition}]", problem)
                log.error("unreadable record of listings.hidden", problem=problem)
            self._report(bad | dict(joined.refused), loop)
            loaded = {shard.shard_id: shard for shard in self.serving} | {
                one.shard.shard_id: one.shard
                for one in joining
                if one.shard.shard_id not in joined.refused
            }
            swap = plan_swap(self.serving, loaded, wanted.keys())
            if swap.serve != self.serving:
                dropped += [self._served.snapshot(), *swap.drop]
                await self._serve(swap)
                metrics.SWAP_SECONDS.observe(self._clock() - began)
        finally:
            self._served.leave(joined.shards)
        return True

    async def _load_new(
        self, wanted: Mapping[str, Load], loop: LoopScope
    ) -> tuple[list[Joining], dict[str, ShashinError]]:
        """Load what is wanted and not served; returns it, and why the rest could not be loaded."""
        serving = {shard.shard_id for shard in self.serving}
        joining: list[Joining] = []
        bad: dict[str, ShashinError] = {}

        async def load_one(shard_id: str, load: Load) -> None:
            async with self._loads:
                try:
                    # A first start may load hundreds of shards, each taking minutes.
                    with loop.waiting_for(f"shard {shard_id}"):
                        joining.append(await load())
                except ShashinError as error:
                    bad[shard_id] = error

        async with asyncio.TaskGroup() as loads:
            for shard_id, load in wanted.items():
                if shard_id not in serving:
                    loads.create_task(load_one(shard_id, load))
        return joining, bad

    async def _log_reached(self, loop: LoopScope) -> bool:
        """Wait until it is known which records are new; returns whether to continue."""
        if not self._catch_up.possible:
            log.info("shards wait for the follower of hidden listings")
        while not self._catch_up.possible:
            with loop.waiting_for(f"the follower of {LISTINGS_HIDDEN}"):
                if not await loop.sleep(_REACHED_SECONDS):
                    return False
        return True

    async def _serve(self, swap: Swap) -> None:
        snapshot = await asyncio.to_thread(self._served.prepare, swap.serve)
        failpoint("before-swap")
        self.serving = swap.serve
        self._served.serve(snapshot)
        failpoint("after-swap")
        metrics.SWAPS.inc()
        log.info("swapped", serving=len(swap.serve), dropped=[s.shard_id for s in swap.drop])

    def _report(self, bad: Mapping[str, ShashinError], loop: LoopScope) -> None:
        for shard_id, error in bad.items():
            if self.bad.get(shard_id) != error.message:
                log.error("shard cannot be served", shard=shard_id, error=error.message)
        self.bad = {shard_id: error.message for shard_id, error in bad.items()}
        metrics.BAD_SHARDS.set(len(bad))
        if not bad:
            loop.clear(_SHARDS)
            loop.clear(_HIDDEN_GAPS)
            return
        loop.degraded(_SHARDS, f"{len(bad)} cannot be served: {', '.join(sorted(bad))}")
        gaps = [error.message for error in bad.values() if isinstance(error, RecordsLost)]
        if gaps:
            loop.degraded(_HIDDEN_GAPS, f"{len(gaps)} shards: the first is {gaps[0]}")
        else:
            loop.clear(_HIDDEN_GAPS)
        self._retry_at = self._clock() + next(self._retry_delays)
