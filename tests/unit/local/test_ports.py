"""Ports of this machine: which are free, and which processes use the others."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from shashin.errors import UserError
from shashin.local import ports
from shashin.local.ports import HOST, free_port, is_free, preferred_or_free, require_free


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as server:
        server.bind((HOST, 0))
        server.listen()
        yield server.getsockname()[1]


def test_a_port_in_use_is_not_free(taken: int) -> None:
    assert not is_free(taken)
    assert preferred_or_free(taken) != taken


def test_a_free_port_can_be_listened_on_and_is_free_again_after_that() -> None:
    port = free_port()
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do
        server.bind((HOST, port))
        server.listen()
        assert not is_free(port)
        with socket.create_connection((HOST, port)) as client:
            server.accept()[0].close()
            client.recv(1)
    # A connection in TIME_WAIT does not prevent listening on the port.
    assert is_free(port)
    assert preferred_or_free(port) == port


def test_a_free_port_is_none_that_the_system_gives_to_connections_or_listeners(
    taken: int,
) -> None:
    with socket.create_connection((HOST, taken)) as client:
        given = range(min(taken, client.getsockname()[1]), max(taken, client.getsockname()[1]) + 1)
    assert not any(free_port() in given for _ in range(100))


def test_processes_that_choose_at_the_same_time_choose_different_ports() -> None:
    count = 50
    choose = (
        f"from shashin.local.ports import free_port\nfor _ in range({count}): print(free_port())"
    )
    choosing = [
        subprocess.Popen([sys.executable, "-c", choose], stdout=subprocess.PIPE) for _ in range(3)
    ]
    chosen = [port for process in choosing for port in process.communicate()[0].split()]
    assert len(set(chosen)) == len(chosen) == 3 * count


def test_a_file_that_does_not_name_the_last_port_is_written_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    first = free_port()
    (file,) = tmp_path.iterdir()
    assert file.read_text() == str(first)
    file.write_bytes(b"damaged \xff")
    assert is_free(free_port())
    assert file.read_text().isdecimal()


def test_after_the_last_port_comes_the_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(ports, "_CANDIDATES", range(21_000, 21_003))
    monkeypatch.setattr(ports, "is_free", lambda _port, _host: True)
    chosen = [free_port() for _ in range(6)]
    assert chosen[:3] == chosen[3:]
    assert set(chosen) == {21_000, 21_001, 21_002}


def test_a_system_that_gives_all_ports_to_connections_has_free_ports_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    everything = tmp_path / "range"
    everything.write_text("1024\t65535\n")
    monkeypatch.setattr(ports, "_GIVEN_BY_LINUX", everything)
    assert is_free(free_port())


def test_the_ports_for_connections_are_those_of_iana_where_the_system_names_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(ports, "_GIVEN_BY_LINUX", tmp_path / "absent")
    assert free_port() < 49_152


def test_a_port_that_is_free_is_not_refused() -> None:
    require_free(free_port(), purpose="kafka", instead="choose another port")


def test_a_port_in_use_is_rejected_with_its_process_and_what_to_do(taken: int) -> None:
    with pytest.raises(UserError) as refused:
        require_free(taken, purpose="kafka", instead="choose another port")
    says = refused.value.message
    assert f"port {taken} on {HOST}, needed for kafka, is in use by pid {os.getpid()} (" in says
    assert says.endswith("stop that process, or choose another port")
