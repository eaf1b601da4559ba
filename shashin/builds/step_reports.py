"""What a running step reports to whoever runs it: its progress, and why it failed.

Two small files, so that a step of any language can write them and a step that is killed leaves the
last state. Nothing depends on them: a report that cannot be written or read is left out.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import ConfigDict, TypeAdapter

from shashin.runtime.json_file import read_json, write_json

_INTERVAL_SECONDS = 0.2
_MAX_REASON_BYTES = 4096


@dataclass(frozen=True)
class Progress:
    """How far a step is."""

    __pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)

    done: float
    total: float | None = None
    """None while it is not known."""
    unit: str = "rows"
    """What is counted."""


_PROGRESS = TypeAdapter(Progress)


class ProgressFile:
    """Writes a step's progress, a few times per second at most."""

    def __init__(self, path: Path | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._latest: Progress | None = None
        self._written: Progress | None = None
        self._written_at = -_INTERVAL_SECONDS

    def set(self, progress: Progress) -> None:
        """Note the progress, and write it unless the last write was just now."""
        self._latest = progress
        if self._clock() - self._written_at >= _INTERVAL_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write the latest progress if it is not written yet."""
        if self._path is None or self._latest is None or self._latest == self._written:
            return
        # A full disk fails the step where it writes its output, not here.
        with suppress(OSError):
            write_json(self._path, _PROGRESS.dump_python(self._latest))
        self._written, self._written_at = self._latest, self._clock()


def read_progress(path: Path) -> Progress | None:
    """Return the last reported progress; None if there is none that can be read."""
    with suppress(ValueError):
        return _PROGRESS.validate_python(read_json(path))
    return None


def write_reason(path: Path | None, reason: str) -> None:
    """Report why the step failed."""
    if path is not None:
        with suppress(OSError):
            path.write_text(reason, encoding="utf-8", errors="replace")


def read_reason(path: Path) -> str:
    """Return why the step failed; empty if it did not say."""
    try:
        with path.open("rb") as file:
            return file.read(_MAX_REASON_BYTES).decode("utf-8", errors="replace").strip()
    except OSError:
        return ""
