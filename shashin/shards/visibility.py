"""The visibility rule: a row of version v is visible if and only if v >= hidden[listing id].

shashin.serving.hidden_follower follows ``listings.hidden``, and shashin.serving.served_shards applies
its records to the rows of every shard. What was hidden before a row is added, an indexer has on disk
(services.indexer.hidden_store).
"""

from __future__ import annotations

from typing import NamedTuple, Protocol


class HiddenEntry(NamedTuple):
    """One record of ``listings.hidden``."""

    listing_id: str
    below_version: int
    """Rows of lower versions are hidden."""
    partition: int = 0
    offset: int = 0


class Visibility(Protocol):
    """Decides whether rows are visible when they are added."""

    def visible(self, listing_id: str, version: int) -> bool:
        """Whether a row of this version is visible."""
        ...
