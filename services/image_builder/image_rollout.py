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
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from services.image_builder import metrics
from services.image_builder.image_garbage import ImageGarbage
from services.image_builder.image_plan import ImagePlan, plan_images, serving_name, successors_of
from services.image_builder.image_servings import (
    FORCE_DELETE_ANNOTATION,
    MANAGER,
    RELIED_ON_ANNOTATION,
    ServedImage,
    content_of,
    served_images,
    serving_document,
)
from services.image_builder.settings import ImageBuilderSettings
from services.image_builder.shard_reader import ShardReader
from shashin.errors import (
    CorruptShard,
    ImageNotFound,
    KubernetesConflict,
    KubernetesGone,
    KubernetesNotFound,
    KubernetesUnavailable,
    ShashinError,
    UnusableImage,
)
from shashin.index_images.annotations import image_tag
from shashin.index_images.packing import Budget, PackedImage, PackedShard
from shashin.index_images.publish import publish_image, pull_image
from shashin.index_images.shard_layer import in_store
from shashin.kube.client import KubeClient
from shashin.kube.resource import KubeObject, version_of
from shashin.kube.resources import INDEX_SERVINGS
from shashin.kube.server_clock import clock_loop
from shashin.objectstore.protocol import ObjectStore
from shashin.oci.image import Image
from shashin.oci.references import Reference, parse_reference, parse_repository
from shashin.oci.registry import RegistryClient
from shashin.repository.pointer import Pointer
from shashin.repository.repository import ModelRepository
from shashin.runtime.backoff import backoff_seconds
from shashin.runtime.failpoints import failpoint
from shashin.runtime.logging import get_logger
from shashin.runtime.scope import Loop, LoopScope
from shashin.serving.index_servers import HeldShard
from shashin.servings.document import MAX_SHARDS
from shashin.shards.format.manifest import Manifest
from shashin.tiers import SEALED_TIERS

_MOVING_SECONDS = 1.0
"""Between rounds while shards wait for another image to serve them."""
_CONFLICT_SECONDS = 0.5
"""At most, before planning again when another image builder was faster."""
_MAX_CONFLICTS = 10
"""In a row, before it is reported: no other builder is faster that often."""
_MAX_RETRY_SECONDS = 30.0

_CHANGED = (KubernetesConflict, KubernetesNotFound, KubernetesGone)
"""What a write says if what was read is not what there is."""

log = get_logger(__name__)


class Servers(Protocol):
    """Index servers in discovery."""

    async def held(self) -> list[HeldShard]:
        """Return the shards that every ready replica of a group holds now."""
        ...


@dataclass(frozen=True)
class Images:
    """What images are made of, where they go, and who serves them."""

    settings: ImageBuilderSettings
    repository: ModelRepository
    store: ObjectStore
    registry: RegistryClient
    kube: KubeClient
    servers: Servers


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


class BaseImage:
    """The index server's image, which a tag may name another one of at any time."""

    def __init__(self, images: Images) -> None:
        self._registry = images.registry
        self._settings = images.settings
        self._resolved: tuple[float, Image, Reference] | None = None
        """When it was resolved, what it is, and its name with its digest."""
        self._resolving = asyncio.Lock()

    async def resolve(self) -> tuple[Reference, Budget]:
        """Return it by its digest, and what an image may have beside it.

        Raises:
            UserError: when there is no layer left for a shard.
            RegistryError: when it cannot be read.
        """
        async with self._resolving:
            if self._resolved is None or self._is_old(self._resolved[0]):
                named = parse_reference(self._settings.index_server_image)
                try:
                    image = await pull_image(self._registry, named)
                except (ImageNotFound, UnusableImage) as error:
                    raise type(error)(
                        f"SHASHIN_INDEX_SERVER_IMAGE={named}: {error.message}"
                    ) from error
                reference = Reference(named.repository, digest=image.digest)
                self._resolved = time.monotonic(), image, reference
            _, image, reference = self._resolved
        layers = min(self._settings.image_max_layers - len(image.layers), MAX_SHARDS)
        return reference, Budget(layers, self._settings.image_max_rows)

    def _is_old(self, resolved_at: float) -> bool:
        by_tag = "@" not in self._settings.index_server_image
        return by_tag and time.monotonic() - resolved_at >= self._settings.resync_seconds


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
            await _Writes(images, self._tier, base, before, self._shards).roll_out(plan, loop)
        except _CHANGED as error:
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


