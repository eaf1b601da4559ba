"""Level-triggered planning and rollout: the repository is the state, records only wake the loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from services.image_builder import metrics
from services.image_builder.plan import Candidate, Plan, plan_tier
from services.image_builder.rollout import Rollout
from services.image_builder.settings import ImageBuilderSettings
from shashin.errors import PreconditionFailed, RepositoryError, ShashinError
from shashin.repository.repository import ModelRepository, UnreadableShard
from shashin.runtime.failpoints import failpoint
from shashin.runtime.logging import get_logger
from shashin.runtime.scope import Loop, LoopScope
from shashin.tiers import PLANNED_TIERS

log = get_logger(__name__)


class Builder:
    """Plans every tier when woken, and at least every ``resync_seconds``."""

    def __init__(
        self,
        settings: ImageBuilderSettings,
        repository: ModelRepository,
        rollout: Rollout,
    ) -> None:
        self._settings = settings
        self._repository = repository
        self._rollout = rollout
        self._wake_event = asyncio.Event()

    def wake(self) -> None:
        """Schedule a planning round."""
        metrics.WAKES.inc()
        self._wake_event.set()

    def loop(self) -> Loop:
        """Return the planning loop; ready after the first round."""
        return Loop("planning", self.run, ready_when="the first plan")

    async def run(self, loop: LoopScope) -> None:
        """Plan and roll out until stopped."""
        next_resync = 0.0
        while loop.next_turn():
            if self._wake_event.is_set() or time.monotonic() >= next_resync:
                self._wake_event.clear()
                next_resync = time.monotonic() + self._settings.resync_seconds
                for tier in PLANNED_TIERS:
                    await self._plan_round(tier, loop)
            await loop.wait(self._wake_event, 0.5)

    async def _plan_round(self, tier: str, loop: LoopScope) -> None:
        try:
            with loop.waiting_for("the model repository"):
                await self._plan_and_roll_out(tier, loop)
            loop.ready()
            loop.clear(f"planning of {tier}")
        except PreconditionFailed:
            log.info("pointer changed concurrently: planning again", tier=tier)
            self._wake_event.set()
        except RepositoryError as error:
            loop.degraded(f"planning of {tier}", error.message)
            log.error("planning failed: the tier is unchanged", tier=tier, error=error.message)  # noqa: TRY400
        except ShashinError as error:
            log.warning("repository unavailable: retrying", error=error.message)
            loop.not_ready(error.message)

    async def _plan_and_roll_out(self, tier: str, loop: LoopScope) -> None:
        model_id = self._settings.model_id
        # The pointer before the shards, since a shard is committed before a pointer names it:
        # whatever this one names is listed below, or is really gone.
        current, version = await self._repository.read_pointer(model_id, tier)
        stored, unreadable = await self._repository.shards(model_id, tier)
        readable = [
            Candidate(s.manifest.shard_id, s.manifest_key, s.manifest.source_ranges) for s in stored
        ]
        others = [
            Candidate(u.shard_id, u.manifest_key, u.ranges, readable=False) for u in unreadable
        ]
        plan = plan_tier(model_id, tier, readable + others, current)
        self._report_unreadable(tier, unreadable, plan, loop)
        if plan.redundant:
            log.info("redundant shards left out", shards=plan.redundant)
        failpoint("after-plan")
        metrics.REFUSED_SHARDS.labels(tier, "unreadable").set(len(unreadable))
        metrics.REFUSED_SHARDS.labels(tier, "redundant").set(len(plan.redundant))
        metrics.PLANNED_SHARDS.labels(tier).set(len(plan.pointer.shards))
        if plan.pointer == current or (current is None and not plan.pointer.shards):
            return
        failpoint("before-pointer")
        await self._rollout.roll_out(plan.pointer, over=version)
        failpoint("after-pointer")
        metrics.ROLLOUTS.labels(tier).inc()
        log.info("rolled out", tier=tier, shards=len(plan.pointer.shards))

    def _report_unreadable(
        self, tier: str, unreadable: Sequence[UnreadableShard], plan: Plan, loop: LoopScope
    ) -> None:
        part = f"manifests of {tier}"
        if not unreadable:
            loop.clear(part)
            return
        for shard in unreadable:
            log.error(
                "unreadable manifest",
                shard=shard.shard_id,
                set_aside=shard.shard_id in plan.set_aside,
                error=shard.error.message,
            )
        named = ", ".join(sorted(shard.shard_id for shard in unreadable))
        loop.degraded(
            part,
            f"{len(unreadable)} cannot be read, {len(plan.set_aside)} of them not served and set "
            f"aside: {named}",
        )
