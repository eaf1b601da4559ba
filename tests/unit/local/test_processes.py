"""The plan and the process table, which the supervisor and the commands share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shashin.errors import UserError
from shashin.local.control import require_same_options
from shashin.local.identity import ProcessIdentity
from shashin.local.processes import (
    EndpointSpec,
    Plan,
    ProcessRow,
    ProcessSpec,
    plan_path,
    process_table,
    processes_path,
    read_plan,
    recorded_processes,
    start_order,
    supervisor_identity,
)
from shashin.local.restart import Restart
from shashin.runtime.json_file import write_json

TEXT = st.text(max_size=6)
WORDS = st.dictionaries(TEXT, TEXT, max_size=2)
SPECS = st.builds(
    ProcessSpec,
    name=TEXT,
    argv=st.lists(TEXT, max_size=3).map(tuple),
    env=WORDS,
    ready_url=st.none() | TEXT,
    live_url=st.none() | TEXT,
    startup_seconds=st.floats(0, 1000),
    stalled_seconds=st.floats(0, 100),
    depends_on=st.lists(TEXT, max_size=2).map(tuple),
    addresses=WORDS,
    endpoints=st.lists(st.builds(EndpointSpec, TEXT, TEXT, st.none() | TEXT), max_size=2).map(
        tuple
    ),
    stop_seconds=st.floats(0, 100),
)
PLANS = st.builds(
    Plan,
    processes=st.lists(SPECS, max_size=3).map(tuple),
    embedded_kafka=st.booleans(),
    asked=st.dictionaries(TEXT, st.none() | TEXT | st.integers() | st.booleans(), max_size=3),
)


# --- the plan -----------------------------------------------------------------------------------


@given(PLANS)
def test_a_plan_is_read_as_it_was_written(plan: Plan) -> None:
    assert Plan.from_document(json.loads(json.dumps(plan.document()))) == plan


def test_a_plan_of_an_earlier_version_is_read_with_the_usual_bounds() -> None:
    document = Plan((ProcessSpec("router", ("a",)),)).document()
    for entry in document["processes"]:
        del entry["startup_seconds"], entry["stalled_seconds"]
    assert Plan.from_document(document) == Plan((ProcessSpec("router", ("a",)),))


def test_a_state_folder_without_a_plan_has_none(tmp_path: Path) -> None:
    assert read_plan(tmp_path) is None
    write_json(plan_path(tmp_path), Plan(()).document())
    assert read_plan(tmp_path) == Plan(())


@pytest.mark.parametrize(
    "content",
    [
        "",
        "no json",
        "[]",
        "{}",
        '{"format": 2, "processes": [], "embedded_kafka": false, "asked": {}}',
        '{"format": 1, "processes": [{"name": "router"}], "embedded_kafka": false, "asked": {}}',
        '{"format": 1, "processes": [7], "embedded_kafka": false, "asked": {}}',
    ],
)
def test_a_plan_that_cannot_be_read_is_refused(tmp_path: Path, content: str) -> None:
    plan_path(tmp_path).write_text(content)
    with pytest.raises(UserError, match="the process plan cannot be read"):
        read_plan(tmp_path)


# --- the order of starts ------------------------------------------------------------------------


def specs(depends_on: dict[str, Sequence[str]]) -> list[ProcessSpec]:
    return [ProcessSpec(name, (), depends_on=tuple(on)) for name, on in depends_on.items()]


@given(st.data(), st.integers(0, 7))
def test_each_comes_after_what_it_depends_on_and_otherwise_as_given(
    data: st.DataObject, count: int
) -> None:
    names = [f"process-{number}" for number in range(count)]
    order = data.draw(st.permutations(names))
    needs = {
        name: data.draw(st.lists(st.sampled_from(order[:place]), unique=True)) if place else []
        for place, name in enumerate(order)
    }
    given_order = data.draw(st.permutations(names))
    started = [
        spec.name for spec in start_order(specs({name: needs[name] for name in given_order}))
    ]
    assert sorted(started) == names
    for name in names:
        assert all(started.index(on) < started.index(name) for on in needs[name])
    if not any(needs.values()):
        assert started == list(given_order)


@pytest.mark.parametrize(
    ("depends_on", "says"),
    [
        ({"a": ["a"]}, "a -> a"),
        ({"a": ["b"], "b": ["a"]}, "a -> b -> a"),
        ({"a": [], "b": ["a", "d"], "c": ["b"], "d": ["c"]}, "b -> d -> c -> b"),
    ],
)
def test_circular_dependencies_are_rejected_by_name(
    depends_on: dict[str, Sequence[str]], says: str
) -> None:
    with pytest.raises(UserError, match=f"circular process dependency: {says}$"):
        start_order(specs(depends_on))


def test_an_unplanned_dependency_is_rejected_by_name() -> None:
    with pytest.raises(
        UserError, match="process router depends on 'indexr', which is not in the plan"
    ):
        start_order(specs({"indexer": [], "router": ["indexer", "indexr"]}))


def test_a_name_that_is_given_twice_is_refused() -> None:
    with pytest.raises(UserError, match="two processes with the same name"):
        start_order([*specs({"router": []}), *specs({"router": []})])


# --- the process table --------------------------------------------------------------------------


@pytest.fixture
def gone() -> ProcessIdentity:
    """A process that ran once."""
    with subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE
    ) as process:
        identity = ProcessIdentity.of(process.pid)
    assert identity is not None
    assert not identity.is_running()
    return identity


@pytest.fixture
def alive() -> Iterator[ProcessIdentity]:
    with subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE
    ) as process:
        identity = ProcessIdentity.of(process.pid)
        assert identity is not None
        yield identity


def entry(name: str, status: str, identity: ProcessIdentity | None, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "status": status,
        "detail": "",
        **(identity.document() if identity is not None else {}),
        "restarts": 0,
        "addresses": {},
        "rss_bytes": 0,
        "peak_rss_bytes": 0,
        **more,
    }


def write_table(
    state: Path, supervisor: ProcessIdentity, *entries: dict[str, Any], kafka: Any = None
) -> None:
    document = {"supervisor": supervisor.document(), "kafka": kafka, "processes": list(entries)}
    write_json(processes_path(state), document)


def table(state: Path) -> dict[str, ProcessRow]:
    return {row.name: row for row in process_table(state)}


def this_process() -> ProcessIdentity:
    identity = ProcessIdentity.of(os.getpid())
    assert identity is not None
    return identity


def test_what_runs_is_shown_as_the_supervisor_says_with_its_memory_now_and_at_peak(
    tmp_path: Path, alive: ProcessIdentity
) -> None:
    write_table(
        tmp_path,
        this_process(),
        entry(
            "router",
            "unready",
            alive,
            detail="no endpoint",
            restarts=2,
            peak_rss_bytes=10**12,
            addresses={"grpc": "127.0.0.1:50051"},
        ),
        entry("indexer", "waiting", None, detail="for embedder"),
    )
    rows = table(tmp_path)
    router = rows["router"]
    assert (router.status, router.detail, router.restarts) == ("unready", "no endpoint", 2)
    assert (router.pid, router.create_time) == (alive.pid, alive.create_time)
    assert router.addresses == {"grpc": "127.0.0.1:50051"}
    assert 0 < router.rss_bytes < router.peak_rss_bytes == 10**12, "a peak outlives a restart"
    assert not router.well
    assert (rows["indexer"].status, rows["indexer"].pid) == ("waiting", None)
    assert rows["supervisor"].well
    assert rows["supervisor"].pid == os.getpid()


def test_of_a_dead_supervisor_whatever_is_gone_is_stopped(
    tmp_path: Path, alive: ProcessIdentity, gone: ProcessIdentity
) -> None:
    write_table(
        tmp_path,
        gone,
        entry("router", "ready", gone),
        entry("indexer", "starting", gone),
        entry("embedder", "ready", alive),
    )
    rows = table(tmp_path)
    for name in ("router", "indexer", "supervisor"):
        assert (rows[name].status, rows[name].pid) == ("stopped", None)
        assert rows[name].detail == "its supervisor is not running"
    assert rows["embedder"].status == "ready", "it was left behind"


def test_nothing_runs_once_the_supervisor_and_all_its_processes_are_gone(
    tmp_path: Path, gone: ProcessIdentity
) -> None:
    write_table(tmp_path, gone, entry("router", "ready", gone))
    assert process_table(tmp_path) == []
    assert supervisor_identity(tmp_path) == gone


def test_another_process_with_a_recorded_pid_is_not_taken_for_the_recorded_one(
    tmp_path: Path, alive: ProcessIdentity
) -> None:
    earlier = replace(alive, birth="of an earlier process")
    write_table(tmp_path, earlier, entry("router", "ready", earlier))
    assert process_table(tmp_path) == []


@pytest.mark.parametrize("content", [None, "", "no json", "[]", "7"])
def test_a_state_folder_in_which_nothing_was_ever_started_has_no_processes(
    tmp_path: Path, content: str | None
) -> None:
    if content is not None:
        processes_path(tmp_path).write_text(content)
    assert process_table(tmp_path) == []
    assert recorded_processes(tmp_path) == []
    assert supervisor_identity(tmp_path) is None


def test_recorded_are_the_processes_that_had_been_started(
    tmp_path: Path, alive: ProcessIdentity, gone: ProcessIdentity
) -> None:
    write_table(
        tmp_path,
        this_process(),
        entry("router", "ready", alive),
        entry("indexer", "waiting", None),
        entry("embedder", "ready", gone),
    )
    assert recorded_processes(tmp_path) == [alive, gone]


def test_kafka_is_shown_first_and_also_without_a_supervisor(
    tmp_path: Path, alive: ProcessIdentity, gone: ProcessIdentity
) -> None:
    write_json(tmp_path / "kafka" / "process.json", {**alive.document(), "port": 9092})
    (row,) = process_table(tmp_path)
    assert (row.name, row.status, row.pid) == ("kafka", "ready", alive.pid)
    assert row.addresses == {"kafka": "127.0.0.1:9092"}
    write_table(tmp_path, gone, entry("router", "ready", alive))
    assert [row.name for row in process_table(tmp_path)] == ["kafka", "router", "supervisor"]


def test_kafka_that_is_gone_is_shown_while_its_supervisor_starts_it_again(
    tmp_path: Path, gone: ProcessIdentity
) -> None:
    write_json(tmp_path / "kafka" / "process.json", {**gone.document(), "port": 9092})
    assert process_table(tmp_path) == []
    last = Restart("its process died", 1e9)
    kafka = {
        "status": "restarting",
        "detail": "died",
        "restarts": 3,
        "last_restart": last.document(),
    }
    write_table(tmp_path, this_process(), kafka=kafka)
    row = table(tmp_path)["kafka"]
    assert (row.status, row.detail, row.restarts) == ("restarting", "died", 3)
    assert row.last_restart == last


def test_why_a_process_was_restarted_is_known_after_it_is_ready_again(
    tmp_path: Path, alive: ProcessIdentity
) -> None:
    last = Restart("it was killed by signal 9", 1e9)
    write_table(
        tmp_path,
        this_process(),
        entry("router", "ready", alive, restarts=1, last_restart=last.document()),
        entry("indexer", "ready", alive, last_restart=None),
    )
    rows = table(tmp_path)
    assert rows["router"].well
    assert rows["router"].last_restart == last
    assert rows["indexer"].last_restart is None


@pytest.mark.parametrize("recorded", [{}, {"last_restart": {"at": 7}}, {"last_restart": "gone"}])
def test_a_table_that_does_not_say_why_a_process_was_restarted_is_shown_without_it(
    tmp_path: Path, alive: ProcessIdentity, recorded: dict[str, Any]
) -> None:
    write_table(tmp_path, this_process(), entry("router", "ready", alive, restarts=1, **recorded))
    router = table(tmp_path)["router"]
    assert (router.well, router.restarts, router.last_restart) == (True, 1, None)


def test_a_table_that_is_no_longer_updated_is_reported(
    tmp_path: Path, alive: ProcessIdentity
) -> None:
    write_table(tmp_path, this_process(), entry("router", "ready", alive))
    written = processes_path(tmp_path).stat().st_mtime - 300
    os.utime(processes_path(tmp_path), (written, written))
    supervisor = table(tmp_path)["supervisor"]
    assert (supervisor.status, supervisor.pid) == ("unready", os.getpid())
    assert supervisor.detail.startswith("has not updated what is shown here for 3")
    assert f"the disk of {tmp_path} is full" in supervisor.detail


# --- options of a running system -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("known", "asked", "differs"),
    [
        ({"model": "a"}, {"model": "a"}, None),
        ({"model": "a"}, {"model": "b"}, "model is a, not b"),
        ({}, {"SHASHIN_CONCURRENCY": "4"}, "SHASHIN_CONCURRENCY is None, not 4"),
        ({"SHASHIN_CONCURRENCY": "4"}, {}, "SHASHIN_CONCURRENCY is 4, not None"),
        ({"an option of before": 1}, {}, None),
    ],
)
def test_a_setting_that_differs_from_the_running_ones_is_refused_by_name(
    tmp_path: Path, known: dict[str, Any], asked: dict[str, Any], differs: str | None
) -> None:
    write_json(plan_path(tmp_path), Plan((), asked=known).document())
    if differs is None:
        require_same_options(tmp_path, asked)
        return
    with pytest.raises(UserError, match=differs):
        require_same_options(tmp_path, asked)
