"""Runs the steps of a build, one after another, each in a process of its own.

What has happened is in the build's record before the next thing happens. So whatever is killed,
whenever, the next attempt finds which steps have succeeded, keeps those whose output is unchanged
and runs the others.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import shashin
from shashin.builds import step as built_in
from shashin.builds import step_variables
from shashin.builds.document import IndexBuild, PipelineStep
from shashin.builds.fingerprints import fingerprints
from shashin.builds.outputs import difference, measure_outputs
from shashin.builds.records import BuildRecord, RecordedBuild
from shashin.builds.status import BuildStatus, OutputFile, Phase
from shashin.builds.step_process import RUN, StepProcess, end_processes_of
from shashin.builds.step_reports import Progress, read_progress, read_reason
from shashin.errors import BuildRunning, ShashinError, StepFailed

_POLL_SECONDS = 0.2

ASKED_TO_STOP = "someone cancelled it"
INTERRUPTED = "it was interrupted"

OnStatus = Callable[[BuildStatus], None]
"""Called with the status, a few times per second and whenever it has changed."""


def _run_of_built_in_step(name: str) -> list[str]:
    # -P: nothing in the working directory is imported by accident.
    return [sys.executable, "-P", "-m", built_in.__name__, name]


@dataclass(frozen=True)
class RunOptions:
    """How the runner runs steps."""

    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    """The environment of every step, to which the runner adds the step's own variables."""
    on_status: OnStatus | None = None
    built_in_step: Callable[[str], list[str]] = _run_of_built_in_step
    """Returns the command that runs a built-in step."""
    stop_seconds: float = 10.0
    """Time from SIGTERM to SIGKILL for a step that is cancelled or takes too long."""


@dataclass(frozen=True)
class _Ending:
    """How a step ended."""

    phase: Phase
    exit_code: int | None
    reason: str = ""
    outputs: tuple[OutputFile, ...] = ()


async def run_build(
    record: BuildRecord,
    build: IndexBuild,
    *,
    repository: str,
    command_folder: Path,
    options: RunOptions | None = None,
) -> BuildStatus:
    """Run a build to its end, or go on with it; returns its last status.

    Steps that succeeded before are kept, as long as neither their part of the document nor their
    output has changed since.

    Raises:
        BuildRunning: if another process runs it.
        UnreadableBuild: if there is a record that cannot be read.
        DiskUnavailable: when the record cannot be written; then the step is ended.
    """
    steps = fingerprints(build, repository)
    new = BuildStatus.of_a_new_build(
        steps, repository=repository, command_folder=str(command_folder), now=_now()
    )
    record.create(build, new)
    async with record.locked():
        before = record.read_status()
        await end_processes_of(before.run)
        begun = before.attempt_begun(
            steps,
            repository=repository,
            command_folder=str(command_folder),
            run=secrets.token_hex(16),
            pid=os.getpid(),
            now=_now(),
        )
        return await _Runner(record, build, begun, options or RunOptions()).run()


async def retry_build(record: BuildRecord, options: RunOptions | None = None) -> BuildStatus:
    """Run a recorded build again, from the first step that has not succeeded.

    Raises:
        BuildNotFound: if there is no such build.
        UnreadableBuild: if its record cannot be read.
        BuildRunning, DiskUnavailable: as ``run_build``.
    """
    recorded = record.read()
    return await run_build(
        record,
        recorded.build,
        repository=recorded.status.repository,
        command_folder=Path(recorded.status.command_folder),
        options=options,
    )


async def cancel_build(record: BuildRecord) -> RecordedBuild:
    """Stop a build, and wait until all of its processes have ended; returns how it ended.

    A build that had ended before stays as it was.

    Raises:
        BuildNotFound: if there is no such build.
        UnreadableBuild: if its record cannot be read.
        DiskUnavailable: when its record cannot be written.
    """
    record.require()
    while not (status := record.read_status()).ended:
        if record.is_locked():
            # Again and again, since a runner that is just starting forgets earlier requests.
            record.ask_to_stop()
            await asyncio.sleep(_POLL_SECONDS)
            continue
        with suppress(BuildRunning):
            async with record.locked():
                if (status := record.read_status()).ended:
                    continue
                await end_processes_of(status.run)
                record.write_status(status.ended_as("Cancelled", _now(), ASKED_TO_STOP))
    return record.read()


async def remove_build(record: BuildRecord) -> None:
    """Delete a build's record with all that its steps made; what they published stays.

    Raises:
        BuildNotFound: if there is no such build.
        BuildRunning: if a process runs it.
        OSError: when something cannot be deleted.
    """
    record.require()
    async with record.locked():
        with suppress(ShashinError):  # an unreadable record can be removed, too
            await end_processes_of(record.read_status().run)
        await asyncio.to_thread(record.remove)


