"""The photos that a re-index leaves out, and when they are too many."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from shashin.errors import StepFailed
from shashin.shards.format.row import Row

MAX_SHARE = 0.05
"""Share of the photos that may be left out."""

FILE = "left-out.jsonl"

_NAMED = 3


@dataclass(frozen=True)
class LeftOutPhoto:
    """A photo that is left out, and why."""

    listing_id: str
    version: int
    photo_number: int
    uri: str
    error: str

    @classmethod
    def of(cls, row: Row, error: str) -> LeftOutPhoto:
        """Return the photo of a row."""
        return cls(row.listing_id, row.version, row.photo_number, row.photo_uri, error)

    def __str__(self) -> str:
        return f"{self.listing_id} v{self.version} photo {self.photo_number}: {self.error}"


class LeftOut:
    """Writes them down in a step's output, a JSON object per line."""

    def __init__(self, out: Path, *, total: int, before: int = 0) -> None:
        self._file = (out / FILE).open("w", encoding="utf-8")
        self._total = total
        self._named: list[str] = []
        self.count = before
        """With those of earlier steps."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()

    def add(self, photo: LeftOutPhoto) -> None:
        """Leave a photo out.

        Raises:
            StepFailed: when too many are.
        """
        self._file.write(json.dumps(asdict(photo), ensure_ascii=False) + "\n")
        self.count += 1
        if len(self._named) < _NAMED:
            self._named.append(str(photo))
        if self.count > MAX_SHARE * self._total:
            raise StepFailed(
                f"{self.count} of {self._total} photos, more than {MAX_SHARE:.0%}, cannot be embedded "
                f"again: {'; '.join(self._named)}; make them available, then retry"
            )


def count_left_out(out: Path) -> int:
    """Return how many photos a step left out."""
    with (out / FILE).open(encoding="utf-8") as file:
        return sum(1 for _ in file)
