"""How the status of a build changes, and how it is stored."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shashin.builds.document import BUILT_IN_STEPS, IndexBuild
from shashin.builds.fingerprints import fingerprints
from shashin.builds.records import BuildRecord
from shashin.builds.status import ENDED, RUNNER_DIED, BuildStatus, OutputFile, StepStatus
from shashin.builds.step_reports import Progress
from shashin.errors import UnknownFormat, UnreadableBuild
from tests.support.made_builds import made_build

GOLDEN = Path(__file__).with_name("golden") / "demo-daily"
THEN = datetime(2026, 11, 27, 12, tzinfo=UTC)
STEPS = [(name, f"fingerprint of {name}") for name in ("select", "fetch", "publish")]
OUTPUT = (OutputFile("rows/a.npy", 12, "ab" * 32),)


def new() -> BuildStatus:
    return BuildStatus.of_a_new_build(
        STEPS, repository="file:///shards", command_folder="/home", now=THEN
    )


def begun(status: BuildStatus, steps: list[tuple[str, str]] = STEPS) -> BuildStatus:
    return status.attempt_begun(
        steps,
        repository="file:///shards",
        command_folder="/home",
        run="0123",
        pid=42,
        now=THEN,
    )


def succeeded(status: BuildStatus, *names: str) -> BuildStatus:
    for name in names:
        status = status.step_begun(name, THEN)
        status = status.step_ended("Succeeded", THEN, seconds=2, exit_code=0, outputs=OUTPUT)
    return status


def phases(status: BuildStatus) -> list[str]:
    return [step.phase for step in status.steps]


def test_a_build_succeeds_once_all_of_its_steps_have() -> None:
    status = new()
    assert (status.phase, status.attempts, status.ended) == ("Pending", 0, False)
    status = begun(status)
    assert (status.phase, status.attempts) == ("Running", 1)
    status = succeeded(status, "select", "fetch", "publish").ended_as("Succeeded", THEN)
    assert (status.phase, status.ended, status.next_step) == ("Succeeded", True, None)


def test_a_failed_step_fails_the_build_and_the_next_attempt_begins_with_it() -> None:
    status = succeeded(begun(new()), "select").step_begun("fetch", THEN)
    status = status.step_ended("Failed", THEN, seconds=1, exit_code=3, reason="exit code 3")
    status = status.ended_as("Failed", THEN, "exit code 3")
    assert phases(status) == ["Succeeded", "Failed", "Pending"]
    again = begun(status)
    assert phases(again) == ["Succeeded", "Pending", "Pending"]
    assert (again.reason, again.finished, again.attempts) == ("", None, 2)
    assert again.kept(again.steps[0])
    assert again.next_step == StepStatus(*STEPS[1])


@pytest.mark.parametrize(
    ("steps", "kept"),
    [
        (STEPS, 3),
        ([STEPS[0], ("fetch", "another"), STEPS[2]], 1),
        ([("check", "mine"), *STEPS], 0),
        ([STEPS[0], ("check", "mine"), *STEPS[1:]], 1),
        (STEPS[:2], 2),
        ([*STEPS, ("check", "mine")], 3),
    ],
)
def test_the_next_attempt_keeps_steps_up_to_the_first_that_has_changed(
    steps: list[tuple[str, str]], kept: int
) -> None:
    status = succeeded(begun(new()), "select", "fetch", "publish").ended_as("Succeeded", THEN)
    again = begun(status, steps)
    assert [step.name for step in again.steps] == [name for name, _ in steps]
    assert [step.phase == "Succeeded" for step in again.steps] == [
        number < kept for number in range(len(steps))
    ]


def test_a_step_whose_output_has_changed_runs_again_with_all_after_it() -> None:
    status = begun(succeeded(begun(new()), "select", "fetch", "publish"))
    status = status.invalidated("fetch", "its output changed")
    assert phases(status) == ["Succeeded", "Pending", "Pending"]
    assert [step.reason for step in status.steps] == ["", "its output changed", ""]
    assert status.step_begun("fetch", THEN).steps[1].reason == ""


def test_a_build_that_no_process_runs_any_more_has_failed() -> None:
    running = succeeded(begun(new()), "select").step_begun("fetch", THEN)
    dead = running.without_a_runner()
    assert (dead.phase, dead.reason) == ("Failed", RUNNER_DIED)
    assert phases(dead) == ["Succeeded", "Failed", "Pending"]
    assert dead.without_a_runner() == dead
    assert new().without_a_runner() == new(), "it was never run"


@given(st.lists(st.sampled_from(["begin", "succeed", "fail", "cancel", "die", "spoil"])))
def test_whatever_happens_the_status_is_consistent_and_survives_being_stored(
    happenings: list[str],
) -> None:
    status, now = new(), THEN
    for happening in happenings:
        now += timedelta(seconds=1)
        status = after(happening, status, now)
        assert_consistent(status)
        document = json.loads(json.dumps(status.document()))
        assert BuildStatus.from_document(document, origin="a test") == status
        assert_consistent(status.without_a_runner())


def after(happening: str, status: BuildStatus, now: datetime) -> BuildStatus:
    if status.phase != "Running":
        return begun(status) if happening == "begin" else status
    if happening == "die":
        return begun(status)  # a retry, after the runner was killed
    if status.running_step is not None:
        return after_a_step(happening, status, now)
    if happening == "spoil":
        return status.invalidated(status.steps[0].name, "spoilt")
    following = status.next_step
    if following is None:
        return status.ended_as("Succeeded", now)
    return status.step_begun(following.name, now)


def after_a_step(happening: str, status: BuildStatus, now: datetime) -> BuildStatus:
    if happening == "succeed":
        return status.step_ended("Succeeded", now, seconds=1, exit_code=0, outputs=OUTPUT)
    if happening == "fail":
        failed = status.step_ended("Failed", now, seconds=1, exit_code=1, reason="why")
        return failed.ended_as("Failed", now, "why")
    if happening == "cancel":
        return status.ended_as("Cancelled", now, "asked")
    return status.with_progress(Progress(1, 2), 3)


def assert_consistent(status: BuildStatus) -> None:
    number = next(
        (n for n, step in enumerate(status.steps) if step.phase != "Succeeded"), len(status.steps)
    )
    later = phases(status)[number + 1 :]
    assert set(later) <= {"Pending"}, "nothing runs before all that it depends on"
    assert (status.phase == "Succeeded") <= (number == len(status.steps))
    assert (status.running_step is not None) <= (status.phase == "Running")
    assert status.ended == (status.phase in ENDED)
    assert all(0 <= step.attempt <= status.attempts for step in status.steps)
    assert all(bool(step.outputs) <= (step.phase == "Succeeded") for step in status.steps)


# --- the stored form ------------------------------------------------------------------------------


def golden_build() -> IndexBuild:
    check = {
        "name": "check",
        "command": ["python", "check.py"],
        "image": "example/check:1",
        "timeoutSeconds": 60,
    }
    return made_build(check, index={"kind": "flat-f16"}, minimumRecall=0.9)


def golden_status() -> BuildStatus:
    build = golden_build()
    status = BuildStatus.of_a_new_build(
        fingerprints(build, "file:///shards"),
        repository="file:///shards",
        command_folder="/home/me",
        now=THEN,
    )
    for attempt in (1, 2):
        status = status.attempt_begun(
            fingerprints(build, "file:///shards"),
            repository="file:///shards",
            command_folder="/home/me",
            run=f"run {attempt}",
            pid=40 + attempt,
            now=THEN + timedelta(hours=attempt),
        )
    status = status.step_begun("select", THEN).step_ended(
        "Succeeded",
        THEN + timedelta(seconds=2.5),
        seconds=2.5,
        exit_code=0,
        outputs=OUTPUT,
        progress=Progress(412, 412),
    )
    status = status.step_begun("check", THEN).step_ended(
        "Failed", THEN, seconds=0.25, exit_code=137, reason="ended by SIGKILL"
    )
    return status.ended_as("Failed", THEN + timedelta(hours=3), "ended by SIGKILL")


def test_the_stored_form_is_that_of_the_golden_files() -> None:
    # A change of these files is a change of a stored format: give it another number, and a line in
    # CHANGELOG.md.
    assert golden_build().to_json() == (GOLDEN / "build.json").read_bytes()
    assert golden_status().document() == json.loads((GOLDEN / "status.json").read_bytes())
    recorded = BuildRecord(GOLDEN).read()
    assert (recorded.build, recorded.status) == (golden_build(), golden_status())


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"format": "shashin.build-status/9"}, UnknownFormat, "use the version that wrote it"),
        ({"phase": "Done"}, UnreadableBuild, "phase: input should be"),
        ({"steps": [{}]}, UnreadableBuild, r"steps\.0\.name: field required"),
        ({"oddity": 1}, UnreadableBuild, "oddity: unexpected"),
    ],
)
def test_what_is_no_status_is_refused_by_name(
    change: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"a test.*{message}"):
        BuildStatus.from_document({**new().document(), **change}, origin="a test")


def test_a_rate_is_what_was_done_by_the_time_that_it_took() -> None:
    step = StepStatus("embed", "", progress=Progress(300, 600), seconds=2)
    assert step.per_second == 150
    assert replace(step, seconds=0).per_second is None
    assert replace(step, progress=None).per_second is None


def test_fingerprints_name_every_step() -> None:
    names = [name for name, _ in fingerprints(made_build(), "file:///shards")]
    assert tuple(names) == BUILT_IN_STEPS
