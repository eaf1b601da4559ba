"""Coverage as text and JSON."""

from __future__ import annotations

from typing import Any

from shashin.v1 import search_pb2


def coverage_document(coverage: search_pb2.Coverage) -> dict[str, Any]:
    """Return the coverage for JSON output."""
    return {
        "complete": coverage.complete,
        "missing": [
            {"partition": r.partition, "from_offset": r.from_offset, "to_offset": r.to_offset}
            for r in coverage.missing
        ],
        "unknown_partitions": list(coverage.unknown_partitions),
    }


def coverage_line(coverage: search_pb2.Coverage) -> str:
    """Return the coverage in one line."""
    if coverage.complete:
        return "coverage complete: every event so far was searched"
    missing = ", ".join(
        f"partition {r.partition} offsets {r.from_offset} to {r.to_offset - 1}"
        for r in coverage.missing[:4]
    )
    more = f" and {len(coverage.missing) - 4} more ranges" if len(coverage.missing) > 4 else ""
    unknown = ", ".join(map(str, coverage.unknown_partitions))
    parts = [f"{missing}{more}" if missing else "", f"partitions {unknown} unknown" * bool(unknown)]
    return "coverage NOT complete: missing " + "; ".join(part for part in parts if part)
