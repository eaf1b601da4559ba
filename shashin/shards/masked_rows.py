"""The rows of a shard with the mask of the visible ones."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from shashin.shards.format.columns import Rows


class MaskedRows:
    """Rows, of which some are hidden; hiding is monotonic, and safe in any thread."""

    def __init__(self, rows: Rows, visible: npt.NDArray[np.bool_]) -> None:
        self.rows = rows
        self.visible = visible
        """By row, and longer than the rows while a shard grows."""
        self.hidden = 0
        """Number of hidden rows."""
        self._lock = threading.Lock()
        """Held briefly while the mask changes."""

    def append(self, number: int, is_visible: Callable[[], bool]) -> None:
        """Set the flag of a row that was just added.

        ``is_visible`` is called with the lock, so a concurrent ``hide`` runs either before, and what
        it hides is known already, or after, and then finds the row.
        """
        with self._lock:
            if number >= len(self.visible):
                self.visible = np.concatenate([self.visible, np.zeros_like(self.visible)])
            visible = is_visible()
            self.visible[number] = visible
            self.hidden += not visible

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
        if len(numbers) == 0:
            return 0
        with self._lock:
            # A row beyond the mask is still being added: its flag will be set from what is hidden,
            # which already includes this.
            numbers = numbers[numbers < len(self.visible)]
            newly = numbers[self.visible[numbers]]
            self.visible[newly] = False
            self.hidden += len(newly)
        return len(newly)

    def hidden_rows(self) -> npt.NDArray[np.uint32]:
        """Return the numbers of the hidden rows, ascending."""
        with self._lock:
            return np.flatnonzero(~self.visible[: len(self.rows)]).astype(np.uint32)
