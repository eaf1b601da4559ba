"""Starts the image builder: ``python -m services.image_builder``."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from services.image_builder.handlers import Builder
from services.image_builder.rescan import Rescan
from services.image_builder.rollout import PointerRollout
from services.image_builder.settings import ImageBuilderSettings
from services.image_builder.wake_ups import WakeUps
from shashin.discovery.open import open_discovery
from shashin.objectstore.open import opened_object_store
from shashin.objectstore.protocol import ObjectStore
from shashin.repository.horizons import Horizons
from shashin.repository.repository import ModelRepository
from shashin.runtime.scope import ServiceScope
from shashin.runtime.service import run_service
from shashin.serving.index_servers import IndexServers

if TYPE_CHECKING:
    from services.image_builder.image_rollout import ImageRollout


async def serve(scope: ServiceScope[ImageBuilderSettings]) -> None:
    """Run the image builder until SIGTERM."""
    settings = scope.settings
    # One shard or pointer that cannot be read is for an alert, and holds up no start of the others.
    scope.health.ready_when_degraded = True
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(opened_object_store(settings.repository))
        repository = ModelRepository(store)
        discovery = open_discovery(settings.discovery)
        stack.push_async_callback(discovery.close)
        servers = IndexServers(discovery, settings.model_id)
        stack.push_async_callback(servers.close)
        images = await _images(settings, stack, repository, store, servers)
        builder = Builder(
            settings,
            repository,
            PointerRollout(repository),
            servers,
            Horizons(store, settings.model_id),
            after_round=images.wake if images is not None else lambda: None,
        )
        rescan = Rescan(settings.model_id, store, builder.wake)
        await scope.run(
            builder.loop(),
            rescan.loop(),
            WakeUps(settings.kafka, builder.wake).loop(),
            servers.discovery_watch(),
            *(images.loops() if images is not None else ()),
        )


async def _images(
    settings: ImageBuilderSettings,
    stack: AsyncExitStack,
    repository: ModelRepository,
    store: ObjectStore,
    servers: IndexServers,
) -> ImageRollout | None:
    """Return what rolls images out; None if tiers are left to index servers that follow pointers."""
    if settings.rollout != "images":
        return None
    settings.check_images()
    # Kubernetes' client is imported only where it is used.
    from services.image_builder.image_garbage import ImageGarbage
    from services.image_builder.image_rollout import ImageRollout
    from services.image_builder.images import Images
    from shashin.kube.client import KubeClient
    from shashin.oci.registry import RegistryClient

    kube = KubeClient.from_environment()
    stack.push_async_callback(kube.close)
    registry = await stack.enter_async_context(RegistryClient(settings.access))
    return ImageRollout(
        Images(settings, repository, store, registry, kube, servers),
        ImageGarbage(settings, registry, kube),
    )


if __name__ == "__main__":
    run_service("image-builder", ImageBuilderSettings, serve)
