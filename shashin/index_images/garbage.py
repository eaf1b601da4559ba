"""Which images of shards may be deleted: the rule, and its executor.

The rule: an image is deleted only if every tag of it is one that ``image_tag`` gave, no serving and no
pod names its digest, and its newest tag is older than the grace period. So an image that was pushed and
is not yet rolled out stays, and so does whatever somebody else tagged. The registry's own garbage
collection frees the layers that no other image has.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from shashin.errors import ImageNotFound, UserError
from shashin.index_images.annotations import pushed_at
from shashin.oci.references import Reference, Repository, is_digest
from shashin.oci.registry import RegistryClient

MIN_GRACE_SECONDS = 3600.0
"""Longer than a rollout takes: an image is pushed before anything names it."""


@dataclass(frozen=True, order=True)
class StoredImage:
    """An image in its repository."""

    digest: str
    tags: tuple[str, ...]
    """All of its tags."""


def unused_images(
    images: Iterable[StoredImage], used: Collection[str], *, now: float, grace_seconds: float
) -> list[StoredImage]:
    """Return the images that may be deleted, sorted by digest.

    ``used`` has the digests that servings and pods name, and of images that may be rolled back to;
    ``now`` is in Unix seconds.

    Raises:
        UserError: when ``used`` has something else than digests, for nothing would be in use then, or
            when the grace period is below an hour.
    """
    if grace_seconds < MIN_GRACE_SECONDS:
        raise UserError(
            f"images would be deleted {grace_seconds:.0f} s after their push: expected at least "
            f"{MIN_GRACE_SECONDS:.0f} s, since they are pushed before anything names them"
        )
    wrong = sorted(name for name in used if not is_digest(name))
    if wrong:
        raise UserError(f"{wrong[0]!r} is not the digest of an image: expected sha256:...")
    return sorted(
        image
        for image in images
        if image.digest not in used and _is_older(image.tags, now - grace_seconds)
    )


def _is_older(tags: Collection[str], than: float) -> bool:
    times = [pushed_at(tag) for tag in tags]
    return bool(times) and all(at is not None and at < than for at in times)


async def stored_images(client: RegistryClient, repository: Repository) -> list[StoredImage]:
    """Return all tagged images of a repository: one request per tag.

    Raises:
        RegistryError: as RegistryClient.
    """
    tags: Mapping[str, list[str]] = defaultdict(list)
    for tag in await client.tags(repository):
        try:
            tags[(await client.manifest(Reference(repository, tag))).digest].append(tag)
        except ImageNotFound:
            continue  # deleted since it was listed
    return [StoredImage(digest, tuple(its)) for digest, its in sorted(tags.items())]


async def delete_unused(
    client: RegistryClient,
    repository: Repository,
    used: Collection[str],
    *,
    now: float,
    grace_seconds: float,
) -> list[StoredImage]:
    """Delete the images that the rule permits to; returns those that were there.

    Raises:
        UserError: as ``unused_images``.
        RegistryError: as RegistryClient; RegistryDenied when the registry deletes nothing at all.
    """
    images = await stored_images(client, repository)
    return [
        image
        for image in unused_images(images, used, now=now, grace_seconds=grace_seconds)
        if await client.delete_manifest(repository, image.digest)
    ]
