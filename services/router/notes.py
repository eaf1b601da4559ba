"""What the caller should know of a query, in words. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from shashin.v1 import index_pb2

_NAMED = 10
"""Unknown entries of a field that are named."""

_NOTHING = index_pb2.UnknownChoices()


def unknown_in(answer: index_pb2.IndexSearchResponse) -> index_pb2.UnknownChoices:
    """Return the entries of the filter that the endpoint does not know."""
    if not answer.HasField("unknown"):
        return _NOTHING
    # Part of a message keeps all of it in memory.
    copied = index_pb2.UnknownChoices()
    copied.CopyFrom(answer.unknown)
    return copied


def notes_of(
    unknown: Iterable[index_pb2.UnknownChoices], *, everything_searched: bool
) -> list[str]:
    """Return a note for each of the filter's categories, prefixes and brands that no listing has.

    ``unknown`` are those of each endpoint that was asked. Nothing is said unless all of them answered, and
    their answers cover the log: what is missing may have them.
    """
    of_endpoints = list(unknown) if everything_searched else []
    if not of_endpoints or not all(one.ByteSize() for one in of_endpoints):
        return []
    return [
        *_notes("category", [one.categories for one in of_endpoints]),
        *_notes("category under", [one.category_prefixes for one in of_endpoints]),
        *_notes("brand", [one.brands for one in of_endpoints]),
    ]


def _notes(field: str, unknown: Sequence[Sequence[str]]) -> list[str]:
    first, *others = unknown
    of_others = [set(of_endpoint) for of_endpoint in others]
    everywhere = [
        entry for entry in dict.fromkeys(first) if all(entry in of_other for of_other in of_others)
    ]
    notes = [
        f"no listing has {field} {json.dumps(entry, ensure_ascii=False)}: check its spelling"
        for entry in everywhere[:_NAMED]
    ]
    if more := len(everywhere) - len(notes):
        notes.append(f"no listing has any of {more} other entries for {field} in the filter")
    return notes
