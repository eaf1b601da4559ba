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

from bench.search.data import DIMENSIONS, unit
from bench.search.sealed import SPACE
from shashin.codecs.attributes import attributes_message
from shashin.kafka.producer import OutRecord, Producer
from shashin.kafka.topics import VECTORS_EMBEDDED
from shashin.shards.format.row import NO_TIME, RowAttributes
from shashin.v1 import events_pb2

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


def _values() -> list[bytes]:
    """Return vectors as records carry them."""
    rng = np.random.default_rng(3)
    vectors = unit(rng.standard_normal((_VECTORS, DIMENSIONS), np.float32))
    return [vector.tobytes() for vector in vectors.astype("<f2")]


def _record(number: int, vector: bytes) -> OutRecord:
    listing_id = f"arriving-{number}"
    message = events_pb2.EmbeddedListing(
        listing_id=listing_id,
        version=1,
        kind=events_pb2.LISTING_KIND_LISTED,
        model_id=SPACE.model_id,
        dimensions=DIMENSIONS,
        attributes=attributes_message(RowAttributes("bench", "", 0, "", NO_TIME)),
        vectors=[events_pb2.PhotoVector(vector=vector)],
    )
    return OutRecord(VECTORS_EMBEDDED, listing_id.encode(), message.SerializeToString())


async def _append(kafka: str, per_second: int) -> None:
    # Numbered from the time, so that the listings of each process are new ones.
    values, first = _values(), time.time_ns()
    async with Producer(kafka, client_id="bench-vectors") as producer:
        await producer.send_all([_record(first, values[0])])
        sys.stdout.write(f"{_STARTED.decode()}\n")
        sys.stdout.flush()
        started, sent = time.monotonic(), 0
        while True:
            due = round((time.monotonic() - started) * per_second)
            await producer.send_all(
                _record(first + 1 + number, values[number % _VECTORS])
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