class _Writes:
    """The writes of one round, in an order in which any may be the last."""

    def __init__(
        self,
        images: Images,
        tier: str,
        base: Reference,
        before: Mapping[int, ServedImage],
        shards: ShardReader,
    ) -> None:
        self._images = images
        self._settings = images.settings
        self._tier = tier
        self._base = base
        self._shards = shards
        self._there = dict(before)
        """By number, IndexServings as they are now."""

    async def roll_out(self, plan: ImagePlan, loop: LoopScope) -> None:
        """Write what differs from the plan.

        Raises:
            ShashinError: the first failure, after the images that it does not concern were written.
        """
        failures: list[ShashinError] = []
        for image in plan.images:
            try:
                await self._follow(image, plan.relied_on.get(image.number, ()), loop)
            except _CHANGED:
                raise
            except ShashinError as error:
                failures.append(error)
        for number in plan.removed:
            with loop.waiting_for("the Kubernetes API"):
                await self._remove(number, plan.relied_on.get(number, ()))
        if failures:
            raise failures[0]

    async def _follow(
        self, image: PackedImage, relied_on: Collection[int], loop: LoopScope
    ) -> None:
        manifests = self._shards.of(image)
        if manifests is None:
            return  # it stays as it is, since one of its shards cannot be read
        before = self._there.get(image.number)
        content = content_of(self._base, manifests)
        target = parse_repository(self._settings.image_repository)
        if (
            before is not None
            and before.content == content
            and before.reference.repository == target
            and before.shard_ids == {shard.shard_id for shard in image.shards}
        ):
            return
        published = await self._publish(image, manifests, before, loop)
        failpoint("after-image")
        with loop.waiting_for("the Kubernetes API"):
            await self._pin(relied_on, image.number)
            await self._write(image, manifests, published, content)
        failpoint("after-serving")

    async def _publish(
        self,
        image: PackedImage,
        manifests: Sequence[Manifest],
        before: ServedImage | None,
        loop: LoopScope,
    ) -> Reference:
        name = serving_name(self._settings.model_id, self._tier, image.number)
        began = time.monotonic()
        try:
            with loop.waiting_for(f"the image of {name} to be published"):
                published = await publish_image(
                    self._images.registry,
                    self._base,
                    [in_store(manifest, self._images.store) for manifest in manifests],
                    parse_repository(self._settings.image_repository),
                    image_tag(self._tier, image.number, self._images.kube.clock.now()),
                    previous=before.reference if before is not None else None,
                )
        except CorruptShard:
            known = before.shard_ids if before is not None else set()
            with loop.waiting_for(f"the shards of {name} to be checked"):
                await self._shards.check([m for m in manifests if m.shard_id not in known])
            raise
        metrics.PUBLISH_SECONDS.labels(self._tier).observe(time.monotonic() - began)
        metrics.SENT_BYTES.labels(self._tier).inc(published.sent_bytes)
        if before is None or before.reference.digest != published.reference.digest:
            metrics.PUBLISHED_IMAGES.labels(self._tier).inc()
            log.info(
                "image published",
                serving=name,
                image=str(published.reference),
                shards=len(manifests),
                sent_bytes=published.sent_bytes,
            )
        return published.reference

    async def _write(
        self, image: PackedImage, manifests: Sequence[Manifest], published: Reference, content: str
    ) -> None:
        before = self._there.get(image.number)
        namespace = self._settings.namespace
        if before is None:
            wanted = serving_document(
                image.number,
                manifests,
                published,
                content,
                replicas=self._settings.serving_replicas,
            )
            written = await self._images.kube.create(
                INDEX_SERVINGS, wanted, manager=MANAGER, namespace=namespace
            )
        else:
            wanted = serving_document(image.number, manifests, published, content, before=before)
            written = await self._images.kube.apply(
                INDEX_SERVINGS, wanted, manager=MANAGER, namespace=namespace
            )
        self._there |= served_images([written], self._settings.model_id, self._tier)
        log.info(
            "serving written",
            serving=wanted["metadata"]["name"],
            new=before is None,
            shards=len(manifests),
            image=wanted["spec"]["image"],
        )

    async def _remove(self, number: int, relied_on: Collection[int]) -> None:
        await self._pin(relied_on, number)
        await self._annotate(number, FORCE_DELETE_ANNOTATION, "true")
        gone = self._there.pop(number)
        await self._images.kube.delete(
            INDEX_SERVINGS,
            gone.name,
            namespace=self._settings.namespace,
            uid=gone.uid,
            resource_version=gone.resource_version,
        )
        log.info("serving deleted: its tier has none of its shards", serving=gone.name)

    async def _pin(self, relied_on: Collection[int], dropping: int) -> None:
        """Change the servings that keep what another one drops; see ``RELIED_ON_ANNOTATION``."""
        for number in sorted(relied_on):
            value = f"{dropping} {time.time_ns()}"
            await self._annotate(number, RELIED_ON_ANNOTATION, value)

    async def _annotate(self, number: int, annotation: str, value: str) -> None:
        known = self._there[number]
        patch: KubeObject = {
            "metadata": {
                "resourceVersion": known.resource_version,
                "annotations": {annotation: value},
            }
        }
        written = await self._images.kube.merge_patch(
            INDEX_SERVINGS, known.name, patch, namespace=self._settings.namespace
        )
        self._there[number] = replace(known, resource_version=version_of(written))
