"""Console output: results on stdout, progress and errors on stderr, bars only on a terminal.

Everything printed may contain text from outside (listing ids, file names, messages of other
processes), so all of it is escaped here: it is never read as markup, and cannot control a terminal.
"""

from __future__ import annotations

import json
import shlex
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

from shashin.printable import printable

_LOG_WIDTH = 118
"""Table width if the output is not a terminal."""

_QUIET_SECONDS = 2.0
"""Interval of progress lines if the output is not a terminal."""

_BAR_WIDTH = 30

_QUOTED_LINE = "\n  | "
"""Begin of a quoted log line in a message; other line breaks are escaped, so that no text from
outside can pass for a line of the command itself."""


def _console(*, stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, highlight=False, width=None if stream.isatty() else _LOG_WIDTH)


def _shown(text: str) -> Text:
    return Text(_QUOTED_LINE.join(map(printable, text.split(_QUOTED_LINE))))


def echo(text: str = "", *, style: str = "") -> None:
    """Print a result line to stdout."""
    _console(stderr=False).print(_shown(text), style=style, soft_wrap=True)


def echo_stderr(text: str, *, style: str = "") -> None:
    """Print an informational line to stderr."""
    _console(stderr=True).print(_shown(text), style=style, soft_wrap=True)


def echo_log_line(line: str) -> None:
    """Print a line of a log to stdout, without colours, wrapping or the cost of either."""
    sys.stdout.write(printable(line.expandtabs()) + "\n")
    sys.stdout.flush()


def echo_error(message: str) -> None:
    """Print an error to stderr, in red."""
    echo_stderr(f"error: {message}", style="red")


def command(*arguments: object) -> str:
    """Return how to call the command here with these arguments, quoted for a shell.

    It is called by its name, or by its path if it is not on PATH.
    """
    own = Path(sys.executable).with_name("shashin")
    found = shutil.which("shashin")
    on_path = found is not None and Path(found).resolve() == own.resolve()
    return shlex.join(["shashin" if on_path else relative_path(own), *map(str, arguments)])


def relative_path(path: Path) -> str:
    """Return a path relative to the working directory, if it is inside it."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def echo_json(document: Any) -> None:
    """Print a JSON document to stdout."""
    sys.stdout.write(json.dumps(document, indent=2, sort_keys=False) + "\n")


def echo_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    title: str = "",
    no_wrap: Collection[str] = (),
) -> None:
    """Print a table; a column whose name starts with ``>`` is right-aligned.

    A cell that is a tuple has one line for each of its items. Cells of the ``no_wrap`` columns are never wrapped, so that they can be copied.
    """
    table = Table(title=_shown(title) if title else None, title_justify="left", header_style="bold")
    for name in columns:
        right = name.startswith(">")
        table.add_column(
            _shown(name.removeprefix(">")),
            justify="right" if right else "left",
            overflow="fold",
            no_wrap=name in no_wrap,
        )
    for row in rows:
        table.add_row(*map(_cell, row))
    _console(stderr=False).print(table)


def _cell(cell: object) -> Text:
    lines = cell if isinstance(cell, tuple) else (cell,)
    return Text("\n").join(_shown(str(line)) for line in lines)


@dataclass(frozen=True)
class Stage:
    """Progress of one stage."""

    done: float | None = None
    """None for a stage that cannot be counted: it is either running or finished."""
    total: float | None = None
    note: str = ""
    """What it waits for."""
    finished: bool = False

    @property
    def complete(self) -> bool:
        """Whether it is complete."""
        return self.finished or (self.done is not None and self.done == self.total)

    def line(self, name: str) -> str:
        """Return the progress in one line."""
        if self.done is None:
            progress = ": done" if self.finished else ""
        else:
            progress = f" {self.done:,.0f}" + ("" if self.total is None else f"/{self.total:,.0f}")
        return f"{name}{progress}" + (f" ({self.note})" if self.note else "")


class Stages:
    """Shows the progress of several stages.

    On a terminal each stage is a bar; elsewhere, or without ``bars``, a line every two seconds shows
    what changed.
    """

    def __init__(self, *, bars: bool = True) -> None:
        self._with_bars = bars
        self._started = time.monotonic()
        self._stages: dict[str, Stage] = {}
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._finished = threading.Event()
        self._lines: threading.Thread | None = None
        self._printed: dict[str, Stage] = {}

    def __enter__(self) -> Stages:
        console = _console(stderr=True)
        if self._with_bars and console.is_terminal and not console.is_dumb_terminal:
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
            self._print_line(only_changes=True)

    def set(
        self, stage: str, done: float | None = None, total: float | None = None, *, note: str = ""
    ) -> None:
        """Report the progress of a stage; the first call adds the stage.

        A stage that is not counted runs until ``finish``.
        """
        if total is None and stage in self._stages:
            total = self._stages[stage].total
        self._show(stage, Stage(done, total, printable(note)))

    def finish(self, stage: str) -> None:
        """Report that a stage is finished; a no-op if it never started."""
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
            # rich marks a task as finished once completed reaches total.
            completed=stage.done if counted else float(stage.finished),
            total=stage.total if counted or not stage.finished else 1.0,
            note=stage.note,
            counted=counted,
        )

    def _print_lines(self) -> None:
        while not self._finished.wait(_QUIET_SECONDS):
            self._print_line(only_changes=False)

    def _print_line(self, *, only_changes: bool) -> None:
        now = dict(self._stages)
        line = stages_line(now, self._printed, only_changes=only_changes)
        if line:
            echo_stderr(f"{time.monotonic() - self._started:5.0f} s  {line}")
        self._printed = now


class _CountedBar(BarColumn):
    """A bar, only for a counted stage."""

    def render(self, task: Task) -> RenderableType:  # type: ignore[override]
        return super().render(task) if task.fields["counted"] else Text("")


class _CountedShare(MofNCompleteColumn):
    """Done and total, only for a counted stage."""

    def render(self, task: Task) -> Text:
        if not task.fields["counted"]:
            return Text("")
        return super().render(task) if task.total is not None else Text(f"{task.completed:,.0f}")


def stages_line(
    stages: Mapping[str, Stage], printed: Mapping[str, Stage], *, only_changes: bool = False
) -> str:
    """Return in one line the stages that changed since they were last ``printed``.

    If none changed: the unfinished ones, or else the last one, to show that work continues. With
    ``only_changes``: nothing.
    """
    shown = {name: stage for name, stage in stages.items() if printed.get(name) != stage}
    if not shown and not only_changes:
        unfinished = {name: stage for name, stage in stages.items() if not stage.complete}
        shown = unfinished or dict(list(stages.items())[-1:])
    return "   ".join(stage.line(name) for name, stage in shown.items())


def megabytes(size: float) -> str:
    """Return bytes as MB with one decimal."""
    return f"{size / 1e6:,.1f} MB"


def seconds(value: float | None) -> str:
    """Return a duration as text: in milliseconds below one second; a dash for None."""
    if value is None:
        return "-"
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.2f} s"
