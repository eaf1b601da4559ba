"""One look at a probe of a process, without an HTTP library in the supervisor's memory."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

_LONGEST_ANSWER = 64 * 1024
_PID_HEADER = b"shashin-pid"


async def probe(url: str, pid: int, *, timeout: float = 2.0) -> str | None:  # noqa: ASYNC109
    """Return None when ``GET url`` answers 200, else why it does not, in one line.

    An answer that says that it comes from another process than ``pid`` is none.
    """
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or 80
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await asyncio.open_connection(host, port)
            request = f"GET {parts.path or '/'} HTTP/1.0\r\nHost: {host}:{port}\r\n\r\n"
            writer.write(request.encode("ascii"))
            answer = await reader.read(_LONGEST_ANSWER)
            while data := await reader.read(_LONGEST_ANSWER):
                answer += data
    except TimeoutError:
        return f"no answer within {timeout:g} s"
    except OSError:
        return "does not listen yet"
    finally:
        if writer is not None:
            writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    if (other := _answering(head)) not in {None, pid}:
        return f"process {other} answers at {host}:{port} instead"
    status = head.split(b" ", 2)[1:2]
    if status == [b"200"]:
        return None
    text = "; ".join(body.decode("utf-8", errors="replace").split("\n")).strip("; ")
    return text[:500] or f"answers {b''.join(status).decode('latin-1') or 'nothing'}"


def _answering(head: bytes) -> int | None:
    """Return the pid that an answer's head names, if it names one."""
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == _PID_HEADER and value.strip().isdigit():
            return int(value)
    return None
