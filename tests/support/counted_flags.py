"""Flags of rows that count themselves, as a member of a stack has them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, eq=False)
class CountedFlags:
    """How many rows may not be found."""

    flags: npt.NDArray[np.uint8]

    @property
    def flagged(self) -> int:
        """How many rows have a flag other than 0."""
        return int(np.count_nonzero(self.flags))