class _Runner:
    """One attempt at a build; the caller owns its record."""

    def __init__(
        self, record: BuildRecord, build: IndexBuild, begun: BuildStatus, options: RunOptions
    ) -> None:
        self._record = record
        self._build = build
        self._status = begun
        self._options = options

    async def run(self) -> BuildStatus:
        record = self._record
        record.forget_stop()
        record.write_document(self._build)
        self._set(self._status)
        try:
            await self._invalidate_changed_outputs()
            await asyncio.to_thread(self._prepare_folders)
            return await self._run_steps()
        except asyncio.CancelledError:
            self._end("Cancelled", INTERRUPTED)
            raise
        except OSError as error:
            where = f"{error.filename}: " if error.filename is not None else ""
            return self._end("Failed", f"{where}{(error.strerror or str(error)).lower()}")

    async def _run_steps(self) -> BuildStatus:
        for step in self._build.spec.pipeline:
            following = self._status.next_step
            if following is None or following.name != step.name:
                continue  # kept
            if self._record.asked_to_stop:
                return self._end("Cancelled", ASKED_TO_STOP)
            why = following.reason
            self._set(self._status.step_begun(step.name, _now()))
            started = time.monotonic()
            ending = await self._run_step(step, started, why)
            self._set(
                self._status.step_ended(
                    ending.phase,
                    _now(),
                    seconds=time.monotonic() - started,
                    exit_code=ending.exit_code,
                    reason=ending.reason,
                    outputs=ending.outputs,
                    progress=self._progress(step.name),
                )
            )
            if ending.phase != "Succeeded":
                return self._end(ending.phase, ending.reason)
        return self._end("Succeeded")

    # --- before the steps -----------------------------------------------------------------------

    async def _invalidate_changed_outputs(self) -> None:
        for step in self._status.steps:
            if step.phase != "Succeeded":
                return
            folder = self._record.outputs / step.name
            changed = await asyncio.to_thread(difference, folder, step.outputs)
            if changed:
                self._set(self._status.invalidated(step.name, f"its output changed: {changed}"))
                return

    def _prepare_folders(self) -> None:
        """Delete what steps that run again have made, which no later step may read."""
        kept = {step.name for step in self._status.steps if step.phase == "Succeeded"}
        outputs = self._record.outputs
        for folder in outputs.iterdir() if outputs.exists() else ():
            if folder.name not in kept:
                _delete(folder)
        if not kept:
            _delete(self._record.work)
        self._record.work.mkdir(exist_ok=True)

    # --- one step -------------------------------------------------------------------------------

    async def _run_step(self, step: PipelineStep, started: float, why: str) -> _Ending:
        out, reports = self._record.outputs / step.name, self._record.reports(step.name)
        for folder in (out, reports):
            await asyncio.to_thread(_delete, folder)
            folder.mkdir(parents=True)
        path = self._record.log_path(step.name, self._status.attempts)
        path.parent.mkdir(exist_ok=True)
        argv = step.command or self._options.built_in_step(step.name)
        with path.open("ab", buffering=0) as log:
            if why:
                log.write(f"runs again: {why}\n".encode())
            try:
                process = await StepProcess.start(
                    argv, env=self._environment(step, out), cwd=self._working_folder(step), log=log
                )
            except OSError as error:
                missing = error.filename or argv[0]
                why = (error.strerror or str(error)).lower()
                return _Ending("Failed", None, f"{missing} cannot be started: {why}")
        try:
            return await self._watch(process, step, started)
        except BaseException:
            await process.end(self._options.stop_seconds)
            raise

    async def _watch(self, process: StepProcess, step: PipelineStep, started: float) -> _Ending:
        limit = step.timeout_seconds
        while (code := await process.exited_within(_POLL_SECONDS)) is None:
            seconds = time.monotonic() - started
            self._status = self._status.with_progress(self._progress(step.name), seconds)
            self._tell()
            if self._record.asked_to_stop:
                code = await process.end(self._options.stop_seconds)
                return _Ending("Cancelled", _shell_code(code), ASKED_TO_STOP)
            if limit is not None and seconds > limit:
                code = await process.end(self._options.stop_seconds)
                reason = f"it took longer than its timeoutSeconds, {limit}"
                return _Ending("Failed", _shell_code(code), reason)
        await process.end_descendants()
        if code != 0:
            reason = read_reason(self._record.reason_path(step.name)) or _described(code)
            return _Ending("Failed", _shell_code(code), reason)
        try:
            outputs = await asyncio.to_thread(measure_outputs, self._record.outputs / step.name)
        except StepFailed as error:
            return _Ending("Failed", code, error.message)
        return _Ending("Succeeded", code, outputs=outputs)

    def _working_folder(self, step: PipelineStep) -> Path:
        return self._record.folder if step.built_in else Path(self._status.command_folder)

    def _environment(self, step: PipelineStep, out: Path) -> dict[str, str]:
        given = self._options.environment
        python_path = [str(Path(shashin.__file__).parents[1]), given.get("PYTHONPATH", "")]
        # `python` in a command is the one that runs this, with all that is installed there.
        path = [str(Path(sys.executable).parent), given.get("PATH", os.defpath)]
        return {
            "PYTHONUNBUFFERED": "1",  # what a step prints is in its log at once
            **given,
            **({"PYTHONPATH": _joined(python_path)} if step.built_in else {}),
            "PATH": _joined(path),
            step_variables.BUILD: str(self._record.document_path),
            step_variables.WORK: str(self._record.work),
            step_variables.OUT: str(out),
            step_variables.REPOSITORY: self._status.repository,
            step_variables.PROGRESS: str(self._record.progress_path(step.name)),
            step_variables.REASON: str(self._record.reason_path(step.name)),
            RUN: self._status.run,
        }

    # --- the status -----------------------------------------------------------------------------

    def _progress(self, step: str) -> Progress | None:
        return read_progress(self._record.progress_path(step))

    def _end(self, phase: Phase, reason: str = "") -> BuildStatus:
        self._set(self._status.ended_as(phase, _now(), reason))
        return self._status

    def _set(self, status: BuildStatus) -> None:
        self._status = status
        self._record.write_status(status)
        self._tell()

    def _tell(self) -> None:
        if self._options.on_status is not None:
            self._options.on_status(self._status)


def _delete(path: Path) -> None:
    """Delete whatever is there: a step may have put anything in the place of its folders."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _now() -> datetime:
    return datetime.now(UTC)


def _joined(paths: list[str]) -> str:
    return os.pathsep.join(filter(None, paths))


def _shell_code(code: int) -> int:
    return code if code >= 0 else 128 - code


def _described(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"ended by signal {-code}"
