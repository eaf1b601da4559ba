"""The Job of an attempt: which containers run, in which order, with what."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.controller.build_job import (
    build_document,
    build_folder,
    build_job,
    document_name,
    job_name,
    prepare_name,
)
from services.controller.settings import ControllerSettings
from shashin.builds.document import BUILT_IN_STEPS, IndexBuild, parse_build
from tests.support.build_objects import UID, build_object
from tests.support.made_builds import made_build

LABEL_VALUE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
NAMES = st.from_regex(LABEL_VALUE, fullmatch=True)
ALL = ("select", "filter", "fetch", "embed", "build", "publish")


def with_a_filter(**step: Any) -> IndexBuild:
    return made_build(
        {"name": "filter", "command": ["sh", "-c", "echo $(date) $HOME"], "image": "shop/filter:1"}
        | step
    )


def containers_of(job: dict[str, Any]) -> list[dict[str, Any]]:
    spec = job["spec"]["template"]["spec"]
    assert len(spec["containers"]) == 1
    return [*spec["initContainers"], *spec["containers"]]


def variables(container: dict[str, Any]) -> dict[str, str]:
    return {one["name"]: one["value"] for one in container["env"]}


def made(build: IndexBuild, steps: tuple[str, ...] = ALL, **settings: Any) -> dict[str, Any]:
    return build_job(build, build_object(build), 3, steps, ControllerSettings(**settings))


def test_the_steps_run_one_after_another_behind_the_one_that_makes_their_folders() -> None:
    job = made(with_a_filter())
    assert [one["name"] for one in containers_of(job)] == ["prepare", *ALL]


@given(first=st.integers(0, 5))
def test_a_retry_runs_the_last_steps_and_keeps_the_others(first: int) -> None:
    containers = containers_of(made(with_a_filter(), ALL[first:]))
    assert [one["name"] for one in containers] == ["prepare", *ALL[first:]]
    command = containers[0]["command"]
    assert command[command.index("--run") + 1 :][: len(ALL) - first] == list(ALL[first:])
    assert ("--keep" in command) == (first > 0)
    if first:
        assert command[command.index("--keep") + 1 :] == list(ALL[:first])


def test_a_step_of_the_users_has_its_image_and_its_command_as_a_shell_would_have_it() -> None:
    step = containers_of(made(with_a_filter()))[2]
    assert step["image"] == "shop/filter:1"
    # Kubernetes makes one dollar of two, and replaces nothing.
    assert step["command"] == ["sh", "-c", "echo $$(date) $$HOME"]


def test_every_step_is_told_what_it_is_told_on_one_machine() -> None:
    for step in containers_of(made(with_a_filter()))[1:]:
        told = variables(step)
        folder = f"/builds/demo-daily.{UID[:8]}"
        assert told["SHASHIN_BUILD"] == "/document/build.json"
        assert told["SHASHIN_BUILD_WORK"] == f"{folder}/work"
        assert told["SHASHIN_STEP_OUT"] == f"{folder}/outputs/{step['name']}"
        assert told["SHASHIN_STEP_PROGRESS"] == f"{folder}/reports/{step['name']}/progress.json"
        assert told["SHASHIN_STEP_REASON"] == told["SHASHIN_STEP_RESULT"] == "/dev/termination-log"
        assert step["terminationMessagePath"] == "/dev/termination-log"
        # SHASHIN_REPOSITORY
        assert step["envFrom"] == [{"configMapRef": {"name": "shashin"}}]


def test_every_container_is_as_restricted_as_the_services_are() -> None:
    job = made(with_a_filter())
    pod = job["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["runAsUser"] == 10001
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert pod["serviceAccountName"] == "index-build"
    for container in containers_of(job):
        context = container["securityContext"]
        assert context == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


def test_an_attempt_is_never_repeated_by_itself_and_goes_with_its_build() -> None:
    job = made(with_a_filter())
    assert job["spec"]["backoffLimit"] == 0
    assert job["spec"]["template"]["spec"]["restartPolicy"] == "Never"
    (owner,) = job["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["uid"]) == ("IndexBuild", "demo-daily", UID)
    assert "ttlSecondsAfterFinished" not in job["spec"]


def volume(job: dict[str, Any], name: str) -> dict[str, Any] | None:
    volumes = job["spec"]["template"]["spec"]["volumes"]
    return next((one for one in volumes if one["name"] == name), None)


def test_steps_work_on_a_claim_if_there_is_one_and_photos_come_from_the_cache_of_originals() -> (
    None
):
    without = made(with_a_filter())
    assert volume(without, "builds") == {"name": "builds", "emptyDir": {}}
    assert volume(without, "originals") is None
    job = made(with_a_filter(), builds_claim="work", originals_claim="originals")
    claimed = volume(job, "builds")
    assert claimed is not None
    assert claimed["persistentVolumeClaim"] == {"claimName": "work"}
    fetch = next(one for one in containers_of(job) if one["name"] == "fetch")
    assert variables(fetch)["SHASHIN_CACHE_FOLDER"] == "/cache"
    assert {"name": "originals", "mountPath": "/cache"} in fetch["volumeMounts"]
    others = [one for one in containers_of(job) if one["name"] != "fetch"]
    assert not any("/cache" in json.dumps(one) for one in others)


def test_files_of_other_builds_that_nobody_needs_are_deleted() -> None:
    build = with_a_filter()
    job = build_job(
        build, build_object(build), 1, ALL, ControllerSettings(), forgotten=["b.2", "a.1"]
    )
    command = containers_of(job)[0]["command"]
    assert command[command.index("--forget") + 1 :] == ["a.1", "b.2"]


def test_the_document_is_the_one_that_steps_read() -> None:
    build = with_a_filter()
    stored = build_document(build, build_object(build))
    text = stored["data"]["build.json"]
    assert IndexBuild.from_json(text.encode(), origin="the ConfigMap") == build
    assert stored["metadata"]["name"] == document_name(build.name)
    assert stored["metadata"]["ownerReferences"][0]["uid"] == UID


@given(name=NAMES, attempt=st.integers(1, 10**6))
def test_the_name_of_a_job_can_be_the_value_of_a_label(name: str, attempt: int) -> None:
    assert LABEL_VALUE.fullmatch(job_name(name, attempt))


@given(one=st.tuples(NAMES, st.integers(1, 99)), other=st.tuples(NAMES, st.integers(1, 99)))
def test_no_two_attempts_have_a_job_of_one_name(
    one: tuple[str, int], other: tuple[str, int]
) -> None:
    assert (job_name(*one) == job_name(*other)) == (one == other)


def test_long_names_that_begin_alike_have_jobs_of_different_names() -> None:
    begin = "a" * 62
    assert job_name(f"{begin}b", 1) != job_name(f"{begin}c", 1)


@pytest.mark.parametrize("taken", [["prepare"], ["prepare", "prepare-0"]])
def test_a_step_of_the_users_may_be_called_prepare(taken: list[str]) -> None:
    build = made_build(*({"name": name, "command": ["true"], "image": "x"} for name in taken))
    assert prepare_name(build) not in {step.name for step in build.spec.pipeline}
    assert len({one["name"] for one in containers_of(made(build, ("publish",)))}) == 2


def test_a_later_build_of_the_same_name_has_another_folder() -> None:
    build = with_a_filter()
    first, later = build_object(build), build_object(build, uid="77777777-0000")
    assert build_folder(first) != build_folder(later)


def test_the_built_in_steps_are_those_of_the_image_of_builds() -> None:
    build = parse_build(made_build().document(), origin="a test")
    job = made(build, BUILT_IN_STEPS, builds_image="shop/builds@sha256:0")
    for container in containers_of(job):
        assert container["image"] == "shop/builds@sha256:0"
    for name, container in zip(BUILT_IN_STEPS, containers_of(job)[1:], strict=True):
        assert container["command"] == ["python", "-P", "-m", "shashin.builds.step", name]
