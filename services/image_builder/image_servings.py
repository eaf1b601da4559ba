"""IndexServings as the image builder reads and writes them. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from services.image_builder.image_plan import serving_name
from shashin.discovery.endpoint_slices import MODEL_LABEL, TIER_LABEL, model_label
from shashin.index_images.packing import PackedImage, PackedShard
from shashin.index_images.shard_layer import manifest_digest
from shashin.kube.resource import KubeObject
from shashin.kube.resources import INDEX_SERVINGS
from shashin.oci.references import Reference, parse_reference
from shashin.offsets.ranges import OffsetRange, merge_ranges
from shashin.servings.document import KIND, parse_serving
from shashin.shards.format.manifest import Manifest

MANAGER: Final = "shashin-image-builder"
"""Owns the fields that the image builder applies."""

NUMBER_LABEL: Final = "shashin.dev/number"
"""Of the image within its tier."""
CONTENT_ANNOTATION: Final = "shashin.dev/content"
"""A hash of all that the image is made of, with its digest, so that nothing is published twice."""
RELIED_ON_ANNOTATION: Final = "shashin.dev/relied-on"
"""Changed before another serving drops shards since this one has them: whoever meant to take them away
from this one as well has then read an older version."""
FORCE_DELETE_ANNOTATION: Final = "shashin.dev/force-delete"
"""Permits to delete a serving, though no other may have its shards: the tier no longer wants them."""


@dataclass(frozen=True)
class ServedImage:
    """An IndexServing of the image builder's own."""

    name: str
    uid: str
    resource_version: str
    image: PackedImage
    reference: Reference
    content: str
    """What ``content_of`` gave for its image; empty if that is not known."""
    ranges: Mapping[str, Sequence[OffsetRange]]
    """Of each shard."""

    @property
    def shard_ids(self) -> set[str]:
        """The shards in it."""
        return {shard.shard_id for shard in self.image.shards}


def served_images(found: Iterable[KubeObject], model_id: str, tier: str) -> dict[int, ServedImage]:
    """Return the images of a tier, by number.

    IndexServings of other models and tiers, and those that somebody else named, are left out.

    Raises:
        UserError: when one of the tier's own is not as this version writes and reads it.
    """
    images = {}
    for one in found:
        metadata = one["metadata"]
        number = (metadata.get("labels") or {}).get(NUMBER_LABEL, "")
        if not (number.isascii() and number.isdigit() and len(number) < 10):
            continue
        if metadata["name"] != serving_name(model_id, tier, int(number)):
            continue
        images[int(number)] = _served_image(one, int(number))
    return images


def _served_image(found: KubeObject, number: int) -> ServedImage:
    metadata = found["metadata"]
    document = {
        "apiVersion": found.get("apiVersion"),
        "kind": found.get("kind"),
        "metadata": {"name": metadata["name"], "labels": metadata.get("labels") or {}},
        "spec": found.get("spec"),
    }
    serving = parse_serving(document, origin=f"IndexServing {metadata['name']}")
    shards = tuple(sorted(PackedShard(shard.id, shard.rows) for shard in serving.spec.shards))
    reference = parse_reference(serving.spec.image)
    content, _, of_digest = str(
        (metadata.get("annotations") or {}).get(CONTENT_ANNOTATION, "")
    ).partition("/")
    return ServedImage(
        metadata["name"],
        str(metadata.get("uid", "")),
        str(metadata.get("resourceVersion", "")),
        PackedImage(number, shards),
        reference,
        # Whoever changes the image changes no annotation.
        content if of_digest == reference.digest else "",
        {shard.id: [r.offsets for r in shard.ranges] for shard in serving.spec.shards},
    )


def content_of(base: Reference, manifests: Iterable[Manifest]) -> str:
    """Return a hash of what an image consists of: its base, by digest, and its shards' bytes."""
    parts = [str(base.repository), str(base.digest), *sorted(map(manifest_digest, manifests))]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def serving_document(
    number: int,
    manifests: Sequence[Manifest],
    image: Reference,
    content: str,
    *,
    before: ServedImage | None = None,
    replicas: int | None = None,
) -> KubeObject:
    """Return the IndexServing of an image with these shards, which are one or more of one tier.

    It can be applied only over the version that was read ``before``. ``replicas`` are given when it is
    created, and never again.
    """
    first = manifests[0]
    model = model_label(first.model_id)
    labels = {TIER_LABEL: first.tier, NUMBER_LABEL: str(number)}
    spec: dict[str, Any] = {
        "model": first.model_id,
        "dimensions": first.dimensions,
        "tier": first.tier,
        "image": f"{image.repository}@{image.digest}",
        "shards": [_shard(one) for one in sorted(manifests, key=lambda m: m.shard_id)],
    }
    version: Mapping[str, str] = {}
    if before is not None:
        version = {"uid": before.uid, "resourceVersion": before.resource_version}
    return {
        "apiVersion": INDEX_SERVINGS.api_version,
        "kind": KIND,
        "metadata": {
            "name": serving_name(first.model_id, first.tier, number),
            "labels": {**labels, **({MODEL_LABEL: model} if model else {})},
            "annotations": {CONTENT_ANNOTATION: f"{content}/{image.digest}"},
            **version,
        },
        "spec": {**spec, **({} if replicas is None else {"replicas": replicas})},
    }


def _shard(manifest: Manifest) -> dict[str, Any]:
    return {
        "id": manifest.shard_id,
        "rows": manifest.rows,
        "ranges": [
            {"partition": r.partition, "fromOffset": r.from_offset, "toOffset": r.to_offset}
            for r in merge_ranges(manifest.source_ranges)
        ],
    }
