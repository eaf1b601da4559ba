"""How work on one machine reports progress, without knowing who shows it."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Is told of each stage of work under way; a terminal shows them."""

    def set(
        self, stage: str, done: float | None = None, total: float | None = None, *, note: str = ""
    ) -> None:
        """Report that a stage is under way, and how much of it is done if that can be counted.

        ``note`` adds what the stage waits for.
        """

    def finish(self, stage: str) -> None:
        """Report that a stage is over; nothing if it never began."""


class _Silent:
    def set(
        self, stage: str, done: float | None = None, total: float | None = None, *, note: str = ""
    ) -> None:
        pass

    def finish(self, stage: str) -> None:
        pass


SILENT: Progress = _Silent()
"""Shows nothing."""
