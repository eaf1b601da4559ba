"""IndexServing documents: what is wrong is named with its path, and the schema says the same."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from shashin.errors import UserError
from shashin.offsets.ranges import OffsetRange
from shashin.servings.document import IndexServing, parse_serving

SHARD = "demo-v1.daily.p0000-p0003.4.0123456789abcdef"
DOCUMENT: dict[str, Any] = {
    "apiVersion": "shashin.dev/v1alpha1",
    "kind": "IndexServing",
    "metadata": {"name": "demo-v1-daily-0"},
    "spec": {
        "model": "demo-v1",
        "dimensions": 128,
        "tier": "daily",
        "image": "registry.example/shashin/index@sha256:" + "0" * 64,
        "shards": [
            {
                "id": SHARD,
                "rows": 7,
                "ranges": [{"partition": 3, "fromOffset": 5, "toOffset": 12}],
            }
        ],
    },
}


def changed(path: str, value: object) -> dict[str, Any]:
    document = copy.deepcopy(DOCUMENT)
    *parents, last = path.split(".")
    at: Any = document
    for parent in parents:
        at = at[int(parent)] if parent.isdigit() else at[parent]
    at[int(last) if last.isdigit() else last] = value
    return document


def parse(document: object) -> IndexServing:
    return parse_serving(document, origin="serving.yaml")


def test_a_document_is_read_with_its_defaults_and_ranges() -> None:
    serving = parse(DOCUMENT)
    assert serving.ranges == [OffsetRange(3, 5, 12)]
    assert serving.spec.replicas == 2
    assert parse(serving.model_dump(mode="json", by_alias=True)) == serving


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        ("spec.image", "registry.example/shashin/index:latest", "expected REPOSITORY@sha256:"),
        ("spec.tier", "dayly", "did you mean daily?"),
        ("spec.replicas", -1, "spec.replicas: input should be greater than or equal to 0"),
        ("spec.replicas", "2", "spec.replicas"),
        ("spec.model", "other", "vectors of two models never mix"),
        ("spec.dimensions", 0, "spec.dimensions"),
        ("spec.shards", [], "spec.shards"),
        ("spec.shards", DOCUMENT["spec"]["shards"] * 2, "is listed more than once"),
        ("spec.shards.0.ranges.0.toOffset", 5, "expected an end after the start"),
        ("spec.shards.0.range", [], "did you mean ranges?"),
        ("spec.resources", {"requests": {"memory": "1 GB"}}, "spec.resources.requests.memory"),
        ("metadata.name", "Demo", "cannot be the name of a serving"),
        ("kind", "IndexBuild", "'IndexBuild' is not read here: expected IndexServing"),
        ("apiVersion", "shashin.dev/v1", "expected shashin.dev/v1alpha1"),
    ],
)
def test_what_is_wrong_is_named(path: str, value: object, problem: str) -> None:
    with pytest.raises(UserError) as refused:
        parse(changed(path, value))
    assert str(refused.value.message).startswith("serving.yaml: ")
    assert problem in refused.value.message


def test_what_is_no_mapping_is_refused_with_the_fields_of_one() -> None:
    with pytest.raises(
        UserError, match="is not an IndexServing: expected the fields apiVersion"
    ) as e:
        parse([])
    assert "spec" in e.value.message
