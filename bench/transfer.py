"""Prints how fast a file gets into an object store and out of it, and the memory that it takes.

Run as ``python -m bench.transfer URI FOLDER``, in a process of its own for each store. The file of
500 MB and its copy are in FOLDER. With a ``file://`` store on the same disk, ``cp`` is timed as
well: followed by ``sync`` for the upload, which returns only once the file is on the disk.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from shashin.objectstore.open import opened_object_store

FILE_BYTES = 500_000_000
_PIECE_BYTES = 10_000_000


async def transfer(uri: str, folder: Path) -> dict[str, float]:
    """Return seconds (``upload``, ``download``, for a folder ``cp_sync`` and ``cp``) and ``memory``.

    Memory is the peak above what the process takes with an open store, in bytes, on Linux.
    """
    source, copy = folder / "source", folder / "copy"
    with source.open("wb") as file:
        for _ in range(FILE_BYTES // _PIECE_BYTES):
            file.write(os.urandom(_PIECE_BYTES))
    measured: dict[str, float] = {}
    if uri.startswith("file:"):
        measured |= _copied(source, copy)
    async with opened_object_store(uri) as store:
        await store.write("small", b"opens the client")
        await store.read("small")
        idle = reset_peak()
        measured["upload"] = await _timed(lambda: store.upload("large", source))
        measured["download"] = await _timed(lambda: store.download("large", copy))
        await store.delete("large")
    return {**measured, "memory": peak() - idle}


def reset_peak() -> int:
    """Make the memory of now the peak; returns it."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak()


def peak() -> int:
    """Return the peak of resident memory in bytes; getrusage would include the parent process."""
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def _copied(source: Path, copy: Path) -> dict[str, float]:
    measured = {
        "cp_sync": _seconds(["cp", source, copy], ["sync", copy]),
        "cp": _seconds(["cp", source, copy]),
    }
    copy.unlink()
    return measured


def _seconds(*commands: list[str | Path]) -> float:
    started = time.perf_counter()
    for command in commands:
        subprocess.run(command, check=True)
    return time.perf_counter() - started


async def _timed(work: Callable[[], Awaitable[object]]) -> float:
    started = time.perf_counter()
    await work()
    return time.perf_counter() - started


if __name__ == "__main__":
    print(json.dumps(asyncio.run(transfer(sys.argv[1], Path(sys.argv[2])))))
