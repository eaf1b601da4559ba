"""The supervisor with real processes: start, liveness, restart and shutdown."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from shashin.errors import ProcessFailed, UserError
from shashin.local import control
from shashin.local.kafka import EmbeddedKafka
from shashin.local.ports import free_port
from shashin.local.processes import (
    EndpointSpec,
    Plan,
    ProcessRow,
    ProcessSpec,
    discovery_path,
    log_path,
    plan_path,
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
        if self.path == "/livez" and ready:
            print("is live", flush=True)
    def log_message(self, *args):
        pass
print("serving", os.getpid(), flush=True)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Probe).serve_forever()
"""

SLOW = f"""
import os, pathlib, select, sys
go = pathlib.Path(sys.argv[3])
while not go.exists():
    select.select([], [], [], 0.02)
{SERVER}
"""
"""Serves nothing, neither a port nor a probe, until a file exists."""

OWNER = f"""
import os, pathlib
from shashin.runtime.work_folder import WorkFolder
work = WorkFolder(pathlib.Path(os.environ["SHASHIN_WORK_FOLDER"]))
work.clear()
{SERVER}
"""
"""Serves once it owns its work folder."""

STALLED_SECONDS = 0.5


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


def supervisor_log(state: Path, name: str) -> list[dict[str, Any]]:
    """Return what the supervisor logged about a process."""
    lines = log_path(state, "supervisor").read_text(encoding="utf-8").splitlines()
    return [line for line in map(json.loads, lines) if line.get("process") == name]


def row(state: Path, name: str) -> ProcessRow:
    return next(row for row in process_table(state) if row.name == name)


def discovered(state: Path) -> set[str]:
    return {e["name"] for e in json.loads(discovery_path(state).read_text())["endpoints"]}


async def test_a_work_folder_that_an_earlier_version_left_unmarked_is_used_again(
    state: Path, tmp_path: Path
) -> None:
    plain = server("one", tmp_path / "no")
    env = {"SHASHIN_WORK_FOLDER": str(state / "work" / "one")}
    spec = replace(plain, argv=(*plain.argv[:2], OWNER, *plain.argv[3:]), env=env)
    leftover = state / "work" / "one" / "held"
    leftover.mkdir(parents=True)
    for _ in range(2):
        with pytest.raises(ProcessFailed, match="SettingsError"):
            await control.up(state, [spec])
        assert leftover.is_dir(), "no earlier version was started here: it may be the user's"

    (state / "work" / "other").mkdir()
    document = Plan((spec,)).document()
    del document["marks_work_folders"]
    plan_path(state).write_text(json.dumps(document))
    assert await control.up(state, [spec])
    assert not leftover.exists()
    assert list((state / "work" / "other").iterdir()) == []


async def test_everything_starts_and_a_second_start_finds_it_running(
    state: Path, tmp_path: Path
) -> None:
    specs = [server("one", tmp_path / "no"), server("two", tmp_path / "no", depends_on=("one",))]
    assert await control.up(state, specs, options={"a": 1})
    assert {r.name: r.status for r in process_table(state)} == {
        "one": "ready",
        "two": "ready",
        "supervisor": "ready",
    }
    assert discovered(state) == {"one", "two"}
    assert not await control.up(state, specs, options={"a": 1})
    with pytest.raises(
        UserError, match=r"is already running with other settings \(a is 1, not 2\)"
    ):
        await control.up(state, specs, options={"a": 2})
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


async def test_a_process_with_wrong_settings_fails_the_start_with_its_own_message(
    state: Path,
) -> None:
    words = "print('SHASHIN_TIER=5: is no tier'); raise SystemExit(2)"
    spec = ProcessSpec(
        name="broken", argv=(sys.executable, "-c", words), ready_url="http://127.0.0.1:1/"
    )
    with pytest.raises(ProcessFailed, match="SHASHIN_TIER=5: is no tier"):
        await control.up(state, [spec])
    assert process_table(state) == []


async def test_circular_dependencies_are_rejected(state: Path, tmp_path: Path) -> None:
    specs = [
        server("one", tmp_path / "no", depends_on=("two",)),
        server("two", tmp_path / "no", depends_on=("one",)),
    ]
    with pytest.raises(UserError, match="circular process dependency: one -> two -> one"):
        await control.up(state, specs)


# --- liveness -----------------------------------------------------------------------------------


async def test_a_process_that_starts_slowly_is_not_taken_for_a_stalled_one(
    state: Path, tmp_path: Path
) -> None:
    go, base = tmp_path / "go", server("slow", tmp_path / "no")
    spec = replace(
        base,
        argv=(sys.executable, "-c", SLOW, *base.argv[3:], str(go)),
        live_url=base.ready_url,
        stalled_seconds=STALLED_SECONDS,
    )
    starting = asyncio.ensure_future(control.up(state, [spec]))

    def is_silent_for_long() -> bool:
        found = [r for r in process_table(state) if r.name == "slow" and r.create_time]
        return any(time.time() - (r.create_time or 0) > 6 * STALLED_SECONDS for r in found)

    await until(
        lambda: starting.done() or is_silent_for_long(),
        "it is silent for longer than a stall may last",
    )
    pids = {r.name: r.pid for r in process_table(state)}
    go.touch()
    assert await starting
    slow = row(state, "slow")
    assert (slow.status, slow.restarts, slow.last_restart) == ("ready", 0, None)
    assert slow.pid == pids["slow"]


