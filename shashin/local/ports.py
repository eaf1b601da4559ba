"""Ports of this machine: which are free, and which processes use the others."""

from __future__ import annotations

import asyncio
import fcntl
import os
import random
import socket
import tempfile
from bisect import bisect_right
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import psutil

from shashin.errors import UserError

HOST = "127.0.0.1"
_POLL_SECONDS = 0.1

_CANDIDATES = range(10_000, 30_000)
"""Above the ports that well-known servers use, below the node ports of Kubernetes."""

_GIVEN_BY_LINUX = Path("/proc/sys/net/ipv4/ip_local_port_range")
_LOCK = "shashin-ports-lock"
_LAST = "shashin-last-port"
"""Of the file with the port that was returned last, to any process of this user."""
_random = random.SystemRandom()
"""Not the module's generator: users with the same seed would begin with the same port."""


def is_free(port: int, host: str = HOST) -> bool:
    """Return whether a server could listen there now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def free_port(host: str = HOST) -> int:
    """Return a free port, for a server that may start a while later.

    It is none of those that the system gives to connections, and to servers that listen on any port: one of
    these could be taken meanwhile. For the same reason, the processes of a user get one after the other, and
    the same again only when they have been through all.
    """
    given = _given_by_the_system()
    if candidates := [port for port in _CANDIDATES if port not in given]:
        with _file_of_user(_LAST).open("a+", errors="replace") as file:
            # For the moment that it takes to find one.
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            text = file.read()
            last = int(text) if text.isdecimal() else _random.choice(candidates)
            begin = bisect_right(candidates, last)
            for port in (*candidates[begin:], *candidates[:begin]):
                if is_free(port, host):
                    file.truncate(0)
                    file.write(str(port))
                    return port
    with socket.socket() as probe:
        probe.bind((host, 0))
        any_port: int = probe.getsockname()[1]
        return any_port


def _file_of_user(name: str) -> Path:
    """Return the path of a file that all processes of this user share."""
    return Path(tempfile.gettempdir()) / f"{name}-{os.getuid()}"


def _given_by_the_system() -> range:
    """Return the ports for connections; those of IANA where the system does not name its own."""
    try:
        first, last = map(int, _GIVEN_BY_LINUX.read_text(encoding="ascii").split())
    except (OSError, ValueError):
        return range(49_152, 65_536)
    return range(first, last + 1)


def preferred_or_free(port: int, host: str = HOST) -> int:
    """Return that port if it is free, else any free one."""
    return port if is_free(port, host) else free_port(host)


@asynccontextmanager
async def choosing_ports(waiting: Callable[[], None]) -> AsyncIterator[None]:
    """Lock that lets one process of this user at a time choose ports and start listening on them.

    Without it, two processes could choose the same free ports. ``waiting`` is called while another
    process has the lock.
    """
    with _file_of_user(_LOCK).open("a") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                waiting()
                await asyncio.sleep(_POLL_SECONDS)
        yield


def require_free(port: int, *, purpose: str, instead: str, host: str = HOST) -> None:
    """Check that a port is free.

    Raises:
        UserError: naming the port, its purpose, the process that uses it and what to do instead.
    """
    if is_free(port, host):
        return
    raise UserError(
        f"port {port} on {host}, needed for {purpose}, is in use{_user_of(port)}: "
        f"stop that process, or {instead}"
    )


def _user_of(port: int) -> str:
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
