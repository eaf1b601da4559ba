"""Planning and rolling out, level-triggered: the repository is what counts, records only wake."""

from __future__ import annotations

import asyncio
import time

from services.image_builder import metrics
from services.image_builder.plan import Candidate, plan_tier
from services.image_builder.rollout import Rollout
from services.image_builder.settings import ImageBuilderSettings
from shashin.errors import PreconditionFailed, RepositoryError, ShashinError
from shashin.repository.repository import ModelRepository
from shashin.runtime.failpoints import failpoint
from shashin.runtime.health import Health
from shashin.runtime.logging import get_logger
from shashin.tiers import PLANNED_TIERS

PLANNED = "plan"

log = get_logger(__name__)


class Builder:
    """Plans every tier whenever it is woken, and every ``resync_seconds``."""

    def __init__(
        self,
        settings: ImageBuilderSettings,
        repository: ModelRepository,
        rollout: Rollout,
        health: Health,
        stopping: asyncio.Event,
    ) -> None:
        self._settings = settings
        self._repository = repository
        self._rollout = rollout
        self._health = health
        self._stopping = stopping
        self._awake = asyncio.Event()
        # Here and not in the loop: /readyz is answered before the loop has begun.
        health.require(PLANNED, waiting_for="the first plan")

    def wake(self) -> None:
        """Look at the repository soon."""
        metrics.WAKES.inc()
        self._awake.set()

    async def run(self) -> None:
        """Plan and roll out until stopped; ready after the first round."""
        beat = self._health.heartbeat("planning")
        next_round = 0.0
        while not self._stopping.is_set():
            beat.beat()
            if self._awake.is_set() or time.monotonic() >= next_round:
                self._awake.clear()
                next_round = time.monotonic() + self._settings.resync_seconds
                for tier in PLANNED_TIERS:
                    await self._round(tier)
            await self._pause()

    async def _round(self, tier: str) -> None:
        try:
            await self._plan_and_roll_out(tier)
            self._health.set_ready(PLANNED)
        except PreconditionFailed:
            log.info("the pointer was moved meanwhile: planning again", tier=tier)
            self._awake.set()
        except RepositoryError as error:
            log.error("cannot plan: the tier serves as before", tier=tier, error=error.message)  # noqa: TRY400
        except ShashinError as error:
            log.warning("repository does not answer: trying again", error=error.message)
            self._health.set_unready(PLANNED, error.message)

    async def _plan_and_roll_out(self, tier: str) -> None:
        model_id = self._settings.model_id
        stored, unreadable = await self._repository.shards(model_id, tier)
        for error in unreadable:
            log.error("manifest left out", error=error.message, reason=error.reason)
        current, version = await self._repository.read_pointer(model_id, tier)
        plan = plan_tier(
            model_id,
            tier,
            [
                Candidate(s.manifest.shard_id, s.manifest_key, s.manifest.source_ranges)
                for s in stored
            ],
            current,
        )
        for shard, other in plan.overlapping.items():
            log.error("shard left out: its offsets are another one's", shard=shard, other=other)
        failpoint("after-plan")
        metrics.REFUSED_SHARDS.labels(tier, "unreadable").set(len(unreadable))
        metrics.REFUSED_SHARDS.labels(tier, "overlapping").set(len(plan.overlapping))
        metrics.PLANNED_SHARDS.labels(tier).set(len(plan.pointer.shards))
        if plan.pointer == current or (current is None and not plan.pointer.shards):
            return
        failpoint("before-pointer")
        await self._rollout.roll_out(plan.pointer, over=version)
        failpoint("after-pointer")
        metrics.ROLLOUTS.labels(tier).inc()
        log.info("rolled out", tier=tier, shards=len(plan.pointer.shards))

    async def _pause(self) -> None:
        wake = asyncio.ensure_future(self._awake.wait())
        stop = asyncio.ensure_future(self._stopping.wait())
        await asyncio.wait({wake, stop}, timeout=0.5, return_when=asyncio.FIRST_COMPLETED)
        wake.cancel()
        stop.cancel()
