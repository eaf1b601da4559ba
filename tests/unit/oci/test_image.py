from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shashin.errors import UnusableImage
from shashin.oci.descriptor import DOCKER_LAYER, DOCKER_MANIFEST, OCI_INDEX, OCI_LAYER, OCI_MANIFEST
from shashin.oci.image import (
    AppendedLayer,
    Image,
    Platform,
    append_layers,
    choose_platform,
    read_image,
)
from shashin.oci.references import digest_of
from tests.support.made_images import config_document

NOTES = {"dev.shashin.tier": "hourly"}


def image(layers: int = 1, *, media_type: str = OCI_MANIFEST, **fields: Any) -> Image:
    digests = [digest_of(b"gz%d" % n) for n in range(layers)]
    document = config_document([digest_of(b"tar%d" % n) for n in range(layers)], **fields)
    config = json.dumps(document).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": {"mediaType": "c", "digest": digest_of(config), "size": len(config)},
        "layers": [{"mediaType": "l", "digest": digest, "size": 7} for digest in digests],
        "annotations": {"of.the.base": "kept"},
    }
    return read_image(json.dumps(manifest).encode(), media_type, config, "r.example/base")


def appended(count: int, first: int = 0) -> list[AppendedLayer]:
    return [
        AppendedLayer(digest_of(b"shard%d" % n), 10 + n, f"shard {n}", f"comment {n}")
        for n in range(first, first + count)
    ]


@given(st.integers(1, 5), st.integers(0, 5), st.sampled_from([OCI_MANIFEST, DOCKER_MANIFEST]))
def test_layers_are_appended_to_all_three_lists(base: int, count: int, media_type: str) -> None:
    before = image(base, media_type=media_type)
    layers = appended(count)
    new = append_layers(before, layers, annotations=NOTES, created=1_700_000_000.9)
    after = read_image(new.manifest, new.media_type, new.config, "r.example/new")
    assert after.media_type == media_type
    assert after.config.digest == digest_of(new.config)
    assert after.layers[:base] == before.layers
    assert [(layer.digest, layer.size) for layer in after.layers[base:]] == [
        (layer.digest, layer.size) for layer in layers
    ]
    ours = OCI_LAYER if media_type == OCI_MANIFEST else DOCKER_LAYER
    assert {layer.media_type for layer in after.layers[base:]} <= {ours}
    assert after.diff_ids == (*before.diff_ids, *(layer.digest for layer in layers))
    assert list(after.created_by[base:]) == [(la.created_by, la.comment) for la in layers]
    assert after.annotations.items() >= NOTES.items()


def test_the_same_input_gives_the_same_bytes() -> None:
    first, second = (
        append_layers(image(2), appended(3), annotations=dict(order), created=5.0)
        for order in (
            [("a", "1"), ("b", "2")],
            [("b", "2"), ("a", "1")],
        )
    )
    assert first == second
    assert first.digest == digest_of(second.manifest)


def test_what_the_base_says_of_itself_is_kept() -> None:
    new = append_layers(image(1), appended(1), annotations=NOTES, created=5.0)
    config = json.loads(new.config)
    assert config["config"] == {"User": "10001:10001", "Labels": {"vendor": "tests"}}
    assert config["variant.of.somebody"] == {"kept": True}
    assert json.loads(new.manifest)["annotations"] == {"of.the.base": "kept", **NOTES}


def test_annotations_of_an_image_in_dockers_format_are_labels() -> None:
    base = image(1, media_type=DOCKER_MANIFEST)
    new = append_layers(base, appended(1), annotations=NOTES, created=5.0)
    assert "annotations" not in json.loads(new.manifest)
    assert json.loads(new.config)["config"]["Labels"] == {"vendor": "tests", **NOTES}


def test_a_history_that_lacks_layers_is_filled_up() -> None:
    new = append_layers(image(3, history=[]), appended(1), annotations={}, created=5.0)
    after = read_image(new.manifest, new.media_type, new.config, "new")
    assert after.created_by[-1] == ("shard 0", "comment 0")


def test_no_image_has_more_than_100_layers() -> None:
    append_layers(image(40), appended(60), annotations={}, created=5.0)
    with pytest.raises(UnusableImage, match=r"61 layers .* with 40: the limit is 100"):
        append_layers(image(40), appended(61), annotations={}, created=5.0)


def test_no_manifest_is_larger_than_registries_take() -> None:
    with pytest.raises(UnusableImage, match="registries take 4194304"):
        append_layers(image(1), [], annotations={"a": "x" * 4194304}, created=5.0)


def test_a_platform_is_chosen_by_name() -> None:
    entries = [
        {
            "mediaType": OCI_MANIFEST,
            "digest": digest_of(architecture.encode()),
            "size": 1,
            "platform": {"os": "linux", "architecture": architecture},
        }
        for architecture in ("arm64", "amd64")
    ]
    index = json.dumps({"mediaType": OCI_INDEX, "manifests": [{}, *entries]}).encode()
    assert choose_platform(index, Platform(), "r/a") == digest_of(b"amd64")
    with pytest.raises(
        UnusableImage, match="no image for linux/s390x, only for linux/amd64, linux"
    ):
        choose_platform(index, Platform("linux", "s390x"), "r/a")


@pytest.mark.parametrize(
    ("manifest", "config", "why"),
    [
        (b"[]", b"{}", "is not a JSON object"),
        (b"\xff", b"{}", "is not JSON"),
        (b'{"mediaType": "application/x"}', b"{}", "type 'application/x'"),
        (b'{"config": {"digest": "md5:1"}}', b"{}", "expected a descriptor"),
        (b'{"config": @, "layers": [7]}', b"{}", "a layer of r/a"),
        (b'{"config": @, "layers": []}', b"{}", "has no diff_ids"),
        (b'{"config": @, "layers": []}', b'{"rootfs": {"diff_ids": ["a"]}}', "has no diff_ids"),
        (b'{"config": @, "layers": [@]}', b'{"rootfs": {"diff_ids": []}}', "1 layers and 0 diff"),
        (
            b'{"config": @, "layers": []}',
            b'{"os": "plan9", "architecture": "pdp11", "rootfs": {"diff_ids": []}}',
            "is for plan9/pdp11: expected an image for linux/amd64",
        ),
    ],
)
def test_what_is_no_usable_image_says_why(manifest: bytes, config: bytes, why: str) -> None:
    described = json.dumps({"mediaType": "a", "size": 1, "digest": digest_of(b"")}).encode()
    with pytest.raises(UnusableImage, match=why):
        read_image(manifest.replace(b"@", described), OCI_MANIFEST, config, "r/a", Platform())
