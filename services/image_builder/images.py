"""What images are made of, and where they go."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from services.image_builder.servers import Servers
from services.image_builder.settings import ImageBuilderSettings
from shashin.errors import (
    ImageNotFound,
    UnusableImage,
)
from shashin.index_images.packing import Budget
from shashin.index_images.publish import pull_image
from shashin.kube.client import KubeClient
from shashin.objectstore.protocol import ObjectStore
from shashin.oci.image import Image
from shashin.oci.references import Reference, parse_reference
from shashin.oci.registry import RegistryClient
from shashin.repository.repository import ModelRepository
from shashin.servings.document import MAX_SHARDS


@dataclass(frozen=True)
class Images:
    """What images are made of, where they go, and who serves them."""

    settings: ImageBuilderSettings
    repository: ModelRepository
    store: ObjectStore
    registry: RegistryClient
    kube: KubeClient
    servers: Servers


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
