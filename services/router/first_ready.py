"""When a router that has just started may be asked. Pure.

It knows less than one that has run for a while: the first endpoint that responds has only a part of the
log. So it waits until coverage is complete, but not for ever, since incomplete answers are better than
none.
"""

from __future__ import annotations

from shashin.offsets.answer_coverage import AnswerCoverage


class FirstReady:
    """Decides once; afterwards, how complete coverage is changes nothing."""

    def __init__(self, complete_seconds: float) -> None:
        self._complete_seconds = complete_seconds
        self._since: float | None = None
        """When the first endpoint responded, on the caller's monotonic clock."""
        self._was_ready = False

    def waits_for(self, coverage: AnswerCoverage, now: float) -> str | None:
        """Return what a router with an endpoint that responds waits for; None if it may be asked."""
        if self._since is None:
            self._since = now
        left = self._since + self._complete_seconds - now
        self._was_ready = self._was_ready or coverage.complete or left <= 0
        if self._was_ready:
            return None
        return f"coverage is not complete yet: {left:.0f} s until searches are answered in any case"
