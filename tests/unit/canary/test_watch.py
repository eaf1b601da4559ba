"""What the canary concludes from answers, and how often it asks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.canary.watch import (
    FIRST_PAUSE_SECONDS,
    MAX_PAUSE_SECONDS,
    Answer,
    AskAgain,
    Failed,
    Failure,
    Goal,
    Reached,
    judge,
)

ANSWERS = st.none() | st.builds(Answer, st.none() | st.integers(1, 10), st.booleans())
LIMIT = 10.0


@pytest.mark.parametrize(
    ("goal", "answer", "failure"),
    [
        (Goal.FOUND, None, Failure.UNAVAILABLE),
        (Goal.FOUND, Answer(1, complete=False), Failure.INCOMPLETE),
        (Goal.FOUND, Answer(2, complete=True), Failure.NOT_FOUND),
        (Goal.FOUND, Answer(None, complete=True), Failure.NOT_FOUND),
        (Goal.GONE, None, Failure.UNAVAILABLE),
        (Goal.GONE, Answer(None, complete=False), Failure.INCOMPLETE),
        (Goal.GONE, Answer(5, complete=True), Failure.NOT_GONE),
    ],
)
def test_what_is_not_reached_is_asked_for_again_and_fails_by_its_kind_at_the_limit(
    goal: Goal, answer: Answer | None, failure: Failure
) -> None:
    early = judge(goal, answer, asked=1, elapsed=1.0, limit=LIMIT)
    assert early == AskAgain(FIRST_PAUSE_SECONDS)
    assert judge(goal, answer, asked=9, elapsed=LIMIT, limit=LIMIT) == Failed(failure)


def test_a_listing_is_found_when_it_is_first_in_a_complete_answer() -> None:
    first = Answer(1, complete=True)
    assert judge(Goal.FOUND, first, asked=1, elapsed=0.1, limit=LIMIT) == Reached()
    assert judge(Goal.GONE, first, asked=1, elapsed=0.1, limit=LIMIT) != Reached()


def test_a_sold_listing_is_gone_when_a_complete_answer_lacks_it() -> None:
    without = Answer(None, complete=True)
    assert judge(Goal.GONE, without, asked=1, elapsed=0.1, limit=LIMIT) == Reached()


@given(st.sampled_from(Goal), ANSWERS, st.integers(1, 10_000), st.floats(0, 100))
def test_an_incomplete_or_late_answer_is_never_a_success(
    goal: Goal, answer: Answer | None, asked: int, elapsed: float
) -> None:
    verdict = judge(goal, answer, asked=asked, elapsed=elapsed, limit=LIMIT)
    if answer is None or not answer.complete or elapsed > LIMIT:
        assert verdict != Reached()
    if elapsed >= LIMIT:
        assert not isinstance(verdict, AskAgain)


@given(st.lists(ANSWERS, min_size=1, max_size=5))
def test_every_wait_ends_and_pauses_grow_up_to_the_longest(answers: list[Answer | None]) -> None:
    elapsed, asked, pauses = 0.0, 0, []
    while True:
        asked += 1
        answer = answers[asked % len(answers)]
        verdict = judge(Goal.FOUND, answer, asked=asked, elapsed=elapsed, limit=LIMIT)
        if not isinstance(verdict, AskAgain):
            break
        pauses.append(verdict.after_seconds)
        elapsed += verdict.after_seconds
        assert elapsed <= LIMIT + 1e-9
    assert all(pause <= MAX_PAUSE_SECONDS for pause in pauses)
    assert pauses[:-1] == sorted(pauses[:-1])
    # Cheap: a wait to the limit is some dozens of searches.
    assert asked < 60
