"""IndexBuild documents for tests."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from typing import Any

from shashin.builds.document import IndexBuild, parse_build

NOON = datetime(2026, 11, 27, 12, tzinfo=UTC)
"""A moment after every window here."""

DOCUMENT: dict[str, Any] = {
    "apiVersion": "shashin.dev/v1alpha1",
    "kind": "IndexBuild",
    "metadata": {"name": "demo-daily"},
    "spec": {
        "model": "demo-v1",
        "dimensions": 128,
        "tier": "daily",
        "window": {"start": "2026-11-26T00:00:00Z", "end": "2026-11-27T00:00:00Z"},
        "source": {"shards": ["demo-v1.hourly.p0000.000000000000-000000000412"]},
    },
}

BUILT_IN = [{"name": name} for name in ("select", "fetch", "embed", "build", "publish")]


def changed(**spec: Any) -> dict[str, Any]:
    """Return the document with other fields in its spec."""
    document = copy.deepcopy(DOCUMENT)
    document["spec"] |= spec
    return document


def made_build(*commands: dict[str, Any], after: str = "select", **spec: Any) -> IndexBuild:
    """Return a build with steps of the user's own after a built-in step."""
    pipeline: list[dict[str, Any]] = []
    for step in BUILT_IN:
        pipeline += [step, *(commands if step["name"] == after else ())]
    return parse_build(changed(pipeline=pipeline, **spec), origin="a test")
