"""What keeps the stack from starting is said before anything starts."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compose.stack import (
    NEEDED_DISK,
    NEEDED_MEMORY,
    disk_problems,
    memory_problems,
    port_problems,
    ports,
    run_saying,
)

ROOT = Path(__file__).parents[3]


def occupied() -> tuple[socket.socket, int]:
    server = socket.socket()
    server.bind(("127.0.0.1", 0))
    server.listen()
    return server, server.getsockname()[1]


def test_a_port_in_use_is_named_with_the_variable_that_changes_it() -> None:
    server, port = occupied()
    with server:
        (problem,) = port_problems({"SHASHIN_COMPOSE_ROUTER_PORT": str(port)})
    assert str(port) in problem
    assert "SHASHIN_COMPOSE_ROUTER_PORT" in problem


def test_a_port_of_the_running_stack_is_no_problem() -> None:
    server, port = occupied()
    with server:
        assert not port_problems({"SHASHIN_COMPOSE_ROUTER_PORT": str(port)}, own=[port])


def test_two_services_cannot_have_one_port() -> None:
    found = port_problems({"SHASHIN_COMPOSE_A_PORT": "50051", "SHASHIN_COMPOSE_B_PORT": "50051"})
    assert all("both 50051" in problem for problem in found)
    assert len(found) == 2


@given(st.text().filter(lambda text: not text.isdigit()))
def test_what_is_no_port_is_named(text: str) -> None:
    (problem,) = port_problems({"SHASHIN_COMPOSE_ROUTER_PORT": text})
    assert problem.startswith("SHASHIN_COMPOSE_ROUTER_PORT=")


def test_a_variable_replaces_a_port() -> None:
    text = '"127.0.0.1:${SHASHIN_COMPOSE_S3_PORT:-18333}:8333"'
    assert ports(text, {}) == {"SHASHIN_COMPOSE_S3_PORT": "18333"}
    assert ports(text, {"SHASHIN_COMPOSE_S3_PORT": "1"}) == {"SHASHIN_COMPOSE_S3_PORT": "1"}


@given(st.integers(0, 1 << 40), st.none() | st.integers(0, 1 << 40))
def test_too_little_memory_is_said_unless_the_stack_runs_already(
    total: int, available: int | None
) -> None:
    least = total if available is None else min(total, available)
    assert bool(memory_problems(total, available, running=False)) == (least < NEEDED_MEMORY)
    assert not memory_problems(total, available, running=True)


def test_a_full_disk_is_said() -> None:
    assert not disk_problems("/docker", NEEDED_DISK, built=False)
    (problem,) = disk_problems("/docker", NEEDED_DISK - 1, built=False)
    assert "/docker" in problem


def test_without_docker_nothing_starts_and_the_command_says_what_to_install(
    tmp_path: Path,
) -> None:
    checked = subprocess.run(
        [sys.executable, "compose/stack.py", "up"],
        cwd=ROOT,
        env={**os.environ, "PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 1
    assert "install Docker" in checked.stderr
    assert "nothing was started" in checked.stderr


def test_a_docker_that_does_not_respond_is_named(tmp_path: Path) -> None:
    docker = tmp_path / "docker"
    docker.write_text("#!/bin/sh\necho 'Cannot connect to the daemon' >&2\nexit 1\n")
    docker.chmod(0o755)
    checked = subprocess.run(
        [sys.executable, "compose/stack.py", "check"],
        cwd=ROOT,
        env={**os.environ, "PATH": f"{tmp_path}:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 1
    assert "Cannot connect to the daemon" in checked.stderr


def test_a_step_says_how_far_it_is_and_that_it_ended(capfd: pytest.CaptureFixture[str]) -> None:
    assert run_saying([sys.executable, "-c", "print('Step 1/1 : FROM nothing')"], "building") == 0
    said = capfd.readouterr()
    assert said.out.endswith("building: done\n")
    assert "Step" not in said.err


def test_a_step_that_fails_shows_what_it_printed(capfd: pytest.CaptureFixture[str]) -> None:
    broken = "import sys; print('Step 1/1 : FROM nothing'); sys.exit('no such image: nothing')"
    assert run_saying([sys.executable, "-c", broken], "building") == 1
    said = capfd.readouterr()
    assert "Step 1/1 : FROM nothing" in said.err
    assert "no such image: nothing" in said.err
    assert "failed with 1" in said.err
