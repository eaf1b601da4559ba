"""The report of a load as a document, and as rows of a table. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from shashin.workload.load.histogram import Histogram
from shashin.workload.load.recorder import LATE_SECONDS, OK, KindRecorder, Recorder

PERCENTILES = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999))

Asked = Callable[[float], float]
"""The expected number of requests until a time, in seconds from the begin."""

_LATE_SHARE = 0.01


@dataclass(frozen=True)
class Kept:
    """How far the generator kept to its schedule."""

    late_share: float
    p99_seconds: float
    max_seconds: float

    @property
    def up(self) -> bool:
        """Whether at most one request in a hundred was sent late."""
        return self.late_share <= _LATE_SHARE

    @property
    def line(self) -> str:
        """The finding in one line."""
        found = (
            f"{self.late_share:.1%} of the requests were sent more than {LATE_SECONDS * 1000:.0f} ms "
            f"after they were due (p99 {self.p99_seconds * 1000:.1f} ms, "
            f"max {self.max_seconds * 1000:.1f} ms)"
        )
        if self.up:
            return f"the generator kept up: {found}"
        return (
            f"THE GENERATOR DID NOT KEEP UP: {found}; latencies contain this delay of its own: ask for "
            "lower rates, or run it on another machine"
        )


def kept(recorder: Recorder) -> Kept:
    """Return how far the generator kept to the schedules of all kinds."""
    late, sent, lateness = 0, 0, Histogram()
    for kind in recorder.kinds.values():
        late, sent = late + kind.sent_late, sent + kind.lateness.count
        lateness.merge(kind.lateness)
    return Kept(late / max(1, sent), lateness.percentile(0.99) or 0.0, lateness.max)


def report_document(
    recorder: Recorder,
    asked: Mapping[str, Asked | None],
    *,
    run: str,
    seconds: float,
    interrupted: bool,
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the report; times in seconds, from when a request was due.

    ``asked`` has each kind's schedule, None for users with think times, who ask for no rate.
    """
    found = kept(recorder)
    return {
        "run": run,
        "seconds": round(seconds, 3),
        "interrupted": interrupted,
        "options": dict(options),
        "generator": {
            "kept_up": found.up,
            "sent_late_share": round(found.late_share, 6),
            "lateness_p99": round(found.p99_seconds, 6),
            "lateness_max": round(found.max_seconds, 6),
            "note": found.line,
        },
        "kinds": {
            name: _kind(kind, asked.get(name), seconds) for name, kind in recorder.kinds.items()
        },
    }


def _kind(kind: KindRecorder, asked: Asked | None, seconds: float) -> dict[str, Any]:
    total, width = kind.total, kind.window_seconds

    def rate_asked(begin: float, end: float) -> float | None:
        return None if asked is None else round((asked(end) - asked(begin)) / (end - begin), 3)

    windows = []
    for number, window in enumerate(kind.windows):
        begin = number * width
        if begin >= seconds:
            break  # Only answers that came after the end.
        length = min(width, seconds - begin)
        windows.append(
            {
                "at": begin,
                "seconds": round(length, 3),
                "asked_rate": rate_asked(begin, begin + length),
                "done_rate": round(window.done / length, 3),
                "outcomes": dict(sorted(window.outcomes.items())),
                **_percentiles(window.latency),
            }
        )
    return {
        "requests": total.due,
        "ok": total.outcomes[OK],
        "outcomes": dict(sorted(total.outcomes.items())),
        "asked_rate": rate_asked(0.0, seconds) if seconds else None,
        "done_rate": round(total.done / seconds, 3) if seconds else None,
        **_percentiles(total.latency),
        "max": round(total.latency.max, 6) if total.latency.count else None,
        "windows": windows,
    }


def _percentiles(latency: Histogram) -> dict[str, float | None]:
    return {
        name: None if (value := latency.percentile(share)) is None else round(value, 6)
        for name, share in PERCENTILES
    }
