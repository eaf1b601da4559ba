"""The supervisor with real processes: starts, watches, restarts, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from shashin.errors import ProcessFailed, UserError
from shashin.local import control
from shashin.local.ports import free_port
from shashin.local.processes import (
    EndpointSpec,
    ProcessRow,
    ProcessSpec,
    discovery_path,
    process_table,
    supervisor_identity,
)
from shashin.runtime.health import Health
from shashin.runtime.probes import start_probes
from tests.support.waiting import until

SERVER = """
import http.server, os, pathlib, sys
class Probe(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        ready = not pathlib.Path(sys.argv[2]).exists()
        self.send_response(200 if ready else 503)
        self.end_headers()
        self.wfile.write(b"ok" if ready else b"waits for a file to go")
    def log_message(self, *args):
        pass
print("serving", os.getpid(), flush=True)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Probe).serve_forever()
"""


@pytest.fixture
async def state(tmp_path: Path) -> AsyncIterator[Path]:
    folder = tmp_path / "state"
    folder.mkdir()
    try:
        yield folder
    finally:
        await control.down(folder)


def server(name: str, unready: Path, *, depends_on: tuple[str, ...] = ()) -> ProcessSpec:
    """Return a process that is ready unless the file ``unready`` exists."""
    port = free_port()
    return ProcessSpec(
        name=name,
        argv=(sys.executable, "-c", SERVER, str(port), str(unready)),
        ready_url=f"http://127.0.0.1:{port}/readyz",
        depends_on=depends_on,
        endpoints=(EndpointSpec("index-server", f"127.0.0.1:{port}", "hourly"),),
    )


def row(state: Path, name: str) -> ProcessRow:
    return next(row for row in process_table(state) if row.name == name)


def discovered(state: Path) -> set[str]:
    return {e["name"] for e in json.loads(discovery_path(state).read_text())["endpoints"]}


async def test_everything_starts_and_a_second_start_finds_it_running(
    state: Path, tmp_path: Path
) -> None:
    specs = [server("one", tmp_path / "no"), server("two", tmp_path / "no", depends_on=("one",))]
    assert await control.up(state, specs, asked={"a": 1})
    assert {r.name: r.status for r in process_table(state)} == {
        "one": "ready",
        "two": "ready",
        "supervisor": "ready",
    }
    assert discovered(state) == {"one", "two"}
    assert not await control.up(state, specs, asked={"a": 1})
    with pytest.raises(UserError, match=r"runs already with other settings \(a is 1, not 2\)"):
        await control.up(state, specs, asked={"a": 2})
    assert await control.down(state)
    assert process_table(state) == []
    assert not await control.down(state)


async def test_a_killed_process_is_started_again_and_leaves_discovery_meanwhile(
    state: Path, tmp_path: Path
) -> None:
    unready = tmp_path / "unready"
    await control.up(state, [server("one", unready)])
    before = row(state, "one")
    assert before.pid is not None
    unready.touch()
    os.kill(before.pid, signal.SIGKILL)
    await until(lambda: row(state, "one").restarts == 1, "it is started again")
    await until(lambda: discovered(state) == set(), "it is not listed while it is not ready")
    unready.unlink()
    await until(lambda: row(state, "one").well, "it is ready again")
    assert row(state, "one").pid != before.pid
    assert discovered(state) == {"one"}


async def test_an_answer_of_another_process_on_its_port_makes_no_process_ready(
    state: Path,
) -> None:
    health = Health()
    runner, port = await start_probes(health, "127.0.0.1", 0)
    try:
        words = f"print('port {port} is taken'); import time; time.sleep(0.5); raise SystemExit(2)"
        spec = ProcessSpec(
            name="late",
            argv=(sys.executable, "-c", words),
            ready_url=f"http://127.0.0.1:{port}/readyz",
        )
        with pytest.raises(ProcessFailed, match=f"port {port} is taken"):
            await control.up(state, [spec])
    finally:
        await runner.cleanup()


async def test_the_supervisors_memory_is_its_own(state: Path, tmp_path: Path) -> None:
    await control.up(state, [server("one", tmp_path / "no")])
    pid = row(state, "supervisor").pid
    assert pid is not None
    alone = psutil.Process(pid).memory_info().rss
    one = row(state, "one").rss_bytes
    assert row(state, "supervisor").rss_bytes < alone + one / 2


async def test_a_process_that_stops_being_ready_says_why_and_leaves_discovery(
    state: Path, tmp_path: Path
) -> None:
    unready = tmp_path / "unready"
    await control.up(state, [server("one", unready)])
    unready.touch()
    await until(lambda: row(state, "one").status == "unready", "it is unready")
    assert row(state, "one").detail == "waits for a file to go"
    await until(lambda: discovered(state) == set(), "it is not listed")
    assert row(state, "one").restarts == 0


async def test_the_processes_end_with_a_supervisor_that_is_killed(
    state: Path, tmp_path: Path
) -> None:
    await control.up(state, [server("one", tmp_path / "no")])
    pid = row(state, "one").pid
    supervisor = supervisor_identity(state)
    assert pid is not None
    assert supervisor is not None
    supervisor.send(signal.SIGKILL)
    await until(lambda: not psutil.pid_exists(pid), "its process is gone, too")
    assert await control.up(state, [server("one", tmp_path / "no")]), "it can be started again"


async def test_a_process_that_cannot_run_as_it_is_set_ends_the_start_with_its_own_words(
    state: Path,
) -> None:
    words = "print('SHASHIN_TIER=5: is no tier'); raise SystemExit(2)"
    spec = ProcessSpec(
        name="broken", argv=(sys.executable, "-c", words), ready_url="http://127.0.0.1:1/"
    )
    with pytest.raises(ProcessFailed, match="SHASHIN_TIER=5: is no tier"):
        await control.up(state, [spec])
    assert process_table(state) == []


async def test_processes_that_wait_for_each_other_are_refused(state: Path, tmp_path: Path) -> None:
    specs = [
        server("one", tmp_path / "no", depends_on=("two",)),
        server("two", tmp_path / "no", depends_on=("one",)),
    ]
    with pytest.raises(UserError, match="wait for each other: one -> two -> one"):
        await control.up(state, specs)
