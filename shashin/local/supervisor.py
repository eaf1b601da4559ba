"""Starts, watches and restarts the processes of a state folder's plan, until SIGTERM.

Runs detached as ``python -m shashin.local.supervisor --state FOLDER``; reads ``plan.json``,
writes ``processes.json`` and ``discovery.json``. Its children cannot outlive it.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import os
import signal
import sys
import time
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import closing, contextmanager, redirect_stderr, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shashin.errors import ShashinError, UserError
from shashin.local.child import Child
from shashin.local.identity import ProcessIdentity, memory_of
from shashin.local.leftovers import end_leftovers
from shashin.local.liveness import Liveness, reason_to_restart
from shashin.local.log_file import BoundedLog, LogStream, last_lines, quoted
from shashin.local.probe import probe
from shashin.local.processes import (
    KAFKA,
    SUPERVISOR,
    Plan,
    ProcessSpec,
    Status,
    log_path,
    processes_path,
    read_plan,
    start_order,
    write_discovery,
)
from shashin.local.restart import Restart, RestartHistory, how_it_ended
from shashin.local.service_code import child_environment, services_folder
from shashin.model_space import ModelSpace
from shashin.objectstore.open import opened_object_store
from shashin.repository.active_model import ActiveModels
from shashin.runtime.json_file import write_json
from shashin.runtime.logging import configure_logging, get_logger

ALREADY_RUNNING = 3
"""Exit code if another supervisor is running for the state folder."""

_PROBE_SECONDS = 0.1
_READY_PROBE_SECONDS = 1.0
_TABLE_SECONDS = 5.0
_ACTIVE_MODEL_SECONDS = 0.5
_SLOW_SECONDS = 30.0
"""How often a process that is still starting is logged."""

_LOG = get_logger(__name__)


def _log_format(environment: Mapping[str, str]) -> str:
    """Return the format of the log of a process with this environment: json or console."""
    return environment.get("SHASHIN_LOG_FORMAT", "json")


@dataclass(frozen=True)
class Ending:
    """How a process ended."""

    exit_code: int
    """Negative for a signal."""
    stopped_because: str | None
    """Why the supervisor stopped it; None if it exited by itself."""

    @property
    def reason(self) -> str:
        """Why it has to be restarted, as a clause."""
        return self.stopped_because or how_it_ended(self.exit_code)


@dataclass
class Watched:
    """One planned process and its current state."""

    spec: ProcessSpec
    log: BoundedLog
    status: Status = "waiting"
    detail: str = ""
    restarts: int = 0
    last_restart: Restart | None = None
    peak_rss: int = 0
    child: Child | None = None
    ready_since: float | None = None
    history: RestartHistory = field(default_factory=RestartHistory)

    def document(self) -> dict[str, Any]:
        """Return its entry of the process table."""
        identity = self.child.identity if self.child is not None else None
        return {
            "name": self.spec.name,
            "status": self.status,
            "detail": self.detail,
            **(identity.document() if identity is not None else {}),
            "restarts": self.restarts,
            "last_restart": self.last_restart.document() if self.last_restart else None,
            "addresses": self.spec.addresses,
            "rss_bytes": memory_of(self.child.pid).rss if self.child is not None else 0,
            "peak_rss_bytes": self.peak_rss,
        }


class Supervisor:
    """Keeps the processes of one plan running. Must run in the main thread."""

    def __init__(self, state_folder: Path, plan: Plan) -> None:
        self._state = state_folder
        self._plan = plan
        self._watched = [
            Watched(spec, BoundedLog(log_path(state_folder, spec.name)))
            for spec in start_order(plan.processes)
        ]
        self._by_name = {watched.spec.name: watched for watched in self._watched}
        self._kafka = RestartHistory()
        self._kafka_entry: dict[str, Any] = {
            "status": "ready",
            "detail": "",
            "restarts": 0,
            "last_restart": None,
        }
        self._identity = ProcessIdentity.of(os.getpid())
        self._active: ModelSpace | None = None
        self._listed: tuple[list[str], ModelSpace | None] | None = None
        self.stopping = asyncio.Event()

    async def run(self) -> None:
        """Run until ``stopping`` is set, then stop the processes in reverse start order."""
        _LOG.info("started", pid=os.getpid(), processes=list(self._by_name))
        self._publish()
        tasks = [asyncio.ensure_future(self._keep_running(watched)) for watched in self._watched]
        tasks.append(asyncio.ensure_future(self._keep_table()))
        if self._plan.embedded_kafka:
            tasks.append(asyncio.ensure_future(self._keep_kafka()))
        if self._plan.repository:
            tasks.append(asyncio.ensure_future(self._follow_active_model(self._plan.repository)))
        stop = asyncio.ensure_future(self.stopping.wait())
        try:
            done, _ = await asyncio.wait([stop, *tasks], return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stop}:
                task.result()  # a bug in the supervisor itself
        finally:
            for task in [stop, *tasks]:
                task.cancel()
            await asyncio.gather(stop, *tasks, return_exceptions=True)
            _LOG.info("stopping")
            await self._end_all()
            _LOG.info("stopped")

    async def _keep_running(self, watched: Watched) -> None:
        """Keep one process running."""
        await self._until_dependencies_are_ready(watched)
        because: str | None = None
        while True:
            try:
                watched.child = self._start(watched, because)
            except OSError as error:
                self._set(watched, "failed", f"cannot start: {error}")
                break
            ending = await self._until_it_ends(watched, watched.child)
            watched.child.close()
            ready_for = time.monotonic() - watched.ready_since if watched.ready_since else 0.0
            watched.child, watched.ready_since = None, None
            if ending.stopped_because is None and watched.history.is_hopeless(ending.exit_code):
                self._set(watched, "failed", self._describe_end(watched, ending.reason))
                break
            because = ending.reason
            pause = watched.history.died(ready_for=ready_for)
            looping = watched.history.crash_looping
            self._set(
                watched,
                "crash-looping" if looping else "restarting",
                self._describe_end(watched, because),
            )
            _LOG.warning(
                "ended", process=watched.spec.name, reason=because, restart_in_s=round(pause, 1)
            )
            await asyncio.sleep(pause)
        await asyncio.Event().wait()  # the other processes keep running

    async def _until_dependencies_are_ready(self, watched: Watched) -> None:
        for name in watched.spec.depends_on:
            while self._by_name[name].status != "ready":
                self._set(watched, "waiting", f"for {name}")
                await asyncio.sleep(_PROBE_SECONDS)

    def _start(self, watched: Watched, because: str | None) -> Child:
        """Start a process; ``because`` is the reason if this is a restart."""
        spec = watched.spec
        environment = child_environment({**os.environ, **spec.env})
        child = Child(spec.argv, env=environment, log=watched.log, cwd=services_folder())
        watched.child = child
        if because is None:
            _LOG.info("started", process=spec.name, pid=child.pid)
        else:
            watched.restarts += 1
            watched.last_restart = Restart(because, time.time())
            # The new process's output is read later, so this line comes first.
            watched.log.write_line(watched.last_restart.line(_log_format(environment)))
            _LOG.warning(
                "restarted",
                process=spec.name,
                pid=child.pid,
                restarts=watched.restarts,
                reason=because,
            )
        self._set(watched, "starting", "")
        return child

    async def _until_it_ends(self, watched: Watched, child: Child) -> Ending:
        """Watch a process until it exits, by itself or because its liveness probe failed."""
        spec = watched.spec
        liveness = Liveness(child.started)
        stopped_because: str | None = None
        next_look = 0.0
        slow_at = child.started + _SLOW_SECONDS
        while (code := child.exit_code()) is None:
            now = time.monotonic()
            if now >= next_look:
                problem = await probe(spec.ready_url, child.pid) if spec.ready_url else None
                self._note_readiness(watched, problem)
                if problem is not None and watched.ready_since is None and now > slow_at:
                    slow_at = now + _SLOW_SECONDS
                    _LOG.warning(
                        "still starting",
                        process=spec.name,
                        for_s=round(now - child.started),
                        reason=problem,
                    )
                silence = await probe(spec.live_url, child.pid) if spec.live_url else None
                now = time.monotonic()
                liveness = liveness.answered(now) if silence is None else liveness.failed()
                reason = reason_to_restart(
                    liveness,
                    now,
                    startup_seconds=spec.startup_seconds,
                    stalled_seconds=spec.stalled_seconds,
                )
                if reason is not None:
                    stopped_because = f"{reason} ({silence})"
                    self._set(watched, "unready", f"{stopped_because}: restarting")
                    await child.end(spec.stop_seconds)
                settled = watched.status == "ready"
                next_look = now + (_READY_PROBE_SECONDS if settled else _PROBE_SECONDS)
            await asyncio.sleep(_PROBE_SECONDS)
        return Ending(code, stopped_because)

    def _note_readiness(self, watched: Watched, problem: str | None) -> None:
        if problem is None:
            watched.ready_since = watched.ready_since or time.monotonic()
            watched.history.ever_ready = True
            self._set(watched, "ready", "")
        elif watched.ready_since is not None:
            self._set(watched, "unready", problem)
        elif watched.history.crash_looping:
            self._set(watched, "crash-looping", watched.detail)
        else:
            self._set(watched, "starting", problem)

    def _describe_end(self, watched: Watched, reason: str) -> str:
        path = log_path(self._state, watched.spec.name)
        return f"{reason}; the last lines of {path}:{quoted(last_lines(path))}"

    def _set(self, watched: Watched, status: Status, detail: str) -> None:
        if (watched.status, watched.detail) != (status, detail):
            if watched.status != status:
                self._log_change(watched, status, detail)
            watched.status, watched.detail = status, detail
            self._publish()

    def _log_change(self, watched: Watched, status: Status, detail: str) -> None:
        """Log status changes that are not logged elsewhere."""
        name = watched.spec.name
        if status == "ready" and watched.status == "unready":
            _LOG.info("ready again", process=name)
        elif status == "ready" and watched.child is not None:
            after = time.monotonic() - watched.child.started
            _LOG.info("ready", process=name, after_s=round(after, 1))
        elif status == "unready" and not self.stopping.is_set():
            _LOG.warning("not ready", process=name, reason=detail)
        elif status == "failed":
            _LOG.error("failed", process=name, reason=detail)

    def _publish(self) -> None:
        """Write the process table and the discovery file; a full disk must not stop the supervisor."""
        ready = [watched.spec for watched in self._watched if watched.status == "ready"]
        listed = ([spec.name for spec in ready], self._active)
        with suppress(OSError):
            if listed != self._listed:
                write_discovery(self._state, ready, self._active)
                self._listed = listed
            write_json(
                processes_path(self._state),
                {
                    SUPERVISOR: self._identity.document() if self._identity else None,
                    KAFKA: self._kafka_entry if self._plan.embedded_kafka else None,
                    "processes": [watched.document() for watched in self._watched],
                },
            )

    async def _keep_table(self) -> None:
        """Record peak memory across restarts, and refresh the table."""
        while True:
            for watched in self._watched:
                if watched.child is not None:
                    peak = memory_of(watched.child.pid).peak
                    watched.peak_rss = max(watched.peak_rss, peak)
            self._publish()
            await asyncio.sleep(_TABLE_SECONDS)

    async def _follow_active_model(self, repository: str) -> None:
        """Name the repository's active model in the discovery file; the last one while it is away."""
        problem = ""
        async with opened_object_store(repository) as store:
            models = ActiveModels(store)
            while True:
                try:
                    found = await models.read()
                    problem = ""
                except ShashinError as error:
                    if problem != error.message:
                        problem = error.message
                        _LOG.warning("the active model cannot be read", error=problem)
                else:
                    active = found.space if found else None
                    if active != self._active:
                        _LOG.info("active model", model=str(active), before=str(self._active))
                        self._active = active
                        self._publish()
                await asyncio.sleep(_ACTIVE_MODEL_SECONDS)

    async def _keep_kafka(self) -> None:
        """Restart the state folder's Kafka when it dies."""
        from shashin.local.kafka import EmbeddedKafka

        kafka = EmbeddedKafka(self._state)
        entry = self._kafka_entry
        seen = time.monotonic()
        while True:
            await asyncio.sleep(_READY_PROBE_SECONDS)
            if kafka.is_running():
                entry["status"], entry["detail"] = "ready", ""
                continue
            pause = self._kafka.died(ready_for=time.monotonic() - seen)
            looping = self._kafka.crash_looping
            entry["status"] = "crash-looping" if looping else "restarting"
            entry["detail"] = entry["detail"] or "its process died"
            reason = str(entry["detail"]).partition("; the last lines of")[0]
            _LOG.warning("ended", process=KAFKA, reason=reason, restart_in_s=round(pause, 1))
            self._publish()
            await asyncio.sleep(pause)
            restart = Restart(reason, time.time())
            entry["restarts"] += 1
            entry["last_restart"] = restart.document()
            with suppress(OSError), closing(BoundedLog(kafka.log)) as log:
                log.write_line(restart.line("console"))
            _LOG.warning(
                "restarted", process=KAFKA, restarts=entry["restarts"], reason=restart.reason
            )
            self._publish()
            entry["detail"] = await self._start_kafka(kafka.port)
            seen = time.monotonic()
            if entry["detail"]:
                _LOG.error("failed", process=KAFKA, reason=entry["detail"])
            else:
                entry["status"] = "ready"
                _LOG.info("ready", process=KAFKA, after_s=round(time.time() - restart.at, 1))
            self._publish()

    async def _start_kafka(self, port: int) -> str:
        """Start Kafka on its previous port; returns the error message, or an empty string."""
        # In another process, so that the supervisor does not have to load a Kafka client.
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "shashin.local.kafka", "start", str(self._state), "--port", str(port)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env=child_environment(os.environ),
            cwd=services_folder(),
        )
        _, errors = await process.communicate()
        return errors.decode("utf-8", errors="replace").strip()

    async def _end_all(self) -> None:
        for watched in reversed(self._watched):
            if (child := watched.child) is not None:
                self._set(watched, "unready", "stopping")
                await child.end(watched.spec.stop_seconds)
                watched.peak_rss = max(watched.peak_rss, memory_of(child.pid).peak)
                child.close()
                watched.child = None
            self._set(watched, "stopped", "")
            watched.log.close()


