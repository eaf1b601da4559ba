"""A recorded process is identified even if its pid is reused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from shashin.local.identity import Memory, ProcessIdentity, memory_of
from tests.support.waiting import until

WAITS = "import sys; print('runs', flush=True); sys.stdin.read()"
IGNORES_SIGTERM = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {WAITS}"


@contextmanager
def running(program: str = WAITS, *, group: bool = False) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program until the context is left, whatever it does."""
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        process_group=0 if group else None,
    ) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            yield process
        finally:
            process.kill()


def identity(pid: int) -> ProcessIdentity:
    found = ProcessIdentity.of(pid)
    assert found is not None
    return found


def test_a_process_is_known_again_while_it_runs_and_not_after_that() -> None:
    with running() as process:
        known = identity(process.pid)
        assert known == identity(process.pid)
        assert known.is_running()
    assert not known.is_running()
    assert ProcessIdentity.of(known.pid) != known


def test_a_process_that_has_the_pid_of_an_earlier_one_is_not_that_one() -> None:
    with running() as process:
        earlier = replace(identity(process.pid), birth="of an earlier process")
        assert not earlier.is_running()
        earlier.send(signal.SIGKILL)
        earlier.send(signal.SIGKILL, group=True)
        assert process.poll() is None
        assert identity(process.pid).is_running(), "it was not killed"


async def test_a_process_that_has_the_pid_of_an_earlier_one_is_not_ended() -> None:
    with running() as process:
        earlier = replace(identity(process.pid), birth="of an earlier process")
        await earlier.end(grace=60)
        assert identity(process.pid).is_running()


def test_setting_the_clock_does_not_change_a_process_identity() -> None:
    with running() as process:
        known = identity(process.pid)
        assert replace(known, create_time=known.create_time + 3600).is_running()


async def test_a_zombie_does_not_count_as_running() -> None:
    with running() as process:
        known = identity(process.pid)
        known.send(signal.SIGKILL)
        await until(lambda: not known.is_running(), "it is dead")
        assert ProcessIdentity.of(process.pid) is None
        os.kill(process.pid, 0)  # its pid is still taken


async def test_a_process_ends_when_asked() -> None:
    with running() as process:
        known = identity(process.pid)
        await known.end(grace=60)
        assert not known.is_running()
        assert process.wait() == -signal.SIGTERM


async def test_a_process_that_ignores_sigterm_is_killed() -> None:
    with running(IGNORES_SIGTERM) as process:
        known = identity(process.pid)
        await known.end(grace=0.1)
        assert not known.is_running()
        assert process.wait() == -signal.SIGKILL


async def test_a_process_group_ends_with_its_leader() -> None:
    starts_another = (
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import sys; sys.stdin.read()'])\n"
        "print(child.pid, flush=True)\n"
        "child.wait()\n"
    )
    with subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "-c", starts_another],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        process_group=0,
    ) as leader:
        assert leader.stdout is not None
        child = identity(int(leader.stdout.readline()))
        await identity(leader.pid).end(grace=60, group=True)
        await until(lambda: not child.is_running(), "its child is gone, too")


def test_what_is_written_is_read() -> None:
    known = identity(os.getpid())
    assert ProcessIdentity.from_document(known.document()) == known


@pytest.mark.parametrize(
    "document",
    [None, {}, [], "pid", {"pid": 1}, {"pid": "x", "create_time": 0, "birth": ""}, {"birth": ""}],
)
def test_an_invalid_document_is_none(document: Any) -> None:
    assert ProcessIdentity.from_document(document) is None


def test_memory_counts_a_process_with_its_children_or_alone() -> None:
    with running() as process:
        child = memory_of(process.pid)
        alone = memory_of(os.getpid(), with_children=False)
        together = memory_of(os.getpid())
    assert 0 < child.rss <= child.peak
    assert 0 < alone.rss <= alone.peak
    assert together.peak >= alone.peak + child.peak


def test_a_process_that_is_gone_holds_no_memory() -> None:
    with running() as process:
        pid = process.pid
    assert memory_of(pid) == Memory(0, 0)
