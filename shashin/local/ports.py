"""Ports of this machine: which are free, and who holds the others."""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import psutil

from shashin.errors import UserError

HOST = "127.0.0.1"
_POLL_SECONDS = 0.1


def is_free(port: int, host: str = HOST) -> bool:
    """Say whether a server could listen there now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def free_port(host: str = HOST) -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def preferred_or_free(port: int, host: str = HOST) -> int:
    """Return that port when it is free, and any other free one when it is not."""
    return port if is_free(port, host) else free_port(host)


@asynccontextmanager
async def choosing_ports(waiting: Callable[[], None]) -> AsyncIterator[None]:
    """Let one process of this user at a time choose ports and start what listens on them.

    Between the choice and the start, another one would find the same ports free. ``waiting`` is
    called when that other one is there.
    """
    path = Path(tempfile.gettempdir()) / f"shashin-ports-{os.getuid()}.lock"
    with path.open("a") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                waiting()
                await asyncio.sleep(_POLL_SECONDS)
        yield


def require_free(port: int, *, wanted_for: str, instead: str, host: str = HOST) -> None:
    """Refuse a port that is taken.

    Raises:
        UserError: naming the port, what it was wanted for, who holds it and what to do instead.
    """
    if is_free(port, host):
        return
    raise UserError(
        f"port {port} on {host}, wanted for {wanted_for}, is in use{_holder(port)}: "
        f"stop what holds it, or {instead}"
    )


def _holder(port: int) -> str:
    with suppress(psutil.Error, OSError):
        for connection in psutil.net_connections(kind="tcp"):
            if (
                connection.status == psutil.CONN_LISTEN
                and connection.laddr
                and connection.laddr.port == port
                and connection.pid is not None
            ):
                return f" by pid {connection.pid} ({psutil.Process(connection.pid).name()})"
    return ""
