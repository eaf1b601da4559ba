"""Whether an object on the server is what was applied. Pure."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from shashin.kube.resource import KubeObject

APPLIED_ANNOTATION = "shashin.dev/applied"
"""A hash of what was applied, by which a field that is no longer wanted is noticed."""


def stamped(wanted: KubeObject) -> KubeObject:
    """Return an object with the annotation that ``differs`` looks at."""
    text = json.dumps(wanted, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    metadata = wanted["metadata"]
    annotations = {**metadata.get("annotations", {}), APPLIED_ANNOTATION: digest}
    return {**wanted, "metadata": {**metadata, "annotations": annotations}}


def differs(wanted: KubeObject, found: KubeObject | None) -> bool:
    """Return whether a stamped object has to be applied.

    It has if the object is missing, was applied with other content, or if somebody changed one of its
    fields. What the server or others have added does not count.
    """
    return found is None or not _contains(found, wanted)


def _contains(found: Any, wanted: Any) -> bool:
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(
            _contains(found.get(name), value) for name, value in wanted.items()
        )
    if isinstance(wanted, list):
        return (
            isinstance(found, list)
            and len(found) == len(wanted)
            and all(_contains(one, other) for one, other in zip(found, wanted, strict=True))
        )
    # The server leaves out what is empty.
    return bool(found == wanted) or (found is None and not wanted)