@contextmanager
def only_one(state_folder: Path) -> Iterator[bool]:
    """Lock the state folder for one supervisor; yields whether the lock was acquired."""
    with (state_folder / "supervisor.lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


@contextmanager
def logging_to(path: Path) -> Iterator[None]:
    """Write the supervisor's log and everything else on stderr to a bounded file."""
    with closing(BoundedLog(path)) as log, redirect_stderr(LogStream(log)):
        configure_logging(SUPERVISOR, level="info", log_format=_log_format(os.environ))
        yield


async def supervise(state_folder: Path) -> int:
    """Run the plan of a state folder until SIGTERM; returns the exit code.

    Raises:
        UserError: if there is no plan, or an invalid one.
    """
    with only_one(state_folder) as alone:
        if not alone:
            return ALREADY_RUNNING
        plan = read_plan(state_folder)
        if plan is None:
            raise UserError(f"there is no process plan in {state_folder}")
        with logging_to(log_path(state_folder, SUPERVISOR)):
            if ended := await end_leftovers(state_folder):
                _LOG.warning("stopped leftover processes of an earlier supervisor", processes=ended)
            supervisor = Supervisor(state_folder, plan)
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, supervisor.stopping.set)
            await supervisor.run()
    return 0


def run_to_exit(work: Coroutine[Any, Any, int]) -> None:
    """Run and exit with the returned code, or with 1 and one line on stderr."""
    try:
        code = asyncio.run(work)
    except ShashinError as error:
        sys.stderr.write(f"{error.message}\n")
        code = 1
    raise SystemExit(code)


def main() -> None:
    """Run the supervisor of a state folder."""
    parser = argparse.ArgumentParser(prog="python -m shashin.local.supervisor")
    parser.add_argument("--state", type=Path, required=True)
    run_to_exit(supervise(parser.parse_args().state.absolute()))


if __name__ == "__main__":
    main()
