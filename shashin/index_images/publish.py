"""Publishing an image: the base, a layer for each shard, pushed without a container engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

from shashin.errors import ImageNotFound, UnusableImage, UserError
from shashin.index_images.annotations import comment, created_by, image_annotations, known_layers
from shashin.index_images.shard_layer import ShardSource, shard_layer
from shashin.oci.descriptor import Blob, Descriptor, SmallBlob
from shashin.oci.image import (
    MAX_CONFIG_BYTES,
    AppendedLayer,
    Image,
    Platform,
    append_layers,
    choose_platform,
    is_index,
    read_image,
    read_manifest,
)
from shashin.oci.layers import hash_layer
from shashin.oci.references import Reference, Repository, digest_of
from shashin.oci.registry import RegistryClient

CONCURRENT_BLOBS = 3
"""Uploads at a time: each holds a few MiB."""


@dataclass(frozen=True)
class PublishedImage:
    """An image that its registry has."""

    reference: Reference
    """With its tag and its digest."""
    sent_bytes: int
    """Uploaded; the rest was there, or was mounted."""
    reused_layers: int
    """Layers of shards that were known from the previous image, so that nothing of them was read."""


@dataclass(frozen=True)
class _CopiedBlob:
    """A blob of a base image that its target does not have."""

    client: RegistryClient
    source: Repository
    descriptor: Descriptor

    @property
    def digest(self) -> str:
        return self.descriptor.digest

    @property
    def size(self) -> int:
        return self.descriptor.size

    def chunks(self) -> AsyncGenerator[bytes]:
        return self.client.blob(self.source, self.descriptor)


async def pull_image(
    client: RegistryClient, reference: Reference, platform: Platform | None = None
) -> Image:
    """Read an image's manifest and configuration; of an index, those for the platform.

    Raises:
        UnusableImage: when it is no image that layers can be appended to, or for another platform.
        RegistryError: as RegistryClient.
    """
    name = str(reference)
    fetched = await client.manifest(reference)
    if is_index(fetched.media_type, fetched.data):
        digest = choose_platform(fetched.data, platform or Platform(), name)
        fetched = await client.manifest(reference.at(digest))
    _, described = read_manifest(fetched.data, fetched.media_type, name)
    config = await client.read_blob(reference.repository, described, max_bytes=MAX_CONFIG_BYTES)
    return read_image(fetched.data, fetched.media_type, config, name, platform)


async def publish_image(
    client: RegistryClient,
    base: Reference,
    shards: Sequence[ShardSource],
    target: Repository,
    tag: str,
    *,
    previous: Reference | None = None,
    platform: Platform | None = None,
) -> PublishedImage:
    """Push the base image with a layer for each shard; returns it by its digest.

    The same base and shards give the same digest, in whatever order the shards are. Of shards that
    ``previous`` has, an image of the target's repository, nothing is read. Everything can be done
    again after a failure: what the registry has is not sent twice. The tag is written last.

    Raises:
        UserError: when there is no shard, or when shards are of different models or tiers.
        UnusableImage: when there are too many layers, or the base is no image for the platform.
        CorruptShard: when a shard's files are not those of its manifest.
        RegistryError: as RegistryClient.
    """
    ordered = _ordered(shards)
    its_base = await pull_image(client, base, platform or Platform())
    known = await _known(client, previous, target)
    appended, blobs = [], []
    for source in ordered:
        named = created_by(source.manifest), comment(source.manifest)
        found = known.get(named)
        # A registry whose garbage was collected by hand may have lost it.
        if found is None or not await client.has_blob(target, found[0]):
            hashed = await hash_layer(shard_layer(source))
            blobs.append(hashed)
            found = hashed.digest, hashed.size
        appended.append(AppendedLayer(*found, *named))
    image = append_layers(
        its_base,
        appended,
        annotations=image_annotations(
            [source.manifest for source in ordered], f"{base.repository}@{its_base.digest}"
        ),
        created=max(source.manifest.created_at for source in ordered),
    )
    config = SmallBlob(image.config, digest_of(image.config))
    sent = await _upload_all(client, base.repository, its_base, target, [*blobs, config])
    digest = await client.put_manifest(target, image.manifest, image.media_type, tag=tag)
    return PublishedImage(Reference(target, tag, digest), sent, len(ordered) - len(blobs))


def _ordered(shards: Sequence[ShardSource]) -> list[ShardSource]:
    """Return the shards in the order of their layers: the oldest first, then by id."""
    if not shards:
        raise UserError("an image without a shard serves nothing: expected one or more")
    parts = {(source.manifest.model_id, source.manifest.tier) for source in shards}
    if len(parts) > 1:
        listed = ", ".join(" ".join(part) for part in sorted(parts))
        raise UserError(f"an image has shards of one model and one tier, not of {listed}")
    ids = [source.manifest.shard_id for source in shards]
    if len(set(ids)) < len(ids):
        raise UserError("an image cannot have the same shard twice")
    return sorted(shards, key=lambda s: (s.manifest.bucket_start, s.manifest.shard_id))


async def _known(
    client: RegistryClient, previous: Reference | None, target: Repository
) -> dict[tuple[str, str], tuple[str, int]]:
    if previous is None or previous.repository != target:
        return {}
    try:
        return dict(known_layers(await pull_image(client, previous)))
    except (ImageNotFound, UnusableImage):
        return {}  # it only saves work


async def _upload_all(
    client: RegistryClient,
    source: Repository,
    base: Image,
    target: Repository,
    blobs: Sequence[Blob],
) -> int:
    """Upload what the target does not have; returns the number of bytes that were sent."""
    limit = asyncio.Semaphore(CONCURRENT_BLOBS)

    async def upload(blob: Blob, mount_from: Repository | None) -> int:
        async with limit:
            return await client.upload(target, blob, mount_from=mount_from)

    work: list[tuple[Blob, Repository | None]] = [(blob, None) for blob in blobs]
    if source != target:
        copied = {layer.digest: layer for layer in base.layers}
        work += [(_CopiedBlob(client, source, layer), source) for layer in copied.values()]
    tasks = [asyncio.ensure_future(upload(blob, mount)) for blob, mount in work]
    try:
        return sum(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
