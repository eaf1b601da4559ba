"""Which steps a change of the document affects."""

from __future__ import annotations

from typing import Any

import pytest

from shashin.builds.document import BUILT_IN_STEPS, IndexBuild, parse_build
from shashin.builds.fingerprints import fingerprints
from tests.support.made_builds import DOCUMENT, made_build

REPOSITORY = "file:///shards"
CHECK = {"name": "check", "command": ["true"]}


def first_affected(
    before: IndexBuild, after: IndexBuild, repository: str = REPOSITORY
) -> str | None:
    pairs = zip(fingerprints(before, REPOSITORY), fingerprints(after, repository), strict=True)
    changed = [one != other for one, other in pairs]
    assert changed == sorted(changed), "all that follow a changed step are affected, too"
    names = [step.name for step in after.spec.pipeline]
    return names[changed.index(True)] if True in changed else None


@pytest.mark.parametrize(
    ("spec", "first"),
    [
        ({}, None),
        ({"tier": "monthly"}, "select"),
        ({"dimensions": 64}, "select"),
        ({"window": {"start": "2026-11-26T00:00:00Z", "end": "2026-11-26T01:00:00Z"}}, "select"),
        ({"source": {"shards": ["demo-v1.hourly.other"]}}, "select"),
        ({"index": {"kind": "flat-f16"}}, "build"),
        ({"minimumRecall": 0.5}, "build"),
    ],
)
def test_a_change_affects_the_first_step_that_reads_it(
    spec: dict[str, Any], first: str | None
) -> None:
    assert first_affected(made_build(), made_build(**spec)) == first


def test_a_step_of_the_users_own_may_read_everything() -> None:
    assert first_affected(made_build(CHECK), made_build(CHECK, minimumRecall=0.5)) == "check"


@pytest.mark.parametrize(
    ("definition", "first"),
    [
        ({"command": ["false"]}, "check"),
        ({"image": "example/check:2"}, "check"),
        ({"timeoutSeconds": 60}, None),
    ],
)
def test_a_change_of_a_step_affects_it_and_those_after_it(
    definition: dict[str, Any], first: str | None
) -> None:
    assert first_affected(made_build(CHECK), made_build({**CHECK, **definition})) == first


def test_another_repository_affects_every_step() -> None:
    assert first_affected(made_build(), made_build(), "file:///other") == BUILT_IN_STEPS[0]


def test_labels_affect_nothing() -> None:
    labelled = {**DOCUMENT, "metadata": {**DOCUMENT["metadata"], "labels": {"team": "search"}}}
    assert first_affected(made_build(), parse_build(labelled, origin="a test")) is None
