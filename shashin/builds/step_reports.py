"""What a running step reports to whoever runs it: its progress, and why it failed.

Two small files, so that a step of any language can write them and a step that is killed leaves the
last state. Nothing depends on them: a report that cannot be written or read is left out.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import ConfigDict, TypeAdapter

from shashin.runtime.json_file import read_json, write_json

_INTERVAL_SECONDS = 0.2
_MAX_REASON_BYTES = 4096
MAX_RESULT_BYTES = 4096
"""Of a container's termination message."""


@dataclass(frozen=True)
class Progress:
    """How far a step is."""

    __pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)

    done: float
    total: float | None = None
    """None while it is not known."""
    unit: str = "rows"
    """What is counted."""


@dataclass(frozen=True)
class Result:
    """What a step that succeeded says."""

    # Steps of the user's, and later versions, may say more.
    __pydantic_config__ = ConfigDict(extra="ignore")

    shards: tuple[str, ...] = ()
    """Ids of the shards that it published."""
    progress: Progress | None = None


_PROGRESS = TypeAdapter(Progress)
_RESULT = TypeAdapter(Result)


class ProgressFile:
    """Writes a step's progress, a few times per second at most."""

    def __init__(self, path: Path | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._latest: Progress | None = None
        self._written: Progress | None = None
        self._written_at = -_INTERVAL_SECONDS

    @property
    def latest(self) -> Progress | None:
        """The progress that was set last."""
        return self._latest

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


def write_result(path: Path | None, shards: Sequence[str], progress: Progress | None) -> None:
    """Report what a step has made; of more shards than there is room for, the first ones."""
    if path is None:
        return
    counted = None if progress is None else _PROGRESS.dump_python(progress)
    for count in range(len(shards), -1, -1):
        text = json.dumps({"shards": list(shards[:count]), "progress": counted})
        if len(text.encode()) <= MAX_RESULT_BYTES:
            with suppress(OSError):
                path.write_text(text, encoding="utf-8")
            return


def parse_result(text: str) -> Result:
    """Return what ``write_result`` reported; an empty one for anything else."""
    try:
        return _RESULT.validate_json(text)
    except ValueError:
        return Result()
