"""Rolls out images: publishes what a tier's pointer names, and has IndexServings name the images.

IndexServings are the state. They are read before the pointer and changed only as they were read, so of
two image builders that decide at once one plans again, and one that is killed anywhere leaves a state
that the next one goes on from. Nothing but an IndexServing has an effect: an image that is not named by
one is deleted some day.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Iterable, Mapping
from functools import partial

from services.image_builder.image_garbage import ImageGarbage
from services.image_builder.image_plan import ImagePlan, plan_images, successors_of
from services.image_builder.image_servings import (
    ServedImage,
    served_images,
)
from services.image_builder.image_writes import CHANGED, RoundWrites
from services.image_builder.images import BaseImage, Images
from services.image_builder.shard_reader import ShardReader
from shashin.errors import (
    KubernetesUnavailable,
    ShashinError,
)
from shashin.index_images.packing import Budget, PackedShard
from shashin.kube.resources import INDEX_SERVINGS
from shashin.kube.server_clock import clock_loop
from shashin.metrics import image_builder as metrics
from shashin.repository.pointer import Pointer
from shashin.runtime.backoff import backoff_seconds
from shashin.runtime.logging import get_logger
from shashin.runtime.scope import Loop, LoopScope
from shashin.serving.index_servers import HeldShard
from shashin.tiers import SEALED_TIERS

_MOVING_SECONDS = 1.0
"""Between rounds while shards wait for another image to serve them."""
_CONFLICT_SECONDS = 0.5
"""At most, before planning again when another image builder was faster."""
_MAX_CONFLICTS = 10
"""In a row, before it is reported: no other builder is faster that often."""
_MAX_RETRY_SECONDS = 30.0

log = get_logger(__name__)


class ImageRollout:
    """Follows the pointers of all tiers, each in a loop of its own: a month's push delays no hour's."""

    def __init__(self, images: Images, garbage: ImageGarbage) -> None:
        base = BaseImage(images)
        self._tiers = [TierImages(images, tier, base) for tier in SEALED_TIERS]
        self._garbage = garbage
        self._clock = clock_loop(images.kube)

    def wake(self) -> None:
        """Look at the pointers again."""
        for tier in self._tiers:
            tier.wake()

    def loops(self) -> list[Loop]:
        """Return the loops; readiness does not depend on them."""
        return [*(tier.loop() for tier in self._tiers), self._garbage.loop(), self._clock]


class _PlanAgain(Exception):
    """Somebody else has changed what was read."""


class TierImages:
    """Makes the IndexServings of one tier follow its pointer."""

    def __init__(self, images: Images, tier: str, base: BaseImage) -> None:
        self._images = images
        self._settings = images.settings
        self._tier = tier
        self._base = base
        self._name = f"images of {tier}"
        self._wake_event = asyncio.Event()
        self._delays = backoff_seconds(first=0.5, longest=_MAX_RETRY_SECONDS)
        self._conflicts = 0
        """How often in a row somebody else was faster."""
        self._shards = ShardReader(images.repository, images.store, images.settings.model_id, tier)

    def wake(self) -> None:
        """Plan again."""
        self._wake_event.set()

    def loop(self) -> Loop:
        """Return the loop."""
        return Loop(self._name, self.run)

    async def run(self, loop: LoopScope) -> None:
        """Follow the pointer until stopped."""
        next_round = 0.0
        while loop.next_turn():
            if self._wake_event.is_set() or time.monotonic() >= next_round:
                self._wake_event.clear()
                try:
                    moving = await self._round(loop)
                except _PlanAgain as error:
                    await loop.sleep(self._after_conflict(str(error), loop))
                    continue
                except ShashinError as error:
                    # What fails is not tried more often for being woken.
                    await loop.sleep(self._after_failure(error, loop))
                    continue
                self._conflicts = 0
                self._delays = backoff_seconds(first=0.5, longest=_MAX_RETRY_SECONDS)
                self._report_unusable(loop)
                pause = min(self._settings.resync_seconds, _MOVING_SECONDS if moving else math.inf)
                next_round = time.monotonic() + pause
            await loop.wait(self._wake_event, 0.5)

    def _after_conflict(self, why: str, loop: LoopScope) -> float:
        """Note that what was read had changed; returns how long to wait before planning again."""
        self._conflicts += 1
        log.info("planning images again", tier=self._tier, why=why)
        if self._conflicts < _MAX_CONFLICTS:
            return random.uniform(0.1, 1.0) * _CONFLICT_SECONDS
        loop.degraded(self._name, f"{self._conflicts} attempts in a row failed: {why}")
        return next(self._delays)

    def _after_failure(self, error: ShashinError, loop: LoopScope) -> float:
        """Report a failure; returns how long to wait before the next attempt."""
        loop.degraded(self._name, error.message)
        metrics.IMAGE_FAILURES.labels(self._tier, error.reason).inc()
        log.warning("images are not rolled out", tier=self._tier, error=error.message)
        asked = error.retry_after_seconds if isinstance(error, KubernetesUnavailable) else 0.0
        return max(next(self._delays), asked)

    def _report_unusable(self, loop: LoopScope) -> None:
        if unusable := self._shards.unusable:
            first = min(unusable)
            loop.degraded(
                self._name,
                f"{len(unusable)} shards cannot be put into an image, the first is {first}: "
                f"{unusable[first]}",
            )
        else:
            loop.clear(self._name)

    async def _round(self, loop: LoopScope) -> bool:
        """Plan and roll out once; returns whether shards wait for other images to serve them.

        Raises:
            _PlanAgain: when somebody else has changed what was read.
            ShashinError: when something is not possible now.
        """
        images, model_id = self._images, self._settings.model_id
        with loop.waiting_for("the Kubernetes API"):
            # Before the pointer: whoever changes one of them later has read a pointer as new as this.
            listed = await images.kube.list(INDEX_SERVINGS, namespace=self._settings.namespace)
        before = served_images(listed.items, model_id, self._tier)
        with loop.waiting_for("the model repository"):
            pointer, _ = await images.repository.read_pointer(model_id, self._tier)
            if pointer is None:
                return False
            named = {shard.shard_id for shard in pointer.shards}
            there = set[str]().union(*(served.shard_ids for served in before.values()))
            await self._shards.read(pointer, there - named)
        with loop.waiting_for("the registry of images"):
            base, budget = await self._base.resolve()
        plan = await self._plan(pointer, before, budget, loop)
        metrics.MOVING_SHARDS.labels(self._tier).set(len(plan.moving))
        try:
            await RoundWrites(images, self._tier, base, before, self._shards).roll_out(plan, loop)
        except CHANGED as error:
            raise _PlanAgain(error.message) from error
        metrics.SERVINGS.labels(self._tier).set(len(plan.images))
        return bool(plan.moving)

    async def _plan(
        self,
        pointer: Pointer,
        before: Mapping[int, ServedImage],
        budget: Budget,
        loop: LoopScope,
    ) -> ImagePlan:
        plan = partial(
            plan_images,
            [PackedShard(shard.shard_id, shard.rows) for shard in pointer.shards],
            [served.image for served in before.values()],
            budget=budget,
            successors=successors_of(
                {name: of for served in before.values() for name, of in served.ranges.items()},
                {shard.shard_id: shard.ranges for shard in pointer.shards},
            ),
        )
        unusable = set(self._shards.unusable)
        planned = plan({}, unusable=unusable)
        if not planned.moving:
            return planned
        with loop.waiting_for("index servers"):
            held = _by_image(await self._images.servers.held(), before)
        planned = plan(held, unusable=unusable)
        # What stays though the pointer no longer names it was not read with the pointer's shards.
        named = {shard.shard_id for shard in pointer.shards}
        with loop.waiting_for("the model repository"):
            missing = await self._shards.find(set(planned.moving) - named)
        return plan(held, unusable=unusable | missing) if missing else planned


def _by_image(held: Iterable[HeldShard], before: Mapping[int, ServedImage]) -> dict[str, set[int]]:
    """Return, by shard, the images whose replicas all hold it."""
    numbers = {served.name: number for number, served in before.items()}
    found: dict[str, set[int]] = {}
    for shard in held:
        if shard.group in numbers:
            found.setdefault(shard.shard_id, set()).add(numbers[shard.group])
    return found
