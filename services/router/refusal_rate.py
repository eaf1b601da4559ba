"""How many calls are refused so that those which are not wait no longer than they should. Pure.

For the router's own work: its event loop answers one call after another, so when more arrive than it can
answer, they wait before any code of a call runs, where neither a count of calls in progress nor their
duration shows it. What shows it is how long a call waits until it is looked at, and the share of calls that
are refused is controlled by that, as in PIE (RFC 8033): it grows while the wait is above its target or
growing, and shrinks while it is below or shrinking. Refusing a call costs a fraction of answering it.
"""

from __future__ import annotations

_ALPHA, _BETA = 0.2, 1.5
"""Per update and second of wait: beyond the target, and of growth. RFC 8033 has 0.125 and 1.25, for three
times as many updates."""
_SMALL = ((0.001, 0.1), (0.01, 0.25), (0.1, 0.5))
"""Below a share, steps are so much smaller, so that a small share is found as exactly as a large one."""
_DECAY = 0.9
"""Of the share, per update without any wait."""
_AT_MOST = 0.95
"""Some calls are always answered: otherwise nothing would show that they can be."""
_BURST_UPDATES = 3
"""So many updates above the target are a burst, of which nothing is refused yet."""


class RefusalRate:
    """The share of calls to refuse, as of the last wait that was measured."""

    def __init__(self, *, target_seconds: float) -> None:
        self._target = target_seconds
        self.share = 0.0
        """0 to 0.95."""
        self._waited = 0.0
        self._above = 0
        self._owed = 0.0
        """Of a refusal: so many are refused exactly, and evenly."""

    def update(self, waits_seconds: float) -> None:
        """Take what a call that arrives now waits for, in seconds; called at regular intervals."""
        grown = waits_seconds - self._waited
        self._above = self._above + 1 if waits_seconds > self._target else 0
        self._waited = waits_seconds
        if not self.share and self._above <= _BURST_UPDATES:
            return
        step = _ALPHA * (waits_seconds - self._target) + _BETA * grown
        if step < 0:
            step *= next((scale for below, scale in _SMALL if self.share < below), 1.0)
        if waits_seconds < self._target / 2 and grown <= 0:
            self.share *= _DECAY
        self.share = min(_AT_MOST, max(0.0, self.share + step))
        if self.share < _SMALL[0][0]:
            self.share = 0.0

    def refuses(self) -> bool:
        """Whether to refuse the next call."""
        if not self.share:
            return False
        self._owed += self.share
        if self._owed < 1:
            return False
        self._owed -= 1
        return True
