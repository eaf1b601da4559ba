"""What a person sees: results on stdout, progress and errors on stderr, bars only on a terminal."""

from __future__ import annotations

import json
import shutil
import sys
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

_LOG_WIDTH = 118
"""Columns of a table where no terminal says how wide it is."""

_QUIET_SECONDS = 2.0
"""Longest silence of work under way, where lines stand for bars."""


def _console(*, stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, highlight=False, width=None if stream.isatty() else _LOG_WIDTH)


def say(text: str = "", *, style: str = "") -> None:
    """Print a line of a command's result."""
    _console(stderr=False).print(text, style=style, markup=False, soft_wrap=True)


def tell(text: str, *, style: str = "") -> None:
    """Print a line about the work itself, on stderr."""
    _console(stderr=True).print(text, style=style, markup=False, soft_wrap=True)


def complain(message: str) -> None:
    """Print an error as one red line on stderr."""
    tell(f"error: {message}", style="red")


def command() -> str:
    """Return how the command is called here: by its name, or by its path where that is not found."""
    own = Path(sys.executable).with_name("shashin")
    found = shutil.which("shashin")
    return "shashin" if found is not None and Path(found).resolve() == own.resolve() else near(own)


def near(path: Path) -> str:
    """Return a path as one would type it from here."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def say_json(document: Any) -> None:
    """Print a JSON document for a script to read."""
    sys.stdout.write(json.dumps(document, indent=2, sort_keys=False) + "\n")


def say_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    title: str = "",
    whole: Collection[str] = (),
) -> None:
    """Print a table; a column whose name begins with ``>`` is set to the right.

    Cells of the ``whole`` columns are never broken over lines: they are there to be copied.
    """
    table = Table(title=title or None, title_justify="left", header_style="bold")
    for name in columns:
        right = name.startswith(">")
        table.add_column(
            name.lstrip(">"),
            justify="right" if right else "left",
            overflow="fold",
            no_wrap=name in whole,
        )
    for row in rows:
        table.add_row(*(_escaped(cell) for cell in row))
    _console(stderr=False).print(table)


def _escaped(cell: object) -> str:
    return str(cell).replace("[", r"\[")


class Stages:
    """The stages of work under way, each with how much of it is done.

    On a terminal each stage is a bar; elsewhere a line every two seconds says what moved.
    """

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._done: dict[str, tuple[float, float | None]] = {}
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._finished = threading.Event()
        self._lines: threading.Thread | None = None
        self._told: dict[str, tuple[float, float | None]] = {}

    def __enter__(self) -> Stages:
        console = _console(stderr=True)
        if console.is_terminal:
            self._bars = Progress(
                SpinnerColumn(finished_text="[green]✓"),
                TextColumn("{task.description}"),
                BarColumn(bar_width=40),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                console=console,
            )
            self._bars.start()
        else:
            self._lines = threading.Thread(target=self._print_lines, daemon=True)
            self._lines.start()
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bars is not None:
            self._bars.stop()
        self._finished.set()
        if self._lines is not None:
            self._lines.join()
            self._print_line(only_news=True)

    def set(self, stage: str, done: float, total: float | None = None) -> None:
        """Say how much of a stage is done; the first call adds the stage."""
        if total is None and stage in self._done:
            total = self._done[stage][1]
        self._done[stage] = (done, total)
        if self._bars is None:
            return
        if stage not in self._tasks:
            self._tasks[stage] = self._bars.add_task(stage, total=total)
        self._bars.update(self._tasks[stage], completed=done, total=total)

    def _print_lines(self) -> None:
        while not self._finished.wait(_QUIET_SECONDS):
            self._print_line(only_news=False)

    def _print_line(self, *, only_news: bool) -> None:
        now = dict(self._done)
        line = stages_line(now, self._told, only_news=only_news)
        if line:
            tell(f"{time.monotonic() - self._started:5.0f} s  {line}")
        self._told = now


def stages_line(
    done: Mapping[str, tuple[float, float | None]],
    told: Mapping[str, tuple[float, float | None]],
    *,
    only_news: bool = False,
) -> str:
    """Return in one line where those stages stand that moved since they were ``told``.

    When none moved, those that are not finished, or else the last one: somebody waits, and should
    see that work goes on. With ``only_news`` nothing.
    """
    shown = {stage: at for stage, at in done.items() if told.get(stage) != at}
    if not shown and not only_news:
        unfinished = {stage: (now, total) for stage, (now, total) in done.items() if now != total}
        shown = unfinished or dict(list(done.items())[-1:])
    parts = []
    for stage, (now, total) in shown.items():
        of = "" if total is None else f"/{total:,.0f}"
        parts.append(f"{stage} {now:,.0f}{of}")
    return "   ".join(parts)


def megabytes(size: float) -> str:
    """Return bytes as MB with one decimal."""
    return f"{size / 1e6:,.1f} MB"


def seconds(value: float | None) -> str:
    """Return a time as a person reads it: milliseconds below one second; a dash for none."""
    if value is None:
        return "-"
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.2f} s"
