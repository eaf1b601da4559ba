"""What came of every request, in bounded memory however long the run is. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from shashin.workload.load.histogram import Histogram

OK = "ok"
NOT_SENT = "not_sent"
"""Too many requests were in flight already."""

MAX_WINDOWS = 240
LATE_SECONDS = 0.01
"""A request that the generator sends later than this after it was due counts as sent late."""


@dataclass(frozen=True)
class Record:
    """One request; times in seconds from the begin of the run."""

    kind: str
    due: float
    sent: float
    done: float
    outcome: str
    """``ok``, ``not_sent``, or why it failed."""

    @property
    def latency(self) -> float:
        """Seconds from when it was due, so that waiting to be sent counts."""
        return self.done - self.due


@dataclass
class Window:
    """The requests that were due in a part of the run."""

    due: int = 0
    done: int = 0
    """Requests that ended in this window, when ever they were due."""
    latency: Histogram = field(default_factory=Histogram)
    """Of those that succeeded."""
    outcomes: Counter[str] = field(default_factory=Counter)

    def merge(self, other: Window) -> None:
        """Add the requests of another window."""
        self.due += other.due
        self.done += other.done
        self.latency.merge(other.latency)
        self.outcomes.update(other.outcomes)


class KindRecorder:
    """All requests of one kind."""

    def __init__(self) -> None:
        self.total = Window()
        self.windows: list[Window] = []
        self.window_seconds = 1.0
        self.sent_late = 0
        self.lateness = Histogram()
        """Seconds from when a request was due until it was sent: the generator's own delay."""

    def add(self, record: Record) -> None:
        """Count a request."""
        # The later one first: it may make windows longer, and merge the earlier one into another.
        done = self._window(max(record.done, record.due))
        due = self._window(record.due)
        for window in (due, self.total):
            window.due += 1
            window.outcomes[record.outcome] += 1
            if record.outcome == OK:
                window.latency.add(record.latency)
        if record.outcome == NOT_SENT:
            return
        late = record.sent - record.due
        self.lateness.add(late)
        self.sent_late += late > LATE_SECONDS
        for window in (done, self.total):
            window.done += 1

    def _window(self, at: float) -> Window:
        while at >= MAX_WINDOWS * self.window_seconds:
            self._halve()
        number = int(at / self.window_seconds)
        while len(self.windows) <= number:
            self.windows.append(Window())
        return self.windows[number]

    def _halve(self) -> None:
        """Make windows twice as long."""
        for left, right in zip(self.windows[::2], self.windows[1::2], strict=False):
            left.merge(right)
        self.windows = self.windows[::2]
        self.window_seconds *= 2


class Recorder:
    """All requests, by kind."""

    def __init__(self, kinds: Iterable[str]) -> None:
        self.kinds = {kind: KindRecorder() for kind in kinds}

    def add(self, record: Record) -> None:
        """Count a request."""
        self.kinds[record.kind].add(record)