async def test_a_process_that_never_answers_is_restarted_once_its_start_takes_too_long(
    state: Path,
) -> None:
    spec = ProcessSpec(
        name="silent",
        argv=(sys.executable, "-c", "import signal; signal.pause()"),
        live_url=f"http://127.0.0.1:{free_port()}/livez",
        startup_seconds=0.5,
    )
    await control.up(state, [spec])
    await until(lambda: row(state, "silent").restarts > 0, "it is restarted")
    restart = row(state, "silent").last_restart
    assert restart is not None
    reason = "it did not start within 0.5 s (not listening)"
    assert restart.reason == reason
    assert reason in {line.get("reason") for line in supervisor_log(state, "silent")}


async def test_a_process_that_stops_answering_is_restarted_with_what_it_said_last(
    state: Path, tmp_path: Path
) -> None:
    unwell, base = tmp_path / "unwell", server("one", tmp_path / "no")
    spec = replace(
        base,
        argv=(*base.argv[:4], str(unwell)),
        live_url=f"http://{base.endpoints[0].address}/livez",
        stalled_seconds=STALLED_SECONDS,
    )
    await control.up(state, [spec])
    await until(lambda: "is live" in log_path(state, "one").read_text(), "it has answered")
    unwell.touch()
    await until(lambda: row(state, "one").restarts > 0, "it is restarted")
    restart = row(state, "one").last_restart
    assert restart is not None
    assert restart.reason.startswith("it failed its liveness probe for ")
    assert restart.reason.endswith(" s (waits for a file to go)")


# --- records of a restart ----------------------------------------------------------------------


async def test_a_restart_leaves_its_reason_in_both_logs_and_in_the_table(
    state: Path, tmp_path: Path
) -> None:
    await control.up(state, [server("one", tmp_path / "no")])
    before = row(state, "one")
    assert before.pid is not None
    os.kill(before.pid, signal.SIGKILL)

    def is_back() -> bool:
        now = row(state, "one")
        return now.well and now.pid != before.pid

    await until(is_back, "it is ready again")
    restart = row(state, "one").last_restart
    assert restart is not None
    assert restart.reason == "it was killed by signal 9"
    logged = [(line["event"], line.get("reason")) for line in supervisor_log(state, "one")]
    assert logged == [
        ("started", None),
        ("ready", None),
        ("ended", restart.reason),
        ("restarted", restart.reason),
        ("ready", None),
    ]
    assert {line["service"] for line in supervisor_log(state, "one")} == {"supervisor"}
    own = log_path(state, "one").read_text().splitlines()
    assert own[0] == f"serving {before.pid}"
    assert json.loads(own[1])["event"] == f"supervisor: restarted because {restart.reason}"
    assert own[2] == f"serving {row(state, 'one').pid}"


async def test_the_log_says_why_a_process_is_not_ready_and_when_it_is_ready_again(
    state: Path, tmp_path: Path
) -> None:
    unready = tmp_path / "unready"
    await control.up(state, [server("one", unready)])
    unready.touch()
    await until(lambda: row(state, "one").status == "unready", "it is not ready")
    unready.unlink()
    await until(lambda: row(state, "one").well, "it is ready again")
    logged = [(line["event"], line.get("reason")) for line in supervisor_log(state, "one")]
    assert logged[2:] == [("not ready", "waits for a file to go"), ("ready again", None)]


async def test_a_supervisor_appends_to_the_log_of_an_earlier_one(
    state: Path, tmp_path: Path
) -> None:
    for _ in range(2):
        await control.up(state, [server("one", tmp_path / "no")])
        await control.down(state)
    logged = log_path(state, "supervisor").read_text(encoding="utf-8").splitlines()
    events = [line["event"] for line in map(json.loads, logged) if "process" not in line]
    assert events == ["started", "stopping", "stopped"] * 2


async def test_a_kafka_that_died_is_restarted_with_its_reason(state: Path, tmp_path: Path) -> None:
    kafka = EmbeddedKafka(state, port=free_port())
    await kafka.start()
    try:
        await control.up(state, [server("one", tmp_path / "no")], embedded_kafka=True)
        before = kafka.pid
        assert before is not None
        os.kill(before, signal.SIGKILL)

        def is_back() -> bool:
            now = row(state, "kafka")
            return now.well and now.pid not in {None, before} and now.restarts == 1

        await until(is_back, "kafka is ready again", limit_seconds=150)
        restart = row(state, "kafka").last_restart
        assert restart is not None
        assert restart.reason == "its process died"
        await until(
            lambda: (
                [(line["event"], line.get("reason")) for line in supervisor_log(state, "kafka")]
                == [("ended", restart.reason), ("restarted", restart.reason), ("ready", None)]
            ),
            "its log says so",
        )
        assert f"supervisor: restarted because {restart.reason}\n" in kafka.log.read_text()
    finally:
        await control.down(state)
        await kafka.stop()
