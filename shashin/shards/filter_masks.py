"""Which rows of a shard meet a filter, remembered: many queries have the same few filters."""

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
    """The masks of the filters that were used last; in any thread. They grow with the rows."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._masks: OrderedDict[RowFilter, RowMask] = OrderedDict()
        self._lock = threading.Lock()

    def mask(self, row_filter: RowFilter, count: int) -> RowMask:
        """Return the mask of a filter for the first ``count`` rows."""
        with self._lock:
            found = self._masks.get(row_filter)
            if found is not None:
                self._masks.move_to_end(row_filter)
        known = 0 if found is None else len(found.flags)
        if found is not None and known == count:
            return found
        if found is not None and known > count:
            flags = found.flags[:count]
            return RowMask(flags, int(np.count_nonzero(flags)))
        flags = row_filter.mask(self._rows.columns(count).since(known))
        made = RowMask(flags, int(np.count_nonzero(flags)))
        if found is not None:
            made = RowMask(np.concatenate([found.flags, flags]), found.count + made.count)
        with self._lock:
            self._masks[row_filter] = made
            if len(self._masks) > _REMEMBERED:
                self._masks.popitem(last=False)
        return made
