"""Which rows of a sealed shard meet a filter, remembered: many queries have the same few filters."""

from __future__ import annotations

import threading
from collections import OrderedDict

import numpy as np

from shashin.shards.format.columns import Rows
from shashin.shards.kinds.protocol import RowMask
from shashin.shards.row_filter import RowFilter

_REMEMBERED = 8
"""Masks, each of a byte a row."""


class FilterMasks:
    """The masks of the filters that were used last; in any thread."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._masks: OrderedDict[RowFilter, RowMask] = OrderedDict()
        self._lock = threading.Lock()

    def mask(self, row_filter: RowFilter) -> RowMask:
        """Return the mask of a filter."""
        with self._lock:
            found = self._masks.get(row_filter)
            if found is not None:
                self._masks.move_to_end(row_filter)
                return found
        flags = row_filter.mask(self._rows.columns(len(self._rows)))
        made = RowMask(flags, int(np.count_nonzero(flags)))
        with self._lock:
            self._masks[row_filter] = made
            if len(self._masks) > _REMEMBERED:
                self._masks.popitem(last=False)
        return made
