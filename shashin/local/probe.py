"""A minimal HTTP probe, so that the supervisor does not have to load an HTTP library."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

_CHUNK_BYTES = 64 * 1024
_PID_HEADER = b"shashin-pid"


async def probe(url: str, pid: int, *, timeout: float = 2.0) -> str | None:  # noqa: ASYNC109
    """Return None if ``GET url`` returns 200, else the reason in one line.

    A response from a process other than ``pid`` is a failure.
    """
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or 80
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await asyncio.open_connection(host, port)
            request = f"GET {parts.path or '/'} HTTP/1.0\r\nHost: {host}:{port}\r\n\r\n"
            writer.write(request.encode("ascii"))
            answer = await reader.read(_CHUNK_BYTES)
            while data := await reader.read(_CHUNK_BYTES):
                answer += data
    except TimeoutError:
        return f"no response within {timeout:g} s"
    except OSError:
        return "not listening"
    finally:
        if writer is not None:
            writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    if (other := _pid_of(head)) not in {None, pid}:
        return f"process {other} is listening at {host}:{port} instead"
    status = head.split(b" ", 2)[1:2]
    if status == [b"200"]:
        return None
    text = "; ".join(body.decode("utf-8", errors="replace").split("\n")).strip("; ")
    return text[:500] or f"returned {b''.join(status).decode('latin-1') or 'nothing'}"


def _pid_of(head: bytes) -> int | None:
    """Return the pid in a response's headers, if any."""
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == _PID_HEADER and value.strip().isdigit():
            return int(value)
    return None
