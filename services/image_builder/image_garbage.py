"""Deletes images that nothing uses any more, once a day."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator

from services.image_builder.settings import ImageBuilderSettings
from shashin.errors import ShashinError
from shashin.index_images.garbage import stored_images, unused_images
from shashin.kube.client import KubeClient
from shashin.kube.resource import KubeObject
from shashin.kube.resources import INDEX_SERVINGS, PODS
from shashin.metrics import image_builder as metrics
from shashin.oci.references import parse_repository
from shashin.oci.registry import RegistryClient
from shashin.runtime.backoff import backoff_seconds
from shashin.runtime.logging import get_logger
from shashin.runtime.scope import Loop, LoopScope

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_PART = "deletion of images"
_SECONDS = 24 * 3600.0
_MAX_RETRY_SECONDS = 300.0

log = get_logger(__name__)


def used_digests(servings: Iterable[KubeObject], pods: Iterable[KubeObject]) -> set[str]:
    """Return the digests that IndexServings of any model and pods name, or that pods run."""
    named = [str((serving.get("spec") or {}).get("image", "")) for serving in servings]
    for pod in pods:
        spec, status = pod.get("spec") or {}, pod.get("status") or {}
        containers = (spec.get("containers") or []) + (spec.get("initContainers") or [])
        states = (status.get("containerStatuses") or []) + (
            status.get("initContainerStatuses") or []
        )
        named += [str(container.get("image", "")) for container in containers]
        named += [str(state.get("imageID", "")) for state in states]
    return {digest for name in named for digest in _DIGEST.findall(name)}


def _delays() -> Iterator[float]:
    return backoff_seconds(first=1.0, longest=_MAX_RETRY_SECONDS)


class ImageGarbage:
    """Looks for images that may be deleted: at the start, and then once a day."""

    def __init__(
        self, settings: ImageBuilderSettings, registry: RegistryClient, kube: KubeClient
    ) -> None:
        self._settings = settings
        self._registry = registry
        self._kube = kube

    def loop(self) -> Loop:
        """Return the loop."""
        return Loop("image garbage", self.run)

    async def run(self, loop: LoopScope) -> None:
        """Delete what may be deleted, until stopped."""
        if not self._settings.image_grace_days:
            await loop.until_stopped()
            return
        next_look, delays = 0.0, _delays()
        while loop.next_turn():
            if time.monotonic() >= next_look:
                try:
                    with loop.waiting_for("unused images to be deleted"):
                        await self.delete_unused()
                except ShashinError as error:
                    loop.degraded(_PART, error.message)
                    log.warning("images are not deleted", error=error.message)
                    next_look = time.monotonic() + next(delays)
                else:
                    loop.clear(_PART)
                    delays = _delays()
                    next_look = time.monotonic() + _SECONDS
            await loop.sleep(1.0)

    async def delete_unused(self) -> list[str]:
        """Delete the images that may be deleted now; returns their digests.

        Raises:
            KubernetesError: when it cannot be known what is used: nothing is deleted then.
            RegistryError: when the registry does not respond, or deletes nothing.
        """
        repository = parse_repository(self._settings.image_repository)
        images = await stored_images(self._registry, repository)
        unused = unused_images(
            images,
            # After the images: one that was taken into use meanwhile is used.
            await self._used(),
            now=self._kube.clock.now(),
            grace_seconds=self._settings.image_grace_days * 86400,
        )
        deleted = []
        for image in unused:
            if await self._registry.delete_manifest(repository, image.digest):
                metrics.DELETED_IMAGES.inc()
                deleted.append(image.digest)
                log.info("unused image deleted", image=image.digest, tags=image.tags)
        return deleted

    async def _used(self) -> set[str]:
        namespace = self._settings.namespace
        servings = await self._kube.list(INDEX_SERVINGS, namespace=namespace)
        pods = await self._kube.list(PODS, namespace=namespace)
        return used_digests(servings.items, pods.items)
