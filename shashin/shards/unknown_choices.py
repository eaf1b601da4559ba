"""Which choices of a filter no row of several shards has: mostly misspelled ones."""

from __future__ import annotations

from collections.abc import Iterable

from shashin.shards.row_filter import FieldChoices, RowFilter
from shashin.shards.shard import Shard


def unknown_choices(row_filter: RowFilter, shards: Iterable[Shard]) -> FieldChoices:
    """Return the choices that no row of the shards has, in the filter's order.

    Hidden rows count, and so does a value whose rows were left out when shards were merged.
    """
    unknown = row_filter.choices
    for shard in shards:
        if not unknown:
            break
        unknown = unknown.common(shard.unknown(row_filter))
    return unknown
