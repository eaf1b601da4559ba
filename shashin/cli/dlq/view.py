"""Dead letters as text and JSON. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from shashin.cli.dlq.filters import Count
from shashin.cli.dlq.readable_events import readable_event
from shashin.kafka.dlq_entries import DlqEntry, Resolution, StoredDeadLetter
from shashin.kafka.records import InRecord
from shashin.kafka.replay_plan import Replay

COLUMNS = ["id, time", "listing, version, scope", "reason, step, attempts", "message"]
NO_WRAP_COLUMNS = COLUMNS[:1]
_MESSAGE_CHARACTERS = 72
_SHOWN_BYTES = 64
"""Of a value that cannot be parsed."""


def iso_time(at_ms: int) -> str:
    """Return Unix milliseconds as a local ISO time, to the second."""
    return datetime.fromtimestamp(at_ms // 1000).astimezone().isoformat()


def short_message(dead_letter: StoredDeadLetter) -> str:
    """Return the message without what other columns show, truncated to one line."""
    text = dead_letter.message
    for shown_elsewhere in (f"{dead_letter.origin}", f", listing {dead_letter.listing_id}"):
        text = text.removeprefix(shown_elsewhere)
    text = text.lstrip(" :,")
    return text if len(text) <= _MESSAGE_CHARACTERS else text[: _MESSAGE_CHARACTERS - 1] + "…"


def scope_of(dead_letter: StoredDeadLetter) -> str:
    """Return ``record``, or the number of the dead-lettered photo, counted from 0 as in messages."""
    if dead_letter.scope == "record":
        return "record"
    return "photo" if dead_letter.photo_number is None else f"photo {dead_letter.photo_number}"


def row_of(entry: DlqEntry) -> tuple[str | tuple[str, ...], ...]:
    """Return an entry's cells, one per column with up to two lines: nine columns would be too wide."""
    dead_letter = entry.dead_letter
    when = datetime.fromtimestamp(dead_letter.at_ms // 1000).astimezone()
    how = "" if entry.resolution is None else f"[{entry.resolution.how}] "
    attempts = f", {dead_letter.attempts} attempts" if dead_letter.attempts > 1 else ""
    return (
        (str(dead_letter.entry_id), f"{when:%Y-%m-%d %H:%M:%S}"),
        (
            dead_letter.listing_id or "-",
            f"v{dead_letter.version or '?'}, {scope_of(dead_letter)}",
        ),
        (dead_letter.reason, f"{dead_letter.step or '-'}{attempts}"),
        how + short_message(dead_letter),
    )


def summary_line(counted: Sequence[Count]) -> str:
    """Return the number of entries by topic and reason, in one line."""
    still_open, resolved = sum(c.open for c in counted), sum(c.resolved for c in counted)
    by_topic: dict[str, list[str]] = {}
    for count in counted:
        by_topic.setdefault(count.topic, []).append(f"{count.open + count.resolved} {count.reason}")
    parts = [f"{topic}: {', '.join(reasons)}" for topic, reasons in by_topic.items()]
    head = f"{still_open} open" + (f", {resolved} resolved" if resolved else "")
    return "; ".join([head, *parts])


def entry_document(entry: DlqEntry) -> dict[str, Any]:
    """Return an entry for JSON output."""
    dead_letter = entry.dead_letter
    return {
        "id": str(dead_letter.entry_id),
        "at": iso_time(dead_letter.at_ms),
        "topic": dead_letter.topic,
        "listing_id": dead_letter.listing_id,
        "version": dead_letter.version or None,
        "reason": dead_letter.reason,
        "message": dead_letter.message,
        "step": dead_letter.step or None,
        "attempts": dead_letter.attempts or None,
        "scope": dead_letter.scope,
        "photo_number": dead_letter.photo_number,
        "came_from": None
        if dead_letter.origin is None
        else {
            "topic": dead_letter.origin.topic,
            "partition": dead_letter.origin.partition,
            "offset": dead_letter.origin.offset,
        },
        "open": entry.open,
        "resolution": _resolution_document(entry.resolution),
    }


def _resolution_document(resolution: Resolution | None) -> dict[str, Any] | None:
    if resolution is None:
        return None
    return {"how": resolution.how, "at": iso_time(resolution.at_ms)}


def list_document(
    shown: Iterable[DlqEntry], counted: Iterable[Count], *, matching: int
) -> dict[str, Any]:
    """Return a list of entries for JSON output; ``matching`` is their number before the limit."""
    return {
        "dead_letters": [entry_document(entry) for entry in shown],
        "matching": matching,
        "summary": [
            {"topic": c.topic, "reason": c.reason, "open": c.open, "resolved": c.resolved}
            for c in counted
        ],
    }


def whole_document(entry: DlqEntry, record: InRecord) -> dict[str, Any]:
    """Return one entry in full for JSON output; ``record`` is its record in the ``.dlq`` topic."""
    event = readable_event(entry.dead_letter.topic, record.value)
    return {
        **entry_document(entry),
        "key": _text(record.key),
        "headers": [{"name": name, "value": _text(value)} for name, value in record.headers],
        "value_bytes": len(record.value),
        "value_begins": record.value[:_SHOWN_BYTES].hex() if event is None else None,
        "event": event,
    }


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode(errors="replace")


def whole_rows(entry: DlqEntry, record: InRecord) -> list[tuple[str, str]]:
    """Return one entry in full as rows of name and text."""
    dead_letter = entry.dead_letter
    if entry.resolution is None:
        state = "open"
    else:
        state = f"{entry.resolution.how} at {iso_time(entry.resolution.at_ms)}"
    rows = [
        ("state", state),
        ("dead-lettered at", iso_time(dead_letter.at_ms)),
        ("came from", "unknown" if dead_letter.origin is None else str(dead_letter.origin)),
        ("listing", dead_letter.listing_id or "-"),
        ("version", str(dead_letter.version or "-")),
        ("reason", dead_letter.reason),
        ("message", dead_letter.message or "-"),
        ("step", dead_letter.step or "-"),
        ("attempts", str(dead_letter.attempts or "-")),
        ("scope", scope_of(dead_letter)),
        ("key", _text(record.key) or "-"),
        *((f"header {name}", _text(value) or "-") for name, value in record.headers),
        ("value", f"{len(record.value):,} bytes"),
    ]
    event = readable_event(dead_letter.topic, record.value)
    if event is None:
        begin = record.value[:_SHOWN_BYTES].hex(" ")
        rows.append(("", f"not a message of {dead_letter.topic}; starts with {begin or 'nothing'}"))
    else:
        rows += _event_rows(event)
    return rows


def _event_rows(event: dict[str, Any]) -> list[tuple[str, str]]:
    rows = []
    for name, value in event.items():
        if name == "photos":
            for photo in value:
                shown = {key: text for key, text in photo.items() if key != "photo_number"}
                rows.append((f"event photo {photo['photo_number']}", _pairs(shown)))
        else:
            rows.append((f"event {name}", _pairs(value) if isinstance(value, dict) else str(value)))
    return rows


def _pairs(fields: dict[str, Any]) -> str:
    shown = {name: value for name, value in fields.items() if value}
    if list(shown) == ["uri"]:
        return str(shown["uri"])
    parts = (
        f"{name} ({_pairs(value)})" if isinstance(value, dict) else f"{name} {value}"
        for name, value in shown.items()
    )
    return ", ".join(parts) or "-"


def replay_document(replay: Replay) -> dict[str, Any]:
    """Return a replayed record for JSON output."""
    return {
        "record": str(replay.origin),
        "to": f"{replay.origin.topic}[{replay.origin.partition}]",
        "listing_id": replay.dead_letter.listing_id,
        "version": replay.dead_letter.version or None,
        "entries": [str(entry_id) for entry_id in replay.resolves],
    }
