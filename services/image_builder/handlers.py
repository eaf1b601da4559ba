"""Level-triggered planning and rollout: the repository is the state, records only wake the loops."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from services.image_builder.candidates import CandidateReader
from services.image_builder.plan import HandOver, Older, Plan, plan_tier
from services.image_builder.retention import raised_horizons
from services.image_builder.rollout import Rollout
from services.image_builder.servers import Servers
from services.image_builder.settings import ImageBuilderSettings
from shashin.errors import PreconditionFailed, RepositoryError, ShashinError
from shashin.metrics import image_builder as metrics
from shashin.offsets.ranges import MergedRanges
from shashin.repository.horizons import Horizons
from shashin.repository.pointer import PointedShard, Pointer
from shashin.repository.rejections import Rejection
from shashin.repository.repository import (
    AnnouncedShard,
    ModelRepository,
    StoredShard,
    UnreadableShard,
)
from shashin.runtime.failpoints import failpoint
from shashin.runtime.logging import get_logger
from shashin.runtime.scope import Loop, LoopScope
from shashin.serving.index_servers import HeldShard
from shashin.tiers import SEALED_TIERS

_HAND_OVER_SECONDS = 1.0
"""Between rounds while shards wait for an older tier to serve them."""

RETIRE_AFTER_SECONDS = 60.0
"""Between raising a horizon and taking shards before it out of service: by then coverage no longer
asks for them, since indexers read horizons more often."""

log = get_logger(__name__)


@dataclass(frozen=True)
class _Retirement:
    """What retention takes out of service."""

    current: Mapping[int, int]
    """All horizons."""
    settled: Mapping[int, int]
    """Those that were raised long enough ago."""


@dataclass(frozen=True)
class _Round:
    """What a planning round starts from."""

    announced: Sequence[AnnouncedShard]
    retirement: _Retirement
    check_served: bool


class Builder:
    """Plans every tier when woken, and at least every ``resync_seconds``.

    ``after_round`` is called whenever pointers may have moved.
    """

    def __init__(
        self,
        settings: ImageBuilderSettings,
        repository: ModelRepository,
        rollout: Rollout,
        servers: Servers,
        horizons: Horizons,
        after_round: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings = settings
        self._model_id = settings.model_id
        self._repository = repository
        self._rollout = rollout
        self._servers = servers
        self._horizons = horizons
        self._hand_overs = {
            tier: HandOver(settings.hand_over_after_seconds) for tier in SEALED_TIERS
        }
        self._candidates = CandidateReader(repository)
        self._rejected: Mapping[str, Rejection] = {}
        """By id, the shards that are not wanted."""
        self._after_round = after_round
        self._wake_event = asyncio.Event()

    def wake(self) -> None:
        """Schedule a planning round."""
        metrics.WAKES.inc()
        self._wake_event.set()

    def loop(self) -> Loop:
        """Return the planning loop, ready after its first round."""
        return Loop("planning", self.run, ready_when="the first plan")

    async def run(self, loop: LoopScope) -> None:
        """Plan and roll out until stopped."""
        next_round = next_check = 0.0
        while loop.next_turn():
            began = time.monotonic()
            if self._wake_event.is_set() or began >= next_round:
                self._wake_event.clear()
                check = began >= next_check
                with metrics.ROUND_SECONDS.time():
                    waiting = await self.plan_round(loop, check_served=check)
                ended = time.monotonic()
                if check:
                    next_check = ended + self._settings.resync_seconds
                next_round = min(next_check, ended + _HAND_OVER_SECONDS) if waiting else next_check
            await loop.wait(self._wake_event, 0.5)

    async def plan_round(self, loop: LoopScope, *, check_served: bool) -> bool:
        """Plan every tier; returns whether shards wait to be handed over.

        ``check_served`` is that of ``CandidateReader.read``.
        """
        try:
            with loop.waiting_for("the model repository"):
                plans = await self._plan_and_roll_out(loop, check_served)
        except ShashinError as error:
            log.warning("repository unavailable: retrying", error=error.message)
            loop.not_ready(error.message)
            return False
        if len(plans) == len(SEALED_TIERS):
            loop.ready()
        self._after_round()
        return any(plan.waiting for plan in plans.values())

    async def _plan_and_roll_out(self, loop: LoopScope, check_served: bool) -> Mapping[str, Plan]:
        """Plan every tier, the oldest first; returns the plans of those that could be."""
        # Announcements before pointers, since a shard is settled only after a pointer has named it,
        # and both before manifests: whatever they name is committed, or is really gone.
        announced = await self._repository.announced(self._model_id)
        self._rejected = await self._repository.rejected(self._model_id)
        retirement = await self._retirement(loop)
        started = _Round(announced, retirement, check_served)
        plans: dict[str, Plan] = {}
        for tier in reversed(SEALED_TIERS):
            try:
                plans[tier] = await self._plan_tier(tier, started, plans, loop)
            except PreconditionFailed:
                log.info("pointer changed concurrently: planning again", tier=tier)
                self._wake_event.set()
            except RepositoryError as error:
                loop.degraded(f"planning of {tier}", error.message)
                log.error("planning failed: the tier is unchanged", tier=tier, error=error.message)  # noqa: TRY400
            else:
                loop.clear(f"planning of {tier}")
        shards = [shard for plan in plans.values() for shard in plan.pointer.shards]
        await self._settle(announced, shards)
        await self._retire(shards, retirement)
        await self._forget_rejected(plans)
        return plans

    async def _plan_tier(
        self,
        tier: str,
        started: _Round,
        older_plans: Mapping[str, Plan],
        loop: LoopScope,
    ) -> Plan:
        current, version = await self._repository.read_pointer(self._model_id, tier)
        candidates = await self._candidates.read(
            self._model_id,
            tier,
            current,
            started.announced,
            rejected=self._rejected,
            check_served=started.check_served,
        )
        plan = plan_tier(
            self._model_id,
            tier,
            candidates.shards,
            current,
            older=await self._older(tier, current, older_plans),
            horizons=started.retirement.settled,
        )
        self._report(tier, candidates.unreadable, plan, loop)
        failpoint("after-plan")
        if plan.pointer == current or (current is None and not plan.pointer.shards):
            return plan
        failpoint("before-pointer")
        await self._rollout.roll_out(plan.pointer, over=version)
        failpoint("after-pointer")
        metrics.ROLLOUTS.labels(tier).inc()
        log.info("rolled out", tier=tier, shards=len(plan.pointer.shards))
        return plan

    async def _older(
        self, tier: str, current: Pointer | None, older_plans: Mapping[str, Plan]
    ) -> Older:
        """Return what the older tiers have; index servers are asked only if something may move."""
        pointed = _ranges_of(
            shard
            for plan in older_plans.values()
            for shard in plan.pointer.shards
            if shard.shard_id not in self._rejected
        )
        served = current.shards if current else ()
        rejected = [shard for shard in served if shard.shard_id in self._rejected]
        contained = [
            shard for shard in served if pointed.contain_all(shard.ranges) and shard not in rejected
        ]
        held: Sequence[HeldShard] = ()
        if contained or rejected:
            held = [s for s in await self._servers.held() if s.shard_id not in self._rejected]
        hand_over = self._hand_overs[tier]
        older = MergedRanges(r for s in held if s.tier in older_plans for r in s.ranges)
        every = MergedRanges(r for s in held for r in s.ranges)
        return Older(
            pointed,
            hand_over.served_long([(contained, older), (rejected, every)], time.monotonic()),
        )

    async def _forget_rejected(self, plans: Mapping[str, Plan]) -> None:
        """Delete the manifests of rejected shards that are out of service: they may be built again."""
        for shard_id, rejection in self._rejected.items():
            plan = plans.get(rejection.tier)
            if plan and shard_id not in {shard.shard_id for shard in plan.pointer.shards}:
                await self._repository.delete_rejected(rejection)
                log.info("rejected shard deleted", shard=shard_id)

    async def _settle(
        self, announced: Sequence[AnnouncedShard], pointed: Sequence[PointedShard]
    ) -> None:
        """Delete the announcements of shards that are served, or need not be."""
        named = {shard.manifest_key for shard in pointed}
        served = _ranges_of(pointed)
        for found in announced:
            shard = found.shard
            if found.abandoned:
                log.warning("announced shard was never committed", announcement=found.key)
            elif not isinstance(shard, StoredShard) or (
                shard.manifest_key not in named
                and not served.contain_all(shard.manifest.source_ranges)
            ):
                continue
            await self._repository.settle(found)

    async def _retirement(self, loop: LoopScope) -> _Retirement:
        """Return the horizons, of which a reader of coverage knows the settled ones."""
        if not self._settings.retention_days:
            return _Retirement({}, {})
        try:
            horizons = await self._horizons.all()
        except RepositoryError as error:
            loop.degraded("horizons", error.message)
            return _Retirement({}, {})
        loop.clear("horizons")
        settled_before = time.time() - RETIRE_AFTER_SECONDS
        return _Retirement(
            {h.partition: h.offset for h in horizons},
            {h.partition: h.offset for h in horizons if h.raised_at <= settled_before},
        )

    async def _retire(self, pointed: Sequence[PointedShard], retirement: _Retirement) -> None:
        if not self._settings.retention_days:
            return
        before = time.time() - self._settings.retention_days * 86400
        raised = raised_horizons(pointed, retirement.current, before)
        if raised:
            await self._horizons.raise_to(raised)
            log.info("horizons raised", offsets=raised)

    def _report(
        self, tier: str, unreadable: Sequence[UnreadableShard], plan: Plan, loop: LoopScope
    ) -> None:
        self._report_unreadable(tier, unreadable, plan, loop)
        for reason in ("redundant", "handed_over", "retired"):
            if left_out := getattr(plan, reason):
                log.info("shards left out", tier=tier, reason=reason, shards=left_out)
        metrics.REFUSED_SHARDS.labels(tier, "unreadable").set(len(unreadable))
        metrics.REFUSED_SHARDS.labels(tier, "redundant").set(len(plan.redundant))
        metrics.PLANNED_SHARDS.labels(tier).set(len(plan.pointer.shards))
        metrics.WAITING_SHARDS.labels(tier).set(len(plan.waiting))

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


def _ranges_of(shards: Iterable[PointedShard]) -> MergedRanges:
    return MergedRanges(r for shard in shards for r in shard.ranges)
