"""What an answer means for a listing that should be found, or gone; and when to ask again. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

FIRST_PAUSE_SECONDS = 0.02
MAX_PAUSE_SECONDS = 0.25
_GROWTH = 1.5


class Goal(StrEnum):
    """What is waited for."""

    FOUND = "found"
    """A complete answer has the listing first."""
    GONE = "gone"
    """A complete answer does not have the listing."""


class Failure(StrEnum):
    """Why a cycle failed."""

    PUBLISH_FAILED = "publish_failed"
    UNAVAILABLE = "unavailable"
    INCOMPLETE = "incomplete"
    NOT_FOUND = "not_found"
    NOT_GONE = "not_gone"


@dataclass(frozen=True)
class Answer:
    """What a search told about the listing."""

    rank: int | None
    """From 1; None if it is not among the hits."""
    complete: bool


@dataclass(frozen=True)
class Reached:
    """The goal is reached."""


@dataclass(frozen=True)
class AskAgain:
    """It is not yet."""

    after_seconds: float


@dataclass(frozen=True)
class Failed:
    """It was not in time."""

    failure: Failure


def judge(
    goal: Goal, answer: Answer | None, *, asked: int, elapsed: float, limit: float
) -> Reached | AskAgain | Failed:
    """Return what follows from an answer; None if there was none.

    ``asked`` counts the searches until now, this one included. What came in time but was answered
    after the limit counts as late. A failure is named for the last answer.
    """
    if answer is not None and answer.complete and elapsed <= limit and _meets(goal, answer):
        return Reached()
    if elapsed < limit:
        pause = min(FIRST_PAUSE_SECONDS * _GROWTH ** min(asked - 1, 50), MAX_PAUSE_SECONDS)
        return AskAgain(min(pause, limit - elapsed))
    if answer is None:
        return Failed(Failure.UNAVAILABLE)
    if not answer.complete:
        return Failed(Failure.INCOMPLETE)
    return Failed(Failure.NOT_FOUND if goal is Goal.FOUND else Failure.NOT_GONE)


def _meets(goal: Goal, answer: Answer) -> bool:
    return answer.rank == 1 if goal is Goal.FOUND else answer.rank is None
