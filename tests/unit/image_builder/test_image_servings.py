"""IndexServings of images: written, and read again by whoever comes next."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from services.image_builder.image_garbage import used_digests
from services.image_builder.image_servings import (
    CONTENT_ANNOTATION,
    content_of,
    served_images,
    serving_document,
)
from shashin.errors import UserError
from shashin.oci.references import Reference, parse_reference, parse_repository
from shashin.offsets.ranges import OffsetRange
from shashin.servings.document import parse_serving
from shashin.shards.format.manifest import Manifest
from shashin.tiers import DAILY, HOURLY
from tests.support.made_shards import DIMENSIONS, MODEL, listings, open_shard, write

SHARDS = parse_repository("registry.example/shards")
IMAGE = Reference(SHARDS, "hourly-0-000000000001", f"sha256:{'1' * 64}")
BASE = Reference(parse_repository("registry.example/server"), digest=f"sha256:{'2' * 64}")


@pytest.fixture
def manifests(tmp_path: Path) -> list[Manifest]:
    return [write(open_shard(listings(n, n + 3), from_offset=n), tmp_path / str(n)) for n in (0, 3)]


def stored(document: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    """Return a document as the API server has it."""
    found = copy.deepcopy(document)
    found["metadata"] |= {
        "uid": "its-uid",
        "resourceVersion": "42",
        "namespace": "shop",
        **metadata,
    }
    found["spec"].setdefault("replicas", 2)
    return found


def test_what_is_written_is_a_serving_and_is_read_again(manifests: list[Manifest]) -> None:
    content = content_of(BASE, manifests)
    document = serving_document(7, manifests, IMAGE, content, replicas=3)
    parsed = parse_serving(
        {**document, "metadata": {k: document["metadata"][k] for k in ("name", "labels")}},
        origin="test",
    )
    assert parsed.spec.replicas == 3
    assert parsed.spec.dimensions == DIMENSIONS
    assert [r for m in manifests for r in m.source_ranges] == list(parsed.ranges)
    (found,) = served_images([stored(document)], MODEL, HOURLY).values()
    assert (found.name, found.uid, found.resource_version) == (f"{MODEL}-hourly-7", "its-uid", "42")
    assert found.image.number == 7
    assert {s.shard_id: s.rows for s in found.image.shards} == {m.shard_id: 3 for m in manifests}
    assert str(found.reference) == f"{SHARDS}@{IMAGE.digest}"
    assert found.content == content


def test_it_is_applied_over_what_was_read_and_leaves_replicas_alone(
    manifests: list[Manifest],
) -> None:
    first = serving_document(0, manifests, IMAGE, "content", replicas=2)
    (before,) = served_images([stored(first)], MODEL, HOURLY).values()
    again = serving_document(0, manifests, IMAGE, "content", before=before)
    assert again["metadata"]["resourceVersion"] == "42"
    assert again["metadata"]["uid"] == "its-uid"
    assert "replicas" not in again["spec"]


def test_servings_of_others_are_left_alone(manifests: list[Manifest]) -> None:
    own = stored(serving_document(0, manifests, IMAGE, "content"))
    by_hand = stored(own, name="by-hand")
    other_number = stored(own, labels={"shashin.dev/number": "1"})
    no_number = stored(own, labels={})
    for found in (by_hand, other_number, no_number):
        assert served_images([found], MODEL, HOURLY) == {}
    assert served_images([own], MODEL, DAILY) == {}
    assert served_images([own], "another-model", HOURLY) == {}


def test_a_serving_that_cannot_be_read_is_named(manifests: list[Manifest]) -> None:
    own = stored(serving_document(0, manifests, IMAGE, "content"))
    own["spec"]["fromTheFuture"] = True
    with pytest.raises(UserError, match=f"IndexServing {MODEL}-hourly-0"):
        served_images([own], MODEL, HOURLY)


@pytest.mark.parametrize("edit", ["image", "annotation"])
def test_an_edited_serving_does_not_pass_for_what_was_published(
    manifests: list[Manifest], edit: str
) -> None:
    own = stored(serving_document(0, manifests, IMAGE, "content"))
    if edit == "image":
        own["spec"]["image"] = f"{SHARDS}@sha256:{'3' * 64}"
    else:
        del own["metadata"]["annotations"][CONTENT_ANNOTATION]
    (found,) = served_images([own], MODEL, HOURLY).values()
    assert found.content == ""


def test_content_is_that_of_the_base_and_of_every_shard(manifests: list[Manifest]) -> None:
    content = content_of(BASE, manifests)
    assert content_of(BASE, reversed(manifests)) == content
    sealed_again = replace(manifests[1], created_at=1.0)
    others = [
        content_of(BASE, manifests[:1]),
        content_of(BASE, [manifests[0], sealed_again]),
        content_of(BASE.at(f"sha256:{'4' * 64}"), manifests),
    ]
    assert len({content, *others}) == 4


def test_ranges_that_touch_are_one(manifests: list[Manifest]) -> None:
    touching = replace(manifests[0], source_ranges=(OffsetRange(0, 0, 3), OffsetRange(0, 3, 9)))
    (shard,) = serving_document(0, [touching], IMAGE, "content")["spec"]["shards"]
    assert shard["ranges"] == [{"partition": 0, "fromOffset": 0, "toOffset": 9}]


def test_images_of_servings_and_of_pods_are_in_use() -> None:
    digests = [f"sha256:{n:064x}" for n in range(6)]
    servings: list[dict[str, Any]] = [{"spec": {"image": f"{SHARDS}@{digests[0]}"}}, {"spec": {}}]
    pods: list[dict[str, Any]] = [
        {
            "spec": {
                "containers": [{"image": f"{SHARDS}@{digests[1]}"}, {"image": "pause:3.10"}],
                "initContainers": [{"image": f"{SHARDS}:v1@{digests[2]}"}],
            },
            "status": {
                "containerStatuses": [{"imageID": f"{SHARDS}@{digests[3]}"}],
                "initContainerStatuses": [{"imageID": f"docker-pullable://{SHARDS}@{digests[4]}"}],
            },
        },
        {"spec": {"containers": []}},
    ]
    assert used_digests(servings, pods) == set(digests[:5])
    assert parse_reference(f"{SHARDS}@{digests[5]}").digest not in used_digests(servings, pods)
