"""Shows a build while it runs: a bar per step, or what its steps print."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from pathlib import Path

from shashin.builds.records import BuildRecord, StepLog
from shashin.builds.status import BuildStatus, StepStatus
from shashin.cli.builds.view import rate_text
from shashin.documents.suggestions import suggestion
from shashin.errors import UserError
from shashin.terminal.console import Stages, echo_log_line, echo_stderr

_CHUNK = 256 * 1024
_POLL_SECONDS = 0.2
_PREPARING = "preparing"


class LogTail:
    """Reads a log as it grows."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._begun = b""

    def lines(self, *, to_the_end: bool = False) -> Iterable[str]:
        """Return the new lines; with ``to_the_end`` also a last one that no line break ends."""
        while data := self._read():
            *whole, self._begun = (self._begun + data).split(b"\n")
            yield from map(_decoded, whole)
            if len(self._begun) > _CHUNK:  # a line without an end may not fill the memory
                yield _decoded(self._begun)
                self._begun = b""
        if to_the_end and self._begun:
            yield _decoded(self._begun)
            self._begun = b""

    def _read(self) -> bytes:
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                data = file.read(_CHUNK)
        except FileNotFoundError:  # not yet there, or removed
            return b""
        self._offset += len(data)
        return data


def _decoded(line: bytes) -> str:
    return line.removesuffix(b"\r").decode("utf-8", errors="replace")


class ShownBuild:
    """Shows each status of a running build; with ``follow`` also what its steps print."""

    def __init__(self, record: BuildRecord, stages: Stages, *, follow: bool) -> None:
        self._record = record
        self._stages = stages
        self._follow = follow
        self._shown: set[str] = set()
        self._tails: dict[str, LogTail] = {}
        self._preparing = True
        stages.set(_PREPARING)

    def __call__(self, status: BuildStatus) -> None:
        """Show what has changed."""
        if self._preparing and status.running_step is None and not status.ended:
            return  # the output of earlier attempts is being checked
        self._preparing = False
        self._stages.finish(_PREPARING)
        for step in status.steps:
            if step.phase == "Pending" or step.name in self._shown:
                continue
            if self._follow and step.attempt == status.attempts:
                self._show_log(step)
            if step.phase == "Running":
                self._show_progress(step.name, step)
                continue
            self._shown.add(step.name)
            name = f"{step.name} (kept)" if status.kept(step) else step.name
            self._show_progress(name, step)
            if step.phase == "Succeeded":
                self._stages.finish(name)

    def _show_progress(self, name: str, step: StepStatus) -> None:
        progress = step.progress
        if step.phase not in {"Running", "Succeeded"}:
            self._stages.set(name, note=step.phase.lower())
        elif progress is None:
            self._stages.set(name)
        else:
            note = rate_text(progress, step.seconds)
            self._stages.set(name, progress.done, progress.total, note=note)

    def _show_log(self, step: StepStatus) -> None:
        if step.name not in self._tails:
            self._tails[step.name] = LogTail(self._record.log_path(step.name, step.attempt))
            echo_stderr(log_heading(step.name, step.attempt), style="bold")
        for line in self._tails[step.name].lines(to_the_end=step.phase != "Running"):
            echo_log_line(line)


def log_heading(step: str, attempt: int) -> str:
    """Return the line above a step's log."""
    return f"==> {step}, attempt {attempt}"


def chosen_logs(
    logs: Sequence[StepLog], build: str, step: str | None, attempt: int | None
) -> list[StepLog]:
    """Return the logs of an attempt; by default each step's last one. Only of ``step``, if given.

    Raises:
        UserError: if there is none.
    """
    chosen = [log for log in logs if step in {None, log.step} and attempt in {None, log.attempt}]
    if not chosen:
        raise UserError(
            f"build {build} has no such log: "
            + (
                "it has " + ", ".join(f"{log.step} of attempt {log.attempt}" for log in logs)
                if logs
                else "none of its steps has run yet"
            )
        )
    if attempt is not None:
        return chosen
    last = {log.step: log for log in chosen}  # they are sorted by attempt
    return [log for log in chosen if last[log.step] is log]


def print_logs(logs: Sequence[StepLog], *, headings: bool) -> None:
    """Print logs, one after another."""
    for log in logs:
        if headings:
            echo_stderr(log_heading(log.step, log.attempt), style="bold")
        for line in LogTail(log.path).lines(to_the_end=True):
            echo_log_line(line)


async def follow_logs(record: BuildRecord, step: str | None) -> None:
    """Print what the steps of a running build print, or one of them, until it has ended.

    Raises:
        UserError: if it has no such step.
    """
    tails: dict[StepLog, LogTail] = {}
    while True:
        status = record.read().status
        names = [one.name for one in status.steps]
        if step is not None and step not in names:
            raise UserError(f"build {record.name} has no step {step!r}{suggestion(step, names)}")
        for one in status.steps:
            if one.attempt != status.attempts or step not in {None, one.name}:
                continue
            log = StepLog(one.name, one.attempt, record.log_path(one.name, one.attempt))
            if log not in tails:
                tails[log] = LogTail(log.path)
                if step is None:
                    echo_stderr(log_heading(log.step, log.attempt), style="bold")
            for line in tails[log].lines(to_the_end=one.phase != "Running"):
                echo_log_line(line)
        if status.ended:
            return
        await asyncio.sleep(_POLL_SECONDS)
