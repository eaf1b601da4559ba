"""IndexBuilds as the command reads them; the API itself is in tests/cluster/test_builds.py."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from shashin.builds.document import BUILT_IN_STEPS
from shashin.builds.kubernetes import namespace_of, recorded_of
from shashin.builds.resource import build_of, object_of, status_of
from shashin.builds.resource_status import IndexBuildStatus
from shashin.builds.step_reports import Progress
from shashin.errors import UserError
from tests.support.build_objects import build_object
from tests.support.made_builds import NOON, made_build


def test_an_object_has_the_document_that_it_was_made_of() -> None:
    build = made_build(minimumRecall=0.9)
    assert build_of(build_object(build)) == build
    assert object_of(build)["apiVersion"] == "shashin.dev/v1alpha1"


def test_a_build_that_the_controller_has_not_seen_is_pending_with_all_of_its_steps() -> None:
    status = recorded_of(build_object(made_build())).status
    assert (status.phase, status.attempts) == ("Pending", 0)
    assert [(step.name, step.phase) for step in status.steps] == [
        (name, "Pending") for name in BUILT_IN_STEPS
    ]
    assert status.created == NOON


def test_the_status_of_an_object_is_shown_like_that_of_a_record() -> None:
    found = build_object(made_build())
    found["status"] = {
        "phase": "Running",
        "attempts": 2,
        "startTime": "2026-11-27T12:10:00Z",
        "steps": [
            {
                "name": "select",
                "phase": "Succeeded",
                "attempt": 1,
                "startTime": "2026-11-27T12:01:00Z",
                "completionTime": "2026-11-27T12:01:30Z",
                "exitCode": 0,
                "done": 3,
                "total": 3,
                "unit": "shards",
            },
            {"name": "fetch", "phase": "Running", "attempt": 2},
        ],
    }
    status = recorded_of(found).status
    select, fetch = status.steps
    assert (select.seconds, select.exit_code, select.progress) == (
        30.0,
        0,
        Progress(3, 3, "shards"),
    )
    assert status.kept(select)
    assert status.running_step == fetch
    assert status.started == datetime(2026, 11, 27, 12, 10, tzinfo=UTC)


def test_a_status_that_a_later_version_wrote_reads_as_that_of_a_new_build() -> None:
    assert status_of({"metadata": {}, "status": {"phase": "Paused"}}) == IndexBuildStatus()


@pytest.mark.parametrize(
    ("uri", "namespace"), [("kubernetes:///", ""), ("kubernetes:///shop-1", "shop-1")]
)
def test_a_uri_names_a_namespace_or_the_pods_own(uri: str, namespace: str) -> None:
    assert namespace_of(uri) == namespace


@pytest.mark.parametrize(
    "uri", ["kubernetes://shop", "kubernetes:///Shop", "kubernetes:///a/b", "shop", ""]
)
def test_what_is_no_uri_of_a_namespace_is_refused_with_what_is_one(uri: str) -> None:
    with pytest.raises(UserError, match="expected kubernetes:///NAMESPACE, or kubernetes:///"):
        namespace_of(uri)
