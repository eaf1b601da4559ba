"""Which partitions an indexer indexes: all, a list, or its share among several."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from shashin.errors import UserError
from shashin.kafka.topics import VECTORS_EMBEDDED

_SHARE = re.compile(r"([0-9]+)/([0-9]+)")


@dataclass(frozen=True)
class PartitionChoice:
    """The partitions that ``SHASHIN_PARTITIONS`` names."""

    listed: tuple[int, ...] | None = None
    """These, sorted; None: all, or those of the share."""
    share: tuple[int, int] = (0, 1)
    """(number, count): every count-th partition, beginning with this number."""

    @classmethod
    def parse(cls, text: str) -> PartitionChoice:
        """Read ``all``, a list such as ``0-3,7``, or a share such as ``1/3``.

        Raises:
            ValueError: when the text is none of these.
        """
        if text == "all":
            return cls()
        if found := _SHARE.fullmatch(text):
            number, count = map(int, found.groups())
            if number >= count:
                raise ValueError(
                    f"{text!r} is not a share: expected a number below {count}, since they count "
                    "from 0"
                )
            return cls(share=(number, count))
        partitions: set[int] = set()
        for part in text.split(","):
            first, dash, last = part.strip().partition("-")
            try:
                parsed = range(int(first), int(last if dash else first) + 1)
            except ValueError:
                raise ValueError(
                    f"{part!r} is not a partition, a range such as 0-3 or a share such as 1/3"
                ) from None
            if not parsed:
                raise ValueError(f"{part!r} ends before it begins; expected a range such as 0-3")
            partitions.update(parsed)
        return cls(listed=tuple(sorted(partitions)))

    def of(self, existing: Sequence[int]) -> list[int]:
        """Return the chosen ones of the topic's partitions, sorted.

        Raises:
            UserError: when a listed one does not exist, or a share has none.
        """
        if self.listed is None:
            chosen = self.of_added(existing)
            if not chosen:
                number, count = self.share
                raise UserError(
                    f"SHASHIN_PARTITIONS is {number}/{count}, but {VECTORS_EMBEDDED} has "
                    f"{len(existing)} partitions: run at most {len(existing)} indexers"
                )
            return chosen
        if missing := set(self.listed) - set(existing):
            raise UserError(
                f"SHASHIN_PARTITIONS includes partitions {sorted(missing)}, but {VECTORS_EMBEDDED} "
                f"has {len(existing)}: use partitions 0 to {len(existing) - 1}"
            )
        return list(self.listed)

    def of_added(self, added: Sequence[int]) -> list[int]:
        """Return the chosen ones of partitions that were added to the topic; none of a list."""
        if self.listed is not None:
            return []
        number, count = self.share
        return [partition for partition in sorted(added) if partition % count == number]
