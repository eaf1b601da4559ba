"""Ports of this machine: which are free, and who holds the others."""

from __future__ import annotations

import socket
from contextlib import suppress

import psutil

from shashin.errors import UserError

HOST = "127.0.0.1"


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
