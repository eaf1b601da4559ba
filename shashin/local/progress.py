"""How local operations report progress, independent of how it is shown."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receives the progress of each stage, for example to show it in a terminal."""

    def set(
        self, stage: str, done: float | None = None, total: float | None = None, *, note: str = ""
    ) -> None:
        """Report that a stage is running, and its progress if it can be counted.

        ``note`` says what the stage waits for.
        """

    def finish(self, stage: str) -> None:
        """Report that a stage is finished; a no-op if it never started."""


class _Silent:
    def set(
        self, stage: str, done: float | None = None, total: float | None = None, *, note: str = ""
    ) -> None:
        pass

    def finish(self, stage: str) -> None:
        pass


SILENT: Progress = _Silent()
"""Shows nothing."""
