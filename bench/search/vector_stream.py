"""Appends vectors to the log at a steady rate until it is killed, in a process of its own.

``python -m bench.search.vector_stream --kafka HOST:PORT --per-second 500``
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np

from bench.search.data import DIMENSIONS, Vectors, unit
from bench.search.sealed import SPACE
from bench.vector_record import vector_record
from shashin.kafka.producer import OutRecord, Producer

_EVERY_SECONDS = 0.02
_VECTORS = 5_000
_STARTED = b"appending"


@asynccontextmanager
async def vectors_arriving(kafka: str, per_second: int) -> AsyncIterator[None]:
    """Append vectors, each of a listing of its own, while the context is open."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.search.vector_stream", "--kafka", kafka),
        *("--per-second", str(per_second)),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        if (await process.stdout.readline()).strip() != _STARTED:
            raise RuntimeError(
                f"python -m bench.search.vector_stream ended: {await process.wait()}"
            )
        yield
        if process.returncode is not None:
            raise RuntimeError(f"vectors stopped arriving: {process.returncode}")
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def _vectors() -> Vectors:
    rng = np.random.default_rng(3)
    return unit(rng.standard_normal((_VECTORS, DIMENSIONS), np.float32))


def _record(number: int, vector: Vectors) -> OutRecord:
    return vector_record(SPACE, f"arriving-{number}", vector)


async def _append(kafka: str, per_second: int) -> None:
    # Numbered from the time, so that the listings of each process are new ones.
    vectors, first = _vectors(), time.time_ns()
    async with Producer(kafka, client_id="bench-vectors") as producer:
        await producer.send_all([_record(first, vectors[0])])
        sys.stdout.write(f"{_STARTED.decode()}\n")
        sys.stdout.flush()
        started, sent = time.monotonic(), 0
        while True:
            due = round((time.monotonic() - started) * per_second)
            await producer.send_all(
                _record(first + 1 + number, vectors[number % _VECTORS])
                for number in range(sent, due)
            )
            sent = due
            await asyncio.sleep(_EVERY_SECONDS)


def main() -> None:
    """Append until killed."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.search.vector_stream", description=__doc__
    )
    parser.add_argument("--kafka", required=True)
    parser.add_argument("--per-second", type=int, required=True)
    args = parser.parse_args()
    asyncio.run(_append(args.kafka, args.per_second))


if __name__ == "__main__":
    main()
