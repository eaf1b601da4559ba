"""When the searches that wait for a call to an endpoint are sent. Pure.

A call costs the router and the endpoint several times as much as finding the hits of one vector, so
searches share calls. One that finds few calls under way is sent at once, with those that arrive at the same
moment. Another one waits until one of them ends: the endpoint is busy with them, and the router with their
answers. Calls that take long are no reason to wait.

Times are seconds of one clock, given by the caller.
"""

from __future__ import annotations

from dataclasses import dataclass

from shashin.codecs.limits import SHARED_QUERIES

CALLS_AT_ONCE = 3
"""Under way to an endpoint, for searches that want the same, before others wait: it has one, and some are on their
way to it and back."""

WINDOW_SECONDS = 0.005
"""For how long a search waits for the end of a call, at most."""


@dataclass(frozen=True)
class Waiting:
    """The searches that wait for one call."""

    queries: int
    """Query vectors of all of them."""
    joined: int
    """Searches that have joined since it was looked at last."""
    since: float
    """When the first of them came."""


def still_arriving(waiting: Waiting) -> bool:
    """Whether to look again in the next turn of the event loop, before anything is sent.

    What has come to the process is taken in several turns, one search in each.
    """
    return waiting.joined > 0 and waiting.queries < SHARED_QUERIES


def due_at(waiting: Waiting, *, calls: int) -> float:
    """Return when the searches are sent if none of the ``calls`` under way ends before."""
    if calls < CALLS_AT_ONCE or waiting.queries >= SHARED_QUERIES:
        return waiting.since
    return waiting.since + WINDOW_SECONDS


def shares(queries: int) -> bool:
    """Whether a search of so many vectors shares its call with others.

    One of more has a call of its own, and the endpoint takes turns between that and others.
    """
    return queries < SHARED_QUERIES
