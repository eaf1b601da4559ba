"""The status of a build follows from its Job and pods."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.controller.build_status import (
    begun,
    invalid,
    limit_of,
    observed,
    over,
    steps_to_run,
    waiting,
)
from shashin.builds.document import BUILT_IN_STEPS, EMBED, FETCH, SELECT
from shashin.builds.resource_status import IndexBuildStatus, StepResult
from shashin.kube.resource import KubeObject
from tests.support.build_objects import BEGAN, ended, job, pod, running, waits

NOW = datetime(2026, 11, 27, 12, 30, tzinfo=UTC)
FINGERPRINTS = [(name, f"hash of {name}") for name in BUILT_IN_STEPS]
PHASES = st.sampled_from(["Pending", "Running", "Succeeded", "Failed", "Cancelled"])


def begun_attempt(attempt: int = 1, run: tuple[str, ...] = BUILT_IN_STEPS) -> IndexBuildStatus:
    kept = [name for name in BUILT_IN_STEPS if name not in run]
    before = IndexBuildStatus(
        steps=tuple(
            StepResult(name=name, phase="Succeeded", attempt=1, fingerprint=f"hash of {name}")
            for name in kept
        )
    )
    return begun(before, FINGERPRINTS, run, attempt=attempt, generation=4, now=NOW)


def seen(
    states: dict[str, Any], *, of: KubeObject | None = None, **pod_fields: Any
) -> IndexBuildStatus:
    return observed(begun_attempt(), of or job(), [pod(states, **pod_fields)], NOW)


def states(*found: dict[str, Any]) -> dict[str, Any]:
    names = ["prepare", *BUILT_IN_STEPS]
    rest = [waits() for _ in names[len(found) :]]
    return dict(zip(names, [*found, *rest], strict=True))


def conditions(status: IndexBuildStatus) -> dict[str, tuple[str, str]]:
    return {one.type: (one.status, one.reason) for one in status.conditions}


def phases(status: IndexBuildStatus) -> list[str]:
    return [step.phase for step in status.steps]


def test_a_step_that_runs_is_the_builds_step() -> None:
    status = seen(states(ended(), ended(), running(since="2026-11-27T12:07:00Z")))
    assert (status.phase, status.step, status.attempts) == ("Running", FETCH, 1)
    assert phases(status) == ["Succeeded", "Running", "Pending", "Pending", "Pending"]
    assert status.steps[1].start_time == datetime(2026, 11, 27, 12, 7, tzinfo=UTC)
    assert conditions(status) == {
        "Progressing": ("True", "Running"),
        "Succeeded": ("False", "Running"),
        "Failed": ("False", "Running"),
    }


def test_a_step_that_fails_gives_the_build_its_reason() -> None:
    failed = ended(1, at="2026-11-27T12:09:00Z", message="no photo could be had")
    status = seen(states(ended(), ended(), failed), phase="Failed")
    assert (status.phase, status.step, status.reason) == ("Failed", FETCH, "no photo could be had")
    assert status.steps[1].exit_code == 1
    assert status.steps[1].completion_time == datetime(2026, 11, 27, 12, 9, tzinfo=UTC)
    assert phases(status) == ["Succeeded", "Failed", "Pending", "Pending", "Pending"]
    assert conditions(status)["Failed"] == ("True", "StepFailed")
    assert status.completion_time == NOW


def test_a_step_that_gives_no_reason_has_its_exit_code_for_one() -> None:
    assert seen(states(ended(), ended(7)), phase="Failed").reason == "exit code 7"


def test_a_step_without_enough_memory_is_named_so() -> None:
    status = seen(states(ended(), ended(137, reason="OOMKilled")), phase="Failed")
    assert status.reason.startswith("OOMKilled: it used more memory than its limit")
    assert conditions(status)["Failed"] == ("True", "OutOfMemory")


@pytest.mark.parametrize(
    "reason", ["ErrImagePull", "ImagePullBackOff", "InvalidImageName", "CreateContainerConfigError"]
)
def test_a_step_that_cannot_start_says_why_and_the_build_goes_on_when_it_can(reason: str) -> None:
    status = seen(states(ended(), waits(reason, "not found")), phase="Pending")
    assert (status.phase, status.reason) == ("Running", f"{reason}: not found")
    assert conditions(status)["Progressing"] == ("False", "StepCannotStart")
    later = observed(status, job(), [pod(states(ended(), running()))], NOW)
    assert (later.phase, later.reason) == ("Running", "")
    assert conditions(later)["Progressing"] == ("True", "Running")


def test_a_pod_that_no_node_has_room_for_says_so() -> None:
    scheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
    status = observed(
        begun_attempt(),
        job(),
        [pod({}, phase="Pending", conditions=[scheduled | {"message": "0/3 nodes"}])],
        NOW,
    )
    assert status.reason == "Unschedulable: 0/3 nodes"


def test_an_evicted_pod_is_the_reason_and_not_the_signal_that_ended_its_step() -> None:
    status = seen(
        states(ended(), ended(137)), phase="Failed", reason="Evicted", message="low on memory"
    )
    assert status.reason == "its pod was ended: Evicted: low on memory"
    assert conditions(status)["Failed"] == ("True", "Evicted")
    assert phases(status)[0] == "Failed"


def test_a_drained_node_is_named() -> None:
    target = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}
    status = seen(
        states(ended(), ended(143)), phase="Failed", conditions=[target | {"message": "evicting"}]
    )
    assert status.reason == "its pod was taken away: EvictionByEvictionAPI: evicting"
    assert conditions(status)["Failed"] == ("True", "Disrupted")


def test_a_pod_that_is_gone_fails_the_step_that_ran() -> None:
    before = seen(states(ended(), ended(), running()))
    status = observed(before, job("Failed", reason="BackoffLimitExceeded"), [], NOW)
    assert (status.phase, status.step, status.reason) == ("Failed", FETCH, "its pod was deleted")
    assert phases(status)[:2] == ["Succeeded", "Failed"]


def test_a_job_that_is_gone_fails_the_build() -> None:
    status = observed(begun_attempt(), None, [], NOW)
    assert (status.phase, status.reason) == ("Failed", "its Job was deleted")


def test_all_steps_succeeding_is_success_with_what_was_published() -> None:
    result = {"shards": ["demo-v1.daily.b77"], "progress": {"done": 9, "total": 9, "unit": "rows"}}
    all_done = states(*([ended()] * 5), ended(message=json.dumps(result)))
    status = seen(all_done, of=job("Complete"), phase="Succeeded")
    assert (status.phase, status.step, status.reason) == ("Succeeded", "", "")
    assert status.shards == ("demo-v1.daily.b77",)
    assert (status.steps[-1].done, status.steps[-1].unit) == (9, "rows")
    assert conditions(status)["Succeeded"] == ("True", "StepsSucceeded")


def test_a_complete_job_is_success_though_its_pod_is_gone() -> None:
    status = observed(begun_attempt(), job("Complete"), [], NOW)
    assert (status.phase, set(phases(status))) == ("Succeeded", {"Succeeded"})


def test_a_build_that_cannot_be_run_as_it_is_is_invalid() -> None:
    message = "the repository has no shard of 'demo-v2'"
    status = seen(states(ended(2, message=message)), phase="Failed")
    assert (status.phase, status.reason) == ("Failed", message)
    assert conditions(status)["Failed"] == ("True", "Invalid")


def test_lost_output_makes_the_next_attempt_run_all_steps() -> None:
    before = begun_attempt(2, BUILT_IN_STEPS[2:])
    found = {"prepare": ended(3, message="it is gone"), EMBED: waits(), "publish": waits()}
    status = observed(before, job(), [pod(found, attempt=2, phase="Failed")], NOW)
    assert (status.phase, status.reason) == ("Failed", "it is gone")
    assert steps_to_run(status, FINGERPRINTS, kept=True) == BUILT_IN_STEPS


def test_pods_of_earlier_attempts_say_nothing() -> None:
    old = pod(states(ended(), ended(1)), attempt=1, phase="Failed")
    new = pod(states(ended(), running()), attempt=2)
    status = observed(begun_attempt(2), job(), [old, new], NOW)
    assert (status.phase, status.step) == ("Running", SELECT)


def test_looking_twice_changes_nothing() -> None:
    found = [pod(states(ended(), ended(), running()))]
    once = observed(begun_attempt(), job(), found, NOW)
    assert observed(once, job(), found, NOW + timedelta(minutes=3)) == once


def test_a_condition_keeps_the_time_at_which_it_came_true() -> None:
    later = NOW + timedelta(minutes=3)
    status = observed(begun_attempt(), job(), [pod(states(ended(), ended(1)))], later)
    times = {one.type: one.last_transition_time for one in status.conditions}
    assert times == {"Progressing": later, "Failed": later, "Succeeded": NOW}


@given(st.lists(st.sampled_from([ended(), ended(1), running(), waits()]), max_size=6), st.data())
def test_a_step_never_leaves_the_end_that_was_seen(
    found: list[dict[str, Any]], data: st.DataObject
) -> None:
    first = observed(begun_attempt(), job(), [pod(states(*found))], NOW)
    if first.phase != "Running":
        return
    then = data.draw(st.lists(st.sampled_from([ended(), ended(1), running(), waits()]), max_size=6))
    second = observed(first, job(), [pod(states(*then))], NOW)
    for before, after in zip(first.steps, second.steps, strict=True):
        if before.phase == "Succeeded":
            assert after == before


# --- what a retry keeps -------------------------------------------------------------------------


@given(st.lists(PHASES, min_size=5, max_size=5), st.integers(0, 5), st.booleans())
def test_a_retry_keeps_only_an_unbroken_beginning_that_has_not_changed(
    found: list[Any], changed_at: int, kept: bool
) -> None:
    before = IndexBuildStatus(
        steps=tuple(
            StepResult(name=name, phase=phase, fingerprint=fingerprint)
            for (name, fingerprint), phase in zip(FINGERPRINTS, found, strict=True)
        )
    )
    wanted = [
        (name, "another hash" if n >= changed_at else fingerprint)
        for n, (name, fingerprint) in enumerate(FINGERPRINTS)
    ]
    run = steps_to_run(before, wanted, kept=kept)
    assert run
    assert run == BUILT_IN_STEPS[-len(run) :]
    skipped = len(BUILT_IN_STEPS) - len(run)
    assert all(phase == "Succeeded" for phase in found[:skipped])
    assert skipped <= changed_at
    assert kept or not skipped
    if kept and skipped < 4:
        assert skipped == changed_at or found[skipped] != "Succeeded"


def test_an_attempt_keeps_the_results_of_the_steps_that_it_does_not_run() -> None:
    status = begun_attempt(2, BUILT_IN_STEPS[2:])
    assert phases(status) == ["Succeeded", "Succeeded", "Pending", "Pending", "Pending"]
    assert (status.phase, status.step, status.attempts) == ("Running", EMBED, 2)
    assert status.observed_generation == 4
    assert status.steps[4].fingerprint == "hash of publish"


def test_the_first_attempt_has_nothing_to_keep() -> None:
    assert steps_to_run(IndexBuildStatus(), FINGERPRINTS, kept=True) == BUILT_IN_STEPS


# --- limits -------------------------------------------------------------------------------------


def limit(found: list[KubeObject], **timeouts: int) -> tuple[datetime, str] | None:
    status = observed(begun_attempt(), job(), found, NOW)
    made = limit_of(status, job(), found, timeouts=timeouts, start_seconds=900)
    return None if made is None else (made.at, made.word)


def test_a_step_may_run_for_its_timeout_and_as_long_as_it_likes_without() -> None:
    found = [pod(states(ended(), running(since="2026-11-27T12:10:00Z")))]
    assert limit(found) is None
    assert limit(found, select=60) == (datetime(2026, 11, 27, 12, 11, tzinfo=UTC), "StepTimedOut")
    assert limit(found, fetch=60) is None


def test_a_step_may_wait_from_the_end_of_the_one_before_it() -> None:
    found = [pod(states(ended(), ended(at="2026-11-27T12:20:00Z"), waits("ImagePullBackOff")))]
    assert limit(found) == (datetime(2026, 11, 27, 12, 35, tzinfo=UTC), "StepCannotStart")


@pytest.mark.parametrize("found", [[], [pod({}, phase="Pending")]])
def test_an_attempt_without_a_pod_or_a_node_does_not_wait_for_ever(found: list[KubeObject]) -> None:
    began = datetime.fromisoformat(BEGAN)
    assert limit(found) == (began + timedelta(seconds=900), "StepCannotStart")


def test_what_took_too_long_is_failed_with_its_step() -> None:
    status = seen(states(ended(), running()))
    ended_now = over(status, "Failed", "StepTimedOut", "it took too long", NOW)
    assert (ended_now.phase, ended_now.step) == ("Failed", SELECT)
    assert (ended_now.steps[0].phase, ended_now.steps[0].reason) == ("Failed", "it took too long")


# --- builds that do not run ---------------------------------------------------------------------


def test_a_build_that_waits_says_for_what() -> None:
    status = waiting(IndexBuildStatus(), "2 other builds run", generation=1, retry="", now=NOW)
    assert (status.phase, status.reason) == ("Pending", "2 other builds run")
    assert conditions(status)["Progressing"] == ("False", "Waiting")


def test_an_invalid_build_is_failed_and_can_be_retried_once_it_is_corrected() -> None:
    status = invalid(IndexBuildStatus(), "no image", generation=1, retry="a", now=NOW)
    assert (status.phase, status.reason, status.retry) == ("Failed", "no image", "a")
    assert conditions(status) == {
        "Progressing": ("False", "Invalid"),
        "Succeeded": ("False", "Invalid"),
        "Failed": ("True", "Invalid"),
    }


def test_a_cancelled_build_has_not_failed() -> None:
    status = over(seen(states(ended(), running())), "Cancelled", "Cancelled", "by a person", NOW)
    assert conditions(status)["Failed"] == ("False", "Cancelled")
    assert phases(status)[0] == "Cancelled"


def test_every_status_can_be_read_again() -> None:
    for status in (seen(states(ended(), ended(), running())), begun_attempt(2)):
        stored = status.model_dump(mode="json", by_alias=True)
        assert IndexBuildStatus.model_validate(stored) == status
