"""When a process that died is restarted: exponential backoff with jitter."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shashin.local.restart import (
    CRASH_LOOP_DEATHS,
    FIRST_PAUSE_SECONDS,
    HEALTHY_SECONDS,
    MAX_PAUSE_SECONDS,
    WRONG_SETTINGS,
    Restart,
    RestartHistory,
    how_it_ended,
)

SHORT = st.floats(0, HEALTHY_SECONDS, exclude_max=True)
LONG = st.floats(HEALTHY_SECONDS, 1e6)


def history(seed: int = 0) -> RestartHistory:
    return RestartHistory(random.Random(seed))


@given(st.lists(SHORT | LONG, min_size=1, max_size=60), st.integers())
def test_pauses_double_with_each_death_in_a_row_up_to_the_longest(
    ready_for: list[float], seed: int
) -> None:
    deaths = history(seed)
    in_a_row = 0
    for seconds in ready_for:
        in_a_row = 1 if seconds >= HEALTHY_SECONDS else in_a_row + 1
        whole = min(MAX_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** (in_a_row - 1))
        assert whole / 2 <= deaths.died(ready_for=seconds) <= whole


def test_a_process_that_never_stops_dying_never_waits_longer() -> None:
    deaths = history()
    assert max(deaths.died(ready_for=0) for _ in range(10_000)) <= MAX_PAUSE_SECONDS


def test_processes_that_died_together_do_not_restart_together() -> None:
    assert len({history(seed).died(ready_for=0) for seed in range(50)}) == 50


@given(st.lists(SHORT, max_size=20), LONG)
def test_a_process_that_was_well_for_long_has_its_deaths_forgiven(
    short: list[float], long: float
) -> None:
    deaths = history()
    for seconds in short:
        deaths.died(ready_for=seconds)
    assert deaths.died(ready_for=long) <= FIRST_PAUSE_SECONDS
    assert not deaths.crash_looping


def test_it_crash_loops_after_enough_deaths_in_a_row() -> None:
    deaths = history()
    assert not deaths.crash_looping
    for death in range(1, 10):
        deaths.died(ready_for=1)
        assert deaths.crash_looping == (death >= CRASH_LOOP_DEATHS)


@pytest.mark.parametrize("code", [0, 1, 3, 137, -9, -15])
def test_a_death_that_may_pass_is_not_hopeless(code: int) -> None:
    assert not history().is_hopeless(code)


def test_wrong_settings_are_hopeless_only_for_what_never_ran_with_them() -> None:
    deaths = history()
    assert deaths.is_hopeless(WRONG_SETTINGS)
    deaths.ever_ready = True
    assert not deaths.is_hopeless(WRONG_SETTINGS), "it ran so: something else is wrong now"


# --- what is recorded of a restart --------------------------------------------------------------

RESTART = Restart("it was killed by signal 9", 1_750_000_000.25)


@given(st.text(), st.floats(0, 4e9))
def test_a_restart_is_read_as_it_was_written(reason: str, at: float) -> None:
    restart = Restart(reason, at)
    assert Restart.from_document(json.loads(json.dumps(restart.document()))) == restart


@pytest.mark.parametrize("document", [None, {}, [], "killed", 7, {"reason": "x"}, {"at": 1}])
def test_what_names_no_restart_is_none(document: Any) -> None:
    assert Restart.from_document(document) is None


def test_an_end_is_named_by_its_signal_or_exit_code() -> None:
    assert how_it_ended(-9) == "it was killed by signal 9"
    assert how_it_ended(1) == "it exited with code 1"
    assert how_it_ended(0) == "it exited with code 0"


def test_the_line_in_a_process_log_has_the_format_of_that_log() -> None:
    assert json.loads(RESTART.line("json")) == {
        "event": "supervisor: restarted because it was killed by signal 9",
        "service": "supervisor",
        "level": "warning",
        "timestamp": "2025-06-15T15:06:40.250000Z",
    }
    line = RESTART.line("console")
    assert line.startswith("2025-06-15T15:06:40.250000Z ")
    assert line.endswith(" supervisor: restarted because it was killed by signal 9")
