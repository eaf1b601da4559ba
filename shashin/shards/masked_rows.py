"""The rows of a shard with a flag for each that a search does not find."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from shashin.shards.format.columns import Rows

HIDDEN = 1
"""Flag of a row that neither a search nor a look-up finds."""
REPLACED = 2
"""Flag of a row that a search does not find, since a newer version is in the same shard."""

_ROOM = 1024


class MaskedRows:
    """Rows, of which some are flagged; flags are only ever set, and safe in any thread."""

    def __init__(self, rows: Rows) -> None:
        """Start with all rows that there are visible."""
        self.rows = rows
        self.flags: npt.NDArray[np.uint8] = np.zeros(len(rows), dtype=np.uint8)
        """By row, 0 if a search may find it. Longer than the rows while a shard grows, and then replaced
        by a longer one; of a sealed shard always the same array."""
        self.hidden = 0
        """Number of hidden rows."""
        self.flagged = 0
        """Number of rows with any flag."""
        self._lock = threading.Lock()
        """Held briefly while flags change."""

    @property
    def visible(self) -> npt.NDArray[np.bool_]:
        """Which rows are not hidden, a copy."""
        visible: npt.NDArray[np.bool_] = (self.flags & HIDDEN) == 0
        return visible

    def append(self, number: int, is_visible: Callable[[], bool]) -> None:
        """Set the flag of a row that was just added.

        ``is_visible`` is called with the lock, so a concurrent ``hide`` runs either before, and what
        it hides is known already, or after, and then finds the row.
        """
        with self._lock:
            if number >= len(self.flags):
                room = np.full(max(_ROOM, len(self.flags)), HIDDEN, dtype=np.uint8)
                self.flags = np.concatenate([self.flags, room])
            visible = is_visible()
            self.flags[number] = 0 if visible else HIDDEN
            self.hidden += not visible
            self.flagged += not visible

    def older_rows(self, listing_id: str, below_version: int) -> npt.NDArray[np.int64]:
        """Return the listing's rows of lower versions."""
        numbers = self.rows.rows_of(listing_id)
        if len(numbers) == 0:
            return numbers
        return numbers[self.rows.versions_of(numbers) < np.uint64(below_version)]

    def hide(self, listing_id: str, below_version: int) -> int:
        """Hide the listing's rows of lower versions; returns how many were visible before."""
        return self.hide_rows(self.older_rows(listing_id, below_version))

    def hide_rows(self, numbers: npt.NDArray[np.integer]) -> int:
        """Hide rows by number; returns how many were visible before."""
        return self._set(numbers, HIDDEN)

    def replace_rows(self, numbers: npt.NDArray[np.integer]) -> None:
        """Find these rows no more in searches."""
        self._set(numbers, REPLACED)

    def _set(self, numbers: npt.NDArray[np.integer], flag: int) -> int:
        if len(numbers) == 0:
            return 0
        with self._lock:
            # A row beyond the flags is still being added: its flag will be set from what is hidden,
            # which already includes this.
            numbers = numbers[numbers < len(self.flags)]
            before = self.flags[numbers]
            self.flags[numbers] = before | flag
            self.flagged += int(np.count_nonzero(before == 0))
            newly = int(np.count_nonzero((before & flag) == 0))
            if flag == HIDDEN:
                self.hidden += newly
        return newly

    def hidden_rows(self) -> npt.NDArray[np.uint32]:
        """Return the numbers of the hidden rows, ascending."""
        with self._lock:
            flags = self.flags[: len(self.rows)]
            return np.flatnonzero(flags & HIDDEN).astype(np.uint32)
