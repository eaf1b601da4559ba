"""What an image says of its shards: annotations, the history of its layers, and its tags. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from shashin.errors import UserError
from shashin.index_images.shard_layer import manifest_digest
from shashin.oci.image import Image
from shashin.offsets.ranges import merge_ranges
from shashin.shards.format.manifest import Manifest
from shashin.tiers import SEALED_TIERS

MODEL = "dev.shashin.model"
TIER = "dev.shashin.tier"
SHARDS = "dev.shashin.shards"
SOURCE_RANGES = "dev.shashin.source-ranges"
"""``PARTITION:FROM-TO,...`` of all shards, merged; missing if it would be longer than 256 KiB."""
SOURCE_RANGE_COUNT = "dev.shashin.source-range-count"

MAX_RANGES_LENGTH = 256 * 1024
"""Characters: registries take manifests up to 4 MiB."""

_CREATED_BY = "shashin shard "
_COMMENT = "shashin.layer/1, manifest sha256:"
"""With a version that rises when the same shard becomes another layer."""
_TAG = re.compile(rf"({'|'.join(SEALED_TIERS)})-([0-9]+)-([0-9]{{12}})(-[0-9a-f]{{12}})?")
"""Tags of earlier versions end before the content."""


def image_annotations(manifests: Sequence[Manifest], base: str) -> dict[str, str]:
    """Return the annotations of the image with these shards, which are one or more of one tier.

    ``base`` is the reference of the base image with its digest.
    """
    first = manifests[0]
    merged = merge_ranges([r for manifest in manifests for r in manifest.source_ranges])
    ranges = ",".join(f"{r.partition}:{r.from_offset}-{r.to_offset}" for r in merged)
    name, _, digest = base.partition("@")
    annotations = {
        "org.opencontainers.image.title": "shashin-index-server",
        "org.opencontainers.image.description": (
            f"{len(manifests)} shards of the {first.tier} tier of model {first.model_id}"
        ),
        "org.opencontainers.image.base.name": name,
        "org.opencontainers.image.base.digest": digest,
        MODEL: first.model_id,
        TIER: first.tier,
        SHARDS: ",".join(manifest.shard_id for manifest in manifests),
        SOURCE_RANGE_COUNT: str(len(merged)),
    }
    if len(ranges) <= MAX_RANGES_LENGTH:
        annotations[SOURCE_RANGES] = ranges
    return annotations


def created_by(manifest: Manifest) -> str:
    """Return what a layer's history says that it has."""
    return f"{_CREATED_BY}{manifest.shard_id}"


def comment(manifest: Manifest) -> str:
    """Return what a layer's history says of the shard's content."""
    return f"{_COMMENT}{manifest_digest(manifest)}"


def known_layers(image: Image) -> Mapping[tuple[str, str], tuple[str, int]]:
    """Return digest and size of the layers that shards have in an image.

    By what ``created_by`` and ``comment`` give for their manifests. Only layers that are not
    compressed count, which are all that Shashin appends.
    """
    return {
        (by, said): (layer.digest, layer.size)
        for layer, diff_id, (by, said) in zip(
            image.layers, image.diff_ids, image.created_by, strict=True
        )
        if by.startswith(_CREATED_BY) and said.startswith(_COMMENT) and layer.digest == diff_id
    }


def image_tag(tier: str, number: int, content: str, at: float) -> str:
    """Return the tag of an image: its tier and number, when it was pushed (Unix seconds), its content.

    A registry does not say when an image was pushed, so its tag does. ``content`` is a hash in hex of
    what the image consists of: no other image that is pushed in the same second may take the tag away,
    since an image without one is whatever the registry's garbage collection makes of it.
    """
    tag = f"{tier}-{number}-{int(at):012d}-{content[:12]}"
    if _TAG.fullmatch(tag) is None:
        raise UserError(f"{tag!r} cannot be the tag of an image: expected a sealed tier")
    return tag


def pushed_at(tag: str) -> float | None:
    """Return the time in a tag that ``image_tag`` gave, in Unix seconds; None for any other."""
    found = _TAG.fullmatch(tag)
    return float(found[3]) if found else None
