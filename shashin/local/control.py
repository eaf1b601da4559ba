"""Starting and stopping all processes of a state folder."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from shashin.errors import ProcessFailed, UserError
from shashin.local.leftovers import end_leftovers
from shashin.local.liveness import STARTUP_SECONDS
from shashin.local.log_file import last_lines, quoted, size_of
from shashin.local.plan import work_folder
from shashin.local.processes import (
    SUPERVISOR,
    Plan,
    ProcessRow,
    ProcessSpec,
    log_path,
    plan_path,
    process_table,
    read_plan,
    start_order,
    supervisor_identity,
)
from shashin.local.service_code import child_environment, services_folder
from shashin.local.supervisor import ALREADY_RUNNING
from shashin.runtime.json_file import write_json
from shashin.runtime.work_folder import mark_work_folder

_POLL_SECONDS = 0.1
_NEVER_READY = {"failed", "crash-looping"}

READY_SECONDS = STARTUP_SECONDS + 60.0
"""Maximum wait for everything to be ready: longer than the supervisor's own startup limit, so that
a slow start is reported with the supervisor's reason."""

OnRows = Callable[[Sequence[ProcessRow]], None]
"""Called repeatedly with the state of every process until all are ready."""


def supervisor_runs(state_folder: Path) -> bool:
    """Return whether a supervisor is running for this state folder."""
    identity = supervisor_identity(state_folder.absolute())
    return identity is not None and identity.is_running()


def require_same_options(state_folder: Path, options: Mapping[str, Any]) -> None:
    """Check that the options are those of the running system.

    Raises:
        UserError: naming each option that differs.
    """
    plan = read_plan(state_folder.absolute())
    known = plan.asked if plan is not None else {}
    # A setting that is no longer given differs as well.
    names = [*options, *(n for n in known if n.startswith("SHASHIN_") and n not in options)]
    differing = [
        f"{name} is {known.get(name)}, not {options.get(name)}"
        for name in names
        if known.get(name) != options.get(name)
    ]
    if differing:
        raise UserError(
            f"{state_folder} is already running with other settings ({'; '.join(differing)}): "
            "stop it first"
        )


async def up(
    state_folder: Path,
    specs: Sequence[ProcessSpec],
    *,
    embedded_kafka: bool = False,
    options: Mapping[str, Any] | None = None,
    repository: str = "",
    on_rows: OnRows | None = None,
    ready_seconds: float = READY_SECONDS,
) -> bool:
    """Start a detached supervisor and wait until every process is ready.

    Returns False if one was already running: then its plan is kept, and only the wait is done.
    On failure or cancellation, what was started here is stopped again. With ``embedded_kafka``,
    the supervisor also watches the state folder's own Kafka, which must already be running; with
    ``repository``, it names the active model of that model repository in the discovery file.

    Raises:
        UserError: if it is already running with other options.
        ProcessFailed: if a process dies or is not ready in time; with the last lines of its log.
    """
    state = state_folder.absolute()  # noqa: ASYNC240 - no disk access
    _mark_work_folders(state)
    if supervisor_runs(state):
        require_same_options(state, options or {})
        await _until_ready(state, on_rows, ready_seconds, None)
        return False
    start_order(specs)
    plan = Plan(tuple(specs), embedded_kafka, dict(options or {}), repository)
    write_json(plan_path(state), plan.document())
    log_before = size_of(log_path(state, SUPERVISOR))
    process = _launch(state)
    try:
        await _until_ready(state, on_rows, ready_seconds, process, log_before)
    except BaseException:
        await asyncio.shield(down(state))
        process.wait()
        raise
    _KEPT.append(process)
    return process.poll() is None


def _mark_work_folders(state: Path) -> None:
    """Mark the work folders that an earlier version left unmarked: services refuse such a folder.

    Its plan tells them from folders of the user.
    """
    with suppress(UserError, OSError):
        plan = read_plan(state)
        if plan is None or plan.marks_work_folders:
            return
        for spec in plan.processes:
            folder = work_folder(state, spec.name)
            if "SHASHIN_WORK_FOLDER" in spec.env and folder.is_dir():
                mark_work_folder(folder)


async def down(state_folder: Path, *, stop_seconds: float = 120.0) -> bool:
    """Stop the supervisor and its processes; returns False if nothing was running.

    Kafka keeps running: ``EmbeddedKafka.stop`` stops it.
    """
    state = state_folder.absolute()  # noqa: ASYNC240 - no disk access
    identity = supervisor_identity(state)
    ran = identity is not None and identity.is_running()
    if identity is not None and ran:
        await identity.end(grace=stop_seconds)
    return bool(await end_leftovers(state)) or ran


_KEPT: list[subprocess.Popen[bytes]] = []
"""Supervisors that are meant to outlive this process: kept so that they are not waited for."""


def _launch(state: Path) -> subprocess.Popen[bytes]:
    log = log_path(state, SUPERVISOR)
    log.parent.mkdir(parents=True, exist_ok=True)
    # The supervisor writes its own bounded log; this catches anything else, such as a crash.
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "shashin.local.supervisor", "--state", str(state)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=child_environment(os.environ),
            cwd=services_folder(),
            start_new_session=True,
        )


async def _until_ready(
    state: Path,
    on_rows: OnRows | None,
    ready_seconds: float,
    process: subprocess.Popen[bytes] | None,
    log_before: int = 0,
) -> None:
    deadline = time.monotonic() + ready_seconds
    rows: list[ProcessRow] = []
    while True:
        if process is None or _owns_table(process, state):
            rows = process_table(state)
            if on_rows is not None:
                on_rows(rows)
            for row in rows:
                if row.status in _NEVER_READY:
                    raise ProcessFailed(f"{row.name}: {row.detail}")
            if rows and all(row.well for row in rows):
                return
        _require_supervisor(state, process, log_before)
        if time.monotonic() > deadline:
            late = [f"{row.name} ({_state_of(row)})" for row in rows if not row.well]
            raise ProcessFailed(
                f"not ready after {ready_seconds:.0f} s: {', '.join(late) or SUPERVISOR}; "
                f"see the logs in {state / 'logs'}"
            )
        await asyncio.sleep(_POLL_SECONDS)


def _state_of(row: ProcessRow) -> str:
    restarted = f"; restarted because {row.last_restart.reason}" if row.last_restart else ""
    return f"{row.status}: {row.detail}{restarted}"


def _owns_table(process: subprocess.Popen[bytes], state: Path) -> bool:
    """Return whether the table was written by this supervisor, or by one that started first."""
    identity = supervisor_identity(state)
    if identity is None:
        return False
    return identity.pid == process.pid or process.poll() == ALREADY_RUNNING


def _require_supervisor(
    state: Path, process: subprocess.Popen[bytes] | None, log_before: int
) -> None:
    if process is None:
        if supervisor_runs(state):
            return
    elif process.poll() in {None, ALREADY_RUNNING}:
        return
    log = log_path(state, SUPERVISOR)
    lines = last_lines(log, since=log_before)
    raise ProcessFailed(f"the supervisor died; the last lines of {log}:{quoted(lines)}")
