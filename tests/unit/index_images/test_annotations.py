from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from shashin.index_images.annotations import (
    MAX_RANGES_LENGTH,
    MODEL,
    SHARDS,
    SOURCE_RANGE_COUNT,
    SOURCE_RANGES,
    TIER,
    comment,
    created_by,
    image_annotations,
    known_layers,
)
from shashin.oci.descriptor import MAX_MANIFEST_BYTES, OCI_MANIFEST
from shashin.oci.image import AppendedLayer, append_layers, read_image
from shashin.oci.references import digest_of
from shashin.offsets.ranges import OffsetRange
from shashin.shards.format.manifest import Manifest
from tests.support.made_images import config_document
from tests.support.made_shards import listings, open_shard, write

BASE = f"r.example/base@{digest_of(b'base')}"


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return write(open_shard(listings(0, 3)), tmp_path)


def base_image_data() -> tuple[bytes, bytes]:
    config = json.dumps(config_document([digest_of(b"tar")])).encode()
    document = {
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": "c", "digest": digest_of(config), "size": len(config)},
        "layers": [{"mediaType": "l", "digest": digest_of(b"gz"), "size": 7}],
    }
    return json.dumps(document).encode(), config


def test_an_image_names_its_model_tier_shards_and_ranges(manifest: Manifest) -> None:
    later = replace(manifest, shard_id="later", source_ranges=(OffsetRange(0, 3, 9),))
    annotations = image_annotations([manifest, later], BASE)
    assert annotations[MODEL] == manifest.model_id
    assert annotations[TIER] == "hourly"
    assert annotations[SHARDS] == f"{manifest.shard_id},later"
    assert annotations[SOURCE_RANGES] == "0:0-9"
    assert annotations[SOURCE_RANGE_COUNT] == "1"
    assert annotations["org.opencontainers.image.base.name"] == "r.example/base"
    assert annotations["org.opencontainers.image.base.digest"] == digest_of(b"base")


def test_annotations_never_exceed_what_registries_take(manifest: Manifest) -> None:
    """100 shards with the longest ids and the most ranges that a serving may have."""
    shards = [
        replace(
            manifest,
            shard_id=f"{number:0512d}",
            source_ranges=tuple(
                OffsetRange(p, 10**15 + number * 10, 10**15 + number * 10 + 5) for p in range(4096)
            ),
        )
        for number in range(100)
    ]
    annotations = image_annotations(shards, BASE)
    assert SOURCE_RANGES not in annotations
    assert annotations[SOURCE_RANGE_COUNT] == "409600"
    assert sum(map(len, annotations.values())) < MAX_MANIFEST_BYTES / 4
    some = image_annotations(shards[:1], BASE)
    assert 0 < len(some[SOURCE_RANGES]) <= MAX_RANGES_LENGTH


def test_a_layer_is_known_again_only_with_the_same_manifest(manifest: Manifest) -> None:
    data, config = base_image_data()
    base = read_image(data, OCI_MANIFEST, config, "base")
    layer = AppendedLayer(digest_of(b"layer"), 77, created_by(manifest), comment(manifest))
    new = append_layers(base, [layer], annotations={}, created=1.0)
    known = known_layers(read_image(new.manifest, new.media_type, new.config, "new"))
    assert known == {(created_by(manifest), comment(manifest)): (layer.digest, 77)}
    changed = replace(manifest, created_at=manifest.created_at + 1)
    assert (created_by(changed), comment(changed)) not in known


def test_a_layer_that_is_compressed_is_not_known() -> None:
    data, config = base_image_data()
    document = json.loads(config)
    document["history"] = [
        {"created_by": "shashin shard a", "comment": "shashin.layer/1, manifest sha256:0"}
    ]
    image = read_image(data, OCI_MANIFEST, json.dumps(document).encode(), "base")
    assert known_layers(image) == {}
