"""The writes of one round of a rollout: an image is pushed, then an IndexServing names it."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from services.image_builder.image_plan import ImagePlan, serving_name
from services.image_builder.image_servings import (
    FORCE_DELETE_ANNOTATION,
    MANAGER,
    RELIED_ON_ANNOTATION,
    ServedImage,
    content_of,
    served_images,
    serving_document,
)
from services.image_builder.images import Images
from services.image_builder.shard_reader import ShardReader
from shashin.errors import (
    CorruptShard,
    KubernetesConflict,
    KubernetesGone,
    KubernetesNotFound,
    ShashinError,
)
from shashin.index_images.annotations import image_tag
from shashin.index_images.packing import PackedImage
from shashin.index_images.publish import publish_image
from shashin.index_images.shard_layer import in_store
from shashin.kube.resource import KubeObject, version_of
from shashin.kube.resources import INDEX_SERVINGS
from shashin.metrics import image_builder as metrics
from shashin.oci.references import Reference, parse_repository
from shashin.runtime.failpoints import failpoint
from shashin.runtime.logging import get_logger
from shashin.runtime.scope import LoopScope
from shashin.shards.format.manifest import Manifest

CHANGED = (KubernetesConflict, KubernetesNotFound, KubernetesGone)
"""What a write says if what was read is not what there is."""

log = get_logger(__name__)


class RoundWrites:
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
            except CHANGED:
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
        published = await self._publish(image, manifests, content, before, loop)
        failpoint("after-image")
        with loop.waiting_for("the Kubernetes API"):
            await self._pin(relied_on, image.number)
            await self._write(image, manifests, published, content)
        failpoint("after-serving")

    async def _publish(
        self,
        image: PackedImage,
        manifests: Sequence[Manifest],
        content: str,
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
                    image_tag(self._tier, image.number, content, self._images.kube.clock.now()),
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
