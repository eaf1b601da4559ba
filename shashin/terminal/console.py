"""What a person sees: results on stdout, progress and errors on stderr, bars only on a terminal."""

from __future__ import annotations

import json
import shutil
import sys
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table
from rich.text import Text

_LOG_WIDTH = 118
"""Columns of a table where no terminal says how wide it is."""

_QUIET_SECONDS = 2.0
"""Longest silence of work under way, if lines stand for bars."""

_BAR_WIDTH = 30


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


@dataclass(frozen=True)
class Stage:
    """How far a stage of work is."""

    done: float | None = None
    """None for a stage that is not counted: it is under way or over."""
    total: float | None = None
    note: str = ""
    """What it waits for."""
    finished: bool = False

    @property
    def over(self) -> bool:
        """Whether nothing of it is left to do."""
        return self.finished or (self.done is not None and self.done == self.total)

    def line(self, name: str) -> str:
        """Return how far it is, in one line."""
        if self.done is None:
            far = ": done" if self.finished else ""
        else:
            far = f" {self.done:,.0f}" + ("" if self.total is None else f"/{self.total:,.0f}")
        return f"{name}{far}" + (f" ({self.note})" if self.note else "")


class Stages:
    """The stages of work under way, each with how much of it is done.

    On a terminal each stage is a bar; elsewhere a line every two seconds says what moved.
    """

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._stages: dict[str, Stage] = {}
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._finished = threading.Event()
        self._lines: threading.Thread | None = None
        self._told: dict[str, Stage] = {}

    def __enter__(self) -> Stages:
        console = _console(stderr=True)
        if console.is_terminal and not console.is_dumb_terminal:
            self._bars = Progress(
                SpinnerColumn(finished_text="[green]✓"),
                TextColumn("{task.description}", markup=False),
                _CountedBar(bar_width=_BAR_WIDTH),
                _CountedShare(),
                TimeElapsedColumn(),
                TextColumn("{task.fields[note]}", markup=False),
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

    def set(
        self, stage: str, done: float | None = None, total: float | None = None, *, note: str = ""
    ) -> None:
        """Say how much of a stage is done; the first call adds the stage.

        A stage that nothing is counted of is under way until ``finish``.
        """
        if total is None and stage in self._stages:
            total = self._stages[stage].total
        self._show(stage, Stage(done, total, note))

    def finish(self, stage: str) -> None:
        """Say that a stage is over; nothing if it never began."""
        if stage in self._stages:
            self._show(stage, replace(self._stages[stage], note="", finished=True))

    def _show(self, name: str, stage: Stage) -> None:
        self._stages[name] = stage
        if self._bars is None:
            return
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(name, total=None, note="", counted=False)
        counted = stage.done is not None
        self._bars.update(
            self._tasks[name],
            # A task is ticked off once it is completed.
            completed=stage.done if counted else float(stage.finished),
            total=stage.total if counted or not stage.finished else 1.0,
            note=stage.note,
            counted=counted,
        )

    def _print_lines(self) -> None:
        while not self._finished.wait(_QUIET_SECONDS):
            self._print_line(only_news=False)

    def _print_line(self, *, only_news: bool) -> None:
        now = dict(self._stages)
        line = stages_line(now, self._told, only_news=only_news)
        if line:
            tell(f"{time.monotonic() - self._started:5.0f} s  {line}")
        self._told = now


class _CountedBar(BarColumn):
    """A bar, for a stage that is counted."""

    def render(self, task: Task) -> RenderableType:  # type: ignore[override]
        return super().render(task) if task.fields["counted"] else Text("")


class _CountedShare(MofNCompleteColumn):
    """How many of how many, for a stage that is counted."""

    def render(self, task: Task) -> Text:
        if not task.fields["counted"]:
            return Text("")
        return super().render(task) if task.total is not None else Text(f"{task.completed:,.0f}")


def stages_line(
    stages: Mapping[str, Stage], told: Mapping[str, Stage], *, only_news: bool = False
) -> str:
    """Return in one line how far those stages are that moved since they were ``told``.

    If none moved, those that are not over, or else the last one: somebody waits, and should see
    that work goes on. With ``only_news`` nothing.
    """
    shown = {name: stage for name, stage in stages.items() if told.get(name) != stage}
    if not shown and not only_news:
        unfinished = {name: stage for name, stage in stages.items() if not stage.over}
        shown = unfinished or dict(list(stages.items())[-1:])
    return "   ".join(stage.line(name) for name, stage in shown.items())


def megabytes(size: float) -> str:
    """Return bytes as MB with one decimal."""
    return f"{size / 1e6:,.1f} MB"


def seconds(value: float | None) -> str:
    """Return a time as a person reads it: milliseconds below one second; a dash for none."""
    if value is None:
        return "-"
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.2f} s"
