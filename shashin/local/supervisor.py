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
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shashin.errors import ShashinError, UserError
from shashin.local.child import Child
from shashin.local.identity import ProcessIdentity, memory_of
from shashin.local.leftovers import end_leftovers
from shashin.local.log_file import BoundedLog, last_lines, quoted
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
from shashin.local.restart import RestartHistory
from shashin.local.state_file import write_json

ALREADY_RUNNING = 3
"""Exit code when another supervisor holds the state folder."""

STALLED_SECONDS = 30.0
"""How long a process may fail its liveness probe before it is restarted."""

_PROBE_SECONDS = 0.1
_READY_PROBE_SECONDS = 1.0
_TABLE_SECONDS = 5.0


@dataclass
class Watched:
    """One planned process, and how it fares."""

    spec: ProcessSpec
    log: BoundedLog
    status: Status = "waiting"
    detail: str = ""
    restarts: int = 0
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
            "addresses": self.spec.addresses,
            "rss_bytes": memory_of(self.child.pid).rss if self.child is not None else 0,
            "peak_rss_bytes": self.peak_rss,
        }


class Supervisor:
    """Keeps the processes of one plan running. Has to run in the main thread."""

    def __init__(self, state_folder: Path, plan: Plan) -> None:
        self._state = state_folder
        self._plan = plan
        self._watched = [
            Watched(spec, BoundedLog(log_path(state_folder, spec.name)))
            for spec in start_order(plan.processes)
        ]
        self._by_name = {watched.spec.name: watched for watched in self._watched}
        self._kafka = RestartHistory()
        self._kafka_entry: dict[str, Any] = {"status": "ready", "detail": "", "restarts": 0}
        self._identity = ProcessIdentity.of(os.getpid())
        self._listed: list[str] | None = None
        self.stopping = asyncio.Event()

    async def run(self) -> None:
        """Run until ``stopping`` is set, then end the processes, the last started first."""
        self._publish()
        tasks = [asyncio.ensure_future(self._keep(watched)) for watched in self._watched]
        tasks.append(asyncio.ensure_future(self._keep_table()))
        if self._plan.embedded_kafka:
            tasks.append(asyncio.ensure_future(self._keep_kafka()))
        stop = asyncio.ensure_future(self.stopping.wait())
        try:
            done, _ = await asyncio.wait([stop, *tasks], return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stop}:
                task.result()  # a fault of the supervisor itself
        finally:
            for task in [stop, *tasks]:
                task.cancel()
            await asyncio.gather(stop, *tasks, return_exceptions=True)
            await self._end_all()

    async def _keep(self, watched: Watched) -> None:
        """Keep one process running."""
        await self._until_dependencies_are_ready(watched)
        while True:
            try:
                watched.child = self._start(watched)
            except OSError as error:
                self._set(watched, "failed", f"cannot be started: {error}")
                break
            died = await self._until_it_ends(watched, watched.child)
            watched.child.close()
            ready_for = time.monotonic() - watched.ready_since if watched.ready_since else 0.0
            watched.child, watched.ready_since = None, None
            if watched.history.is_hopeless(died):
                self._set(watched, "failed", self._obituary(watched, died))
                break
            pause = watched.history.died(ready_for=ready_for)
            watched.restarts += 1
            looping = watched.history.crash_looping
            self._set(
                watched,
                "crash-looping" if looping else "restarting",
                self._obituary(watched, died),
            )
            await asyncio.sleep(pause)
        await asyncio.Event().wait()  # the others go on

    async def _until_dependencies_are_ready(self, watched: Watched) -> None:
        for name in watched.spec.depends_on:
            while self._by_name[name].status != "ready":
                self._set(watched, "waiting", f"for {name}")
                await asyncio.sleep(_PROBE_SECONDS)

    def _start(self, watched: Watched) -> Child:
        spec = watched.spec
        child = Child(
            spec.argv,
            env={**os.environ, **spec.env},
            log=watched.log,
            cwd=Path(__file__).parents[2],
        )
        watched.child = child
        self._set(watched, "starting", "")
        return child

    async def _until_it_ends(self, watched: Watched, child: Child) -> int:
        """Watch a process until it ends; returns its exit code."""
        spec = watched.spec
        alive_at = time.monotonic()
        next_look = 0.0
        while (code := child.exit_code()) is None:
            now = time.monotonic()
            if now >= next_look:
                problem = await probe(spec.ready_url, child.pid) if spec.ready_url else None
                self._note_readiness(watched, problem)
                if spec.live_url is None or await probe(spec.live_url, child.pid) is None:
                    alive_at = time.monotonic()
                elif watched.ready_since is None:
                    alive_at = max(alive_at, child.started)
                if time.monotonic() - alive_at > STALLED_SECONDS:
                    self._set(watched, "unready", "made no progress: is restarted")
                    await child.end(spec.stop_seconds)
                settled = watched.status == "ready"
                next_look = now + (_READY_PROBE_SECONDS if settled else _PROBE_SECONDS)
            await asyncio.sleep(_PROBE_SECONDS)
        return code

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

    def _obituary(self, watched: Watched, code: int) -> str:
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        path = log_path(self._state, watched.spec.name)
        return f"{how}; the last lines of {path}:{quoted(last_lines(path))}"

    def _set(self, watched: Watched, status: Status, detail: str) -> None:
        if (watched.status, watched.detail) != (status, detail):
            watched.status, watched.detail = status, detail
            self._publish()

    def _publish(self) -> None:
        """Write what runs and what is ready; a full disk must not end the supervisor."""
        ready = [watched.spec for watched in self._watched if watched.status == "ready"]
        names = [spec.name for spec in ready]
        with suppress(OSError):
            if names != self._listed:
                write_discovery(self._state, ready)
                self._listed = names
            write_json(
                processes_path(self._state),
                {
                    SUPERVISOR: self._identity.document() if self._identity else None,
                    KAFKA: self._kafka_entry if self._plan.embedded_kafka else None,
                    "processes": [watched.document() for watched in self._watched],
                },
            )

    async def _keep_table(self) -> None:
        """Keep peaks of memory through restarts, and the table fresh."""
        while True:
            for watched in self._watched:
                if watched.child is not None:
                    peak = memory_of(watched.child.pid).peak
                    watched.peak_rss = max(watched.peak_rss, peak)
            self._publish()
            await asyncio.sleep(_TABLE_SECONDS)

    async def _keep_kafka(self) -> None:
        """Start the state folder's Kafka again when it died."""
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
            entry["detail"] = entry["detail"] or "died"
            entry["restarts"] += 1
            self._publish()
            await asyncio.sleep(pause)
            entry["detail"] = await self._start_kafka(kafka.port)
            seen = time.monotonic()
            self._publish()

    async def _start_kafka(self, port: int) -> str:
        """Start Kafka on the port that the others know; returns why it failed, or nothing."""
        # Another process does it, so that no Kafka client stays in the supervisor's memory.
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "shashin.local.kafka", "start", str(self._state), "--port", str(port)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )
        _, errors = await process.communicate()
        return errors.decode("utf-8", errors="replace").strip()

    async def _end_all(self) -> None:
        for watched in reversed(self._watched):
            if (child := watched.child) is not None:
                self._set(watched, "unready", "is stopping")
                await child.end(watched.spec.stop_seconds)
                watched.peak_rss = max(watched.peak_rss, memory_of(child.pid).peak)
                child.close()
                watched.child = None
            self._set(watched, "stopped", "")
            watched.log.close()


@contextmanager
def only_one(state_folder: Path) -> Iterator[bool]:
    """Hold the state folder for one supervisor while the context is open; yields whether it does."""
    with (state_folder / "supervisor.lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


async def supervise(state_folder: Path) -> int:
    """Run the plan of a state folder until SIGTERM; returns the exit code.

    Raises:
        UserError: when there is no plan, or none that can be run.
    """
    with only_one(state_folder) as alone:
        if not alone:
            return ALREADY_RUNNING
        plan = read_plan(state_folder)
        if plan is None:
            raise UserError(f"there is no plan in {state_folder}: nothing is known to run")
        await end_leftovers(state_folder)
        supervisor = Supervisor(state_folder, plan)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, supervisor.stopping.set)
        await supervisor.run()
    return 0


def run_to_exit(work: Coroutine[Any, Any, int]) -> None:
    """Run and exit: with what it returns, or 1 and one line on stderr."""
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
