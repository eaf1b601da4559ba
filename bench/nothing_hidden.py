"""An open shard's view of hidden listings while there are none."""

from __future__ import annotations


class NothingHidden:
    """Every row is visible."""

    def visible(self, _listing_id: str, _version: int) -> bool:
        """Whether a row of this version is visible."""
        return True
