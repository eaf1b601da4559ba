"""Ports of this machine: which are free, and which processes use the others."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from shashin.errors import UserError
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


def test_a_port_that_is_free_is_not_refused() -> None:
    require_free(free_port(), purpose="kafka", instead="choose another port")


def test_a_port_in_use_is_rejected_with_its_process_and_what_to_do(taken: int) -> None:
    with pytest.raises(UserError) as refused:
        require_free(taken, purpose="kafka", instead="choose another port")
    says = refused.value.message
    assert f"port {taken} on {HOST}, needed for kafka, is in use by pid {os.getpid()} (" in says
    assert says.endswith("stop that process, or choose another port")
