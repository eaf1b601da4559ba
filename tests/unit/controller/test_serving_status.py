"""What is said of an IndexServing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.controller.serving_objects import CONTAINER, SERVING_LABEL, wanted_objects
from services.controller.serving_status import (
    AVAILABLE,
    DUPLICATE,
    READY,
    REDUNDANT,
    Pods,
    Served,
    invalid_status,
    status_of,
)
from services.controller.settings import ControllerSettings
from shashin.documents.conditions import Condition
from shashin.servings.document import ServingStatus, parse_serving
from tests.support.serving_documents import DOCUMENT, changed

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
NEW = DOCUMENT["spec"]["image"]
OLD = "registry.example/shashin/index@sha256:" + "1" * 64


def pod(
    image: str = NEW, *, ready: bool = True, ends: bool = False, name: str = "one", **container: Any
) -> dict[str, Any]:
    status: dict[str, Any] = {
        "conditions": [{"type": "Ready", "status": "True" if ready else "False"}]
    }
    if container:
        status["containerStatuses"] = [container]
    metadata = {"name": name, "labels": {SERVING_LABEL: "demo-v1-daily-0"}}
    if ends:
        metadata["deletionTimestamp"] = "2026-11-28T12:00:00Z"
    return {
        "metadata": metadata,
        "spec": {"containers": [{"name": CONTAINER, "image": image}]},
        "status": status,
    }


def served(
    *pods: dict[str, Any],
    document: dict[str, Any] = DOCUMENT,
    name: str = "demo-v1-daily-0",
    deployment: dict[str, Any] | None = None,
    **owner: Any,
) -> Served:
    document = {**document, "metadata": {"name": name}}
    metadata = {"name": name, "namespace": "shop", "generation": 3, "uid": "u", **owner}
    return Served(
        parse_serving(document, origin="test"),
        {**document, "metadata": metadata},
        deployment or {"metadata": {"generation": 2}, "status": {"observedGeneration": 2}},
        Pods(pods),
    )


def found(status: ServingStatus, of: str) -> Condition:
    (one,) = [condition for condition in status.conditions if condition.type == of]
    return one


def status(one: Served, *others: Served, before: ServingStatus | None = None) -> ServingStatus:
    return status_of(one, others, before or ServingStatus(), NOW)


def two_ready() -> list[dict[str, Any]]:
    return [pod(name="a"), pod(name="b")]


def test_a_serving_is_ready_once_all_of_its_pods_serve_its_image() -> None:
    one = status(served(*two_ready()))
    assert (one.ready_replicas, one.image, one.observed_generation) == (2, NEW, 3)
    assert found(one, READY).reason == "RolledOut"
    assert found(one, AVAILABLE).status == "True"


@pytest.mark.parametrize(
    "pods",
    [
        [pod(name="a")],
        [pod(name="a"), pod(OLD, name="b")],
        [pod(name="a"), pod(name="b"), pod(OLD, name="c")],
        [pod(name="a"), pod(name="b", ready=False)],
        [pod(name="a"), pod(name="b", ends=True)],
        [],
    ],
)
def test_it_is_rolling_until_then(pods: list[dict[str, Any]]) -> None:
    one = found(status(served(*pods)), READY)
    assert (one.status, one.reason) == ("False", "Rolling")


def test_a_deployment_that_has_not_seen_its_spec_yet_says_nothing() -> None:
    late = {"metadata": {"generation": 3}, "status": {"observedGeneration": 2}}
    assert found(status(served(*two_ready(), deployment=late)), READY).reason == "Rolling"


@pytest.mark.parametrize(
    ("container", "reason", "says"),
    [
        (
            {"state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}},
            "ImagePullFailed",
            "no such image",
        ),
        (
            {
                "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}},
                "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}},
            },
            "Crashing",
            "exit code 137 (OOMKilled)",
        ),
        (
            {"state": {"terminated": {"exitCode": 2, "reason": "Error", "message": "bad"}}},
            "Crashing",
            "exit code 2: bad",
        ),
        (
            {"state": {"waiting": {"reason": "CreateContainerConfigError", "message": "no map"}}},
            "CannotStart",
            "no map",
        ),
    ],
)
def test_what_keeps_new_pods_from_serving_is_named_while_old_ones_serve(
    container: dict[str, Any], reason: str, says: str
) -> None:
    broken = pod(ready=False, name="new", **container)
    one = status(served(pod(OLD, name="a"), pod(OLD, name="b"), broken))
    assert found(one, READY).reason == reason
    assert "pod new" in found(one, READY).message
    assert says in found(one, READY).message
    assert "2 pods with another one still serve" in found(one, READY).message
    assert found(one, AVAILABLE).status == "True"
    assert one.image == OLD


def test_a_pod_that_started_again_is_not_crashing() -> None:
    again = pod(
        ready=False,
        state={"running": {"startedAt": "now"}},
        lastState={"terminated": {"exitCode": 1}},
    )
    assert found(status(served(again)), READY).reason == "Rolling"


def test_a_rollout_that_takes_too_long_is_named() -> None:
    late = {
        "metadata": {"generation": 2},
        "status": {
            "observedGeneration": 2,
            "conditions": [
                {
                    "type": "Progressing",
                    "status": "False",
                    "reason": "ProgressDeadlineExceeded",
                    "message": "has timed out progressing",
                }
            ],
        },
    }
    one = found(status(served(pod(ready=False), deployment=late)), READY)
    assert one.reason == "NotReadyInTime"
    assert "has timed out progressing" in one.message


# --- whether it may be deleted ------------------------------------------------------------------


def test_the_only_serving_of_its_rows_is_not_redundant() -> None:
    one = found(status(served(*two_ready())), REDUNDANT)
    assert (one.status, one.reason) == ("False", "OnlyOne")
    assert DOCUMENT["spec"]["shards"][0]["id"] in one.message


def test_it_is_redundant_once_another_one_really_serves_its_offsets() -> None:
    wider = changed("spec.shards.0.ranges.0.toOffset", 100)
    wider["spec"]["shards"][0]["id"] = "demo-v1.monthly.x"
    wider["spec"]["tier"] = "monthly"
    others = {
        "ready": served(*two_ready(), document=wider, name="other"),
        "rolling": served(pod(), pod(OLD), document=wider, name="other"),
        "down": served(document=wider, name="other"),
        "going": served(*two_ready(), document=wider, name="other", deletionTimestamp="now"),
    }
    says = {
        state: found(status(served(*two_ready()), other), REDUNDANT).status
        for state, other in others.items()
    }
    assert says == {"ready": "True", "rolling": "False", "down": "False", "going": "False"}


def test_other_models_count_for_nothing() -> None:
    other = changed("spec.model", "v2")
    other["spec"]["shards"][0]["id"] = "v2.daily.x"
    one = status(served(*two_ready()), served(*two_ready(), document=other, name="other"))
    assert found(one, REDUNDANT).status == "False"


def test_what_never_served_may_be_deleted_and_what_is_down_may_not() -> None:
    assert found(status(served(pod(ready=False))), REDUNDANT).reason == "NeverServed"
    before = status(served(*two_ready()))
    down = status(served(pod(ready=False)), before=before)
    assert found(down, REDUNDANT).reason == "OnlyOne"
    assert found(down, AVAILABLE).status == "False"


def test_two_servings_with_the_same_shards_name_each_other() -> None:
    one = status(served(*two_ready()), served(*two_ready(), name="other"))
    assert found(one, DUPLICATE).status == "True"
    assert "other: " in found(one, DUPLICATE).message


# --- conditions ---------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 3), min_size=1, max_size=6))
def test_a_condition_keeps_the_time_since_which_its_status_holds(states: list[int]) -> None:
    before, changes, at = ServingStatus(), NOW, NOW
    last = None
    for ready in states:
        pods = [pod(name=str(number)) for number in range(ready)]
        before = status_of(served(*pods), (), before, at)
        one = found(before, AVAILABLE)
        if one.status != last:
            changes, last = at, one.status
        assert one.last_transition_time == changes
        at += timedelta(seconds=1)


def test_an_invalid_document_is_named_and_changes_nothing_else() -> None:
    before = status(served(*two_ready()))
    now = invalid_status(served().owner, "spec.image: no digest", before, NOW)
    assert found(now, READY).reason == "Invalid"
    assert found(now, READY).message == "spec.image: no digest"
    assert found(now, AVAILABLE) == found(before, AVAILABLE)
    assert (now.image, now.ready_replicas) == (before.image, before.ready_replicas)


def test_the_same_world_gives_the_same_status() -> None:
    once = status(served(*two_ready()))
    again = status_of(served(*two_ready()), (), once, NOW + timedelta(hours=1))
    assert again == once


# --- the objects --------------------------------------------------------------------------------


def test_everything_that_is_made_belongs_to_the_serving() -> None:
    one = served()
    for _, made in wanted_objects(one.serving, one.owner, ControllerSettings()):
        (owner,) = made["metadata"]["ownerReferences"]
        assert (owner["uid"], owner["controller"]) == ("u", True)
        assert made["metadata"]["namespace"] == "shop"
        assert made["metadata"]["labels"][SERVING_LABEL] == "demo-v1-daily-0"


def test_other_labels_of_a_serving_replace_no_pod() -> None:
    document = {**DOCUMENT, "metadata": {"name": "x", "labels": {"team": "search"}}}
    one = parse_serving(document, origin="test")
    owner = {**document, "metadata": {"name": "x", "namespace": "shop", "uid": "u"}}
    *_, (_, deployment) = wanted_objects(one, owner, ControllerSettings())
    assert deployment["metadata"]["labels"]["team"] == "search"
    assert "team" not in deployment["spec"]["template"]["metadata"]["labels"]


def test_resources_of_a_serving_come_before_the_defaults() -> None:
    document = changed(
        "spec.resources", {"requests": {"memory": "8Gi"}, "limits": {"memory": "9Gi"}}
    )
    one = parse_serving(document, origin="test")
    owner = {**document, "metadata": {"name": "x", "namespace": "shop", "uid": "u"}}
    *_, (_, deployment) = wanted_objects(one, owner, ControllerSettings())
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["resources"] == {
        "requests": {"cpu": "500m", "memory": "8Gi"},
        "limits": {"memory": "9Gi"},
    }
