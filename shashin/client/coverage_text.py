"""Coverage as text and JSON."""

from __future__ import annotations

from typing import Any

from shashin.v1 import index_pb2, search_pb2


def every_event_searched(coverage: search_pb2.Coverage) -> bool:
    """Whether the log was searched up to its end, and no stage before it is behind."""
    return coverage.complete and bool(coverage.stages) and not _behind(coverage)


def coverage_document(coverage: search_pb2.Coverage) -> dict[str, Any]:
    """Return the coverage for JSON output."""
    return {
        "complete": coverage.complete,
        "every_event_searched": every_event_searched(coverage),
        "missing": [
            {"partition": r.partition, "from_offset": r.from_offset, "to_offset": r.to_offset}
            for r in coverage.missing
        ],
        "unknown_partitions": list(coverage.unknown_partitions),
        "stages": [
            {
                "stage": lag.stage,
                "records_behind": lag.records if lag.HasField("records") else None,
                "seconds_behind": lag.seconds if lag.HasField("records") else None,
            }
            for lag in coverage.stages
        ],
        "end_unknown_seconds": coverage.end_unknown_seconds,
    }


def coverage_line(coverage: search_pb2.Coverage) -> str:
    """Return the coverage in one line."""
    behind = "; ".join(_behind(coverage))
    if coverage.complete:
        if every_event_searched(coverage):
            return "coverage complete: every event so far was searched"
        return (
            "coverage complete, but perhaps not every event so far was searched: "
            f"{behind or 'how far the stages before are behind is unknown'}"
        )
    missing = ", ".join(
        f"partition {r.partition} offsets {r.from_offset} to {r.to_offset - 1}"
        for r in coverage.missing[:4]
    )
    more = f" and {len(coverage.missing) - 4} more ranges" if len(coverage.missing) > 4 else ""
    unknown = ", ".join(map(str, coverage.unknown_partitions))
    parts = [
        f"missing {missing}{more}" if missing else "",
        f"partitions {unknown} unknown" * bool(unknown),
        "" if missing or unknown else "no partition of the log is known",
        behind,
    ]
    return "coverage NOT complete: " + "; ".join(part for part in parts if part)


def coverage_style(coverage: search_pb2.Coverage) -> str:
    """Return the colour of the line."""
    if not coverage.complete:
        return "red"
    return "green" if every_event_searched(coverage) else "yellow"


def _behind(coverage: search_pb2.Coverage) -> list[str]:
    """Return why events may be in no searched range, although coverage is complete."""
    found = [text for lag in coverage.stages if (text := _lag(lag))]
    if coverage.end_unknown_seconds:
        found.append(
            f"the end of the log has been unknown for {coverage.end_unknown_seconds:.0f} s"
        )
    return found


def _lag(lag: index_pb2.StageLag) -> str:
    if not lag.HasField("records"):
        return f"how far the {lag.stage} is behind is unknown"
    if not lag.records:
        return ""
    return f"the {lag.stage} is {lag.records:,} records ({lag.seconds:.0f} s) behind"
