"""What each step's output depends on, as a hash: a step whose hash has changed has to run again.

Pure. A step depends on its own definition, on the parts of the document that it may read, and on all
steps before it.
"""

from __future__ import annotations

import hashlib
import json

from shashin.builds.document import EMBED, FETCH, SELECT, IndexBuild, PipelineStep

_NOT_READ = {step: {"index", "minimumRecall"} for step in (SELECT, FETCH, EMBED)}
"""Fields of the spec that a built-in step does not read. A step of the user's may read them all."""


def fingerprints(build: IndexBuild, repository: str) -> list[tuple[str, str]]:
    """Return the name and the fingerprint of each step, in order."""
    spec = build.document()["spec"]
    pipeline = spec.pop("pipeline")
    found: list[tuple[str, str]] = []
    before = ""
    for step, definition in zip(build.spec.pipeline, pipeline, strict=True):
        before = _hash(
            {
                "before": before,
                "repository": repository,
                "spec": {k: v for k, v in spec.items() if k not in _unread(step)},
                # A longer time for a step changes nothing in what it makes.
                "step": {k: v for k, v in definition.items() if k != "timeoutSeconds"},
            }
        )
        found.append((step.name, before))
    return found


def _unread(step: PipelineStep) -> set[str]:
    return _NOT_READ.get(step.name, set()) if step.built_in else set()


def _hash(content: object) -> str:
    text = json.dumps(content, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", errors="surrogatepass")).hexdigest()
