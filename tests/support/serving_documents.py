"""An IndexServing document, and what can be wrong with one."""

from __future__ import annotations

import copy
from typing import Any

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

WRONG: list[tuple[str, object, str]] = [
    ("spec.image", "registry.example/shashin/index:latest", "expected REPOSITORY@sha256:"),
    ("spec.tier", "dayly", "did you mean daily?"),
    ("spec.replicas", -1, "spec.replicas: input should be greater than or equal to 0"),
    ("spec.replicas", "2", "spec.replicas"),
    ("spec.model", "other", "vectors of two models never mix"),
    ("spec.dimensions", 0, "spec.dimensions"),
    ("spec.shards", [], "spec.shards"),
    ("spec.shards.0.ranges.0.toOffset", 5, "expected an end after the start"),
    ("spec.resources", {"requests": {"memory": "1 GB"}}, "spec.resources.requests.memory"),
    ("metadata.name", "Demo", "cannot be the name of a serving"),
]
"""Path, value, and what is said of it: refused by the API server as well."""


def changed(path: str, value: object) -> dict[str, Any]:
    """Return the document with another value at a path."""
    document = copy.deepcopy(DOCUMENT)
    *parents, last = path.split(".")
    at: Any = document
    for parent in parents:
        at = at[int(parent)] if parent.isdigit() else at[parent]
    at[int(last) if last.isdigit() else last] = value
    return document
