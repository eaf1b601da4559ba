"""When a process that fails its liveness probe is restarted: a slow start is not a stall."""

from __future__ import annotations

from hypothesis import assume, given
from hypothesis import strategies as st

from shashin.local.liveness import (
    FAILURES,
    STALLED_SECONDS,
    STARTUP_SECONDS,
    Liveness,
    reason_to_restart,
)

SECONDS = st.floats(0, 1e6)
BOUND = st.floats(0.1, 1000)


def silent(liveness: Liveness) -> Liveness:
    """Return the state after enough failed probes."""
    for _ in range(FAILURES):
        liveness = liveness.failed()
    return liveness


@given(SECONDS, BOUND, BOUND, st.floats(0, 1))
def test_a_process_that_never_answered_has_all_of_its_startup_bound_whatever_the_other_is(
    started: float, startup: float, stalled: float, share: float
) -> None:
    now = started + share * startup
    assume(now - started <= startup)
    liveness = silent(Liveness(started))
    assert (
        reason_to_restart(liveness, now, startup_seconds=startup, stalled_seconds=stalled) is None
    )


@given(SECONDS, BOUND, BOUND)
def test_a_process_that_never_answered_is_restarted_once_its_start_took_too_long(
    started: float, startup: float, stalled: float
) -> None:
    reason = reason_to_restart(
        silent(Liveness(started)),
        started + startup + 1,
        startup_seconds=startup,
        stalled_seconds=stalled,
    )
    assert reason == f"it did not start within {startup:g} s"


@given(SECONDS, SECONDS, st.floats(0, STALLED_SECONDS - 1))
def test_a_process_that_answered_is_judged_by_its_last_answer_however_long_its_start_took(
    started: float, start_took: float, quiet: float
) -> None:
    liveness = silent(Liveness(started).answered(started + start_took))
    assert liveness.last_answer is not None
    assert _judged(liveness, liveness.last_answer + quiet) is None
    reason = _judged(liveness, liveness.last_answer + STALLED_SECONDS + 1)
    assert reason == "it failed its liveness probe for 31 s"


def test_an_answer_clears_what_was_before() -> None:
    liveness = silent(Liveness(0).answered(1)).answered(100)
    assert _judged(silent(liveness), 100 + STALLED_SECONDS) is None


def test_a_process_is_not_restarted_for_one_probe_that_was_under_way_for_long() -> None:
    # The supervisor was stopped for an hour with a probe under way, which then timed out.
    never, once = Liveness(0).failed(), Liveness(0).answered(1).failed()
    assert _judged(never, 3600) is None
    assert _judged(once, 3600) is None
    assert _judged(silent(once), 3600) == "it failed its liveness probe for 3599 s"


def test_a_start_may_take_longer_than_a_stall() -> None:
    assert STARTUP_SECONDS > STALLED_SECONDS


def _judged(liveness: Liveness, now: float) -> str | None:
    return reason_to_restart(
        liveness, now, startup_seconds=STARTUP_SECONDS, stalled_seconds=STALLED_SECONDS
    )
