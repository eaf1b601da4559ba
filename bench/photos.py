"""Measures the downloader's photos without the rest of the system; also ``python -m bench.photos``.

Photos are JPEGs of 1024 x 768 pixels and about 150 kB, all different. They are fetched and decoded as
in the service, from the cache or from an S3 server on this machine, which shares its cores.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import numpy as np
import uvloop
from PIL import Image

from bench.figures import Figure, machine
from services.downloader.settings import DownloaderSettings
from shashin.objectstore.open import opened_object_store
from shashin.originals import OriginalsCache
from shashin.photo_sources.byte_budget import ByteBudget
from shashin.photo_sources.fetching import PhotoFetcher
from shashin.photo_sources.object_store import ObjectStoreSource
from shashin.photo_sources.originals import Originals
from shashin.photo_sources.request_limits import RequestLimits
from shashin.photos import DecodeBudget, thumbnail
from shashin.photos.decode import decode_photo
from shashin.photos.thumbnail import SHORT_SIDE
from shashin.terminal.console import echo, echo_stderr, echo_table
from tests.support.seaweed import BUCKET, SeaweedFs

SIZE = (1024, 768)
QUALITY = 76
DEFAULTS = DownloaderSettings.model_fields
BATCH = 400
"""Photos that are asked for at once, as those of a batch of events."""


def made_photos(count: int) -> list[bytes]:
    """Return different JPEGs of about 150 kB."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 255, (48, 64, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize(SIZE), dtype=np.int16)
    photos = []
    for _ in range(count):
        grain = rng.integers(-9, 10, (*SIZE[::-1], 1), dtype=np.int16)
        shifted = np.roll(smooth, int(rng.integers(0, SIZE[0])), axis=1)
        image = Image.fromarray(np.clip(shifted + grain, 0, 255).astype(np.uint8))
        made = io.BytesIO()
        image.save(made, "JPEG", quality=QUALITY)
        photos.append(made.getvalue())
    return photos


class Downloads:
    """A fetcher as the service has it, with one decoder for each core."""

    def __init__(self, source: ObjectStoreSource, cache: OriginalsCache | None) -> None:
        self._executor = ThreadPoolExecutor(os.cpu_count() or 1)
        self._fetcher = PhotoFetcher(
            Originals(source, cache, confirm_after_seconds=86_400.0),
            originals_budget=ByteBudget(DEFAULTS["original_bytes"].default),
            executor=self._executor,
            decode_budget=DecodeBudget(DEFAULTS["decode_bytes"].default),
        )

    async def rate(self, uris: Sequence[str]) -> float:
        """Return the photos per second; all of them have to be usable."""
        started = time.perf_counter()
        for first in range(0, len(uris), BATCH):
            fetched = await asyncio.gather(*map(self._fetcher.fetch, uris[first : first + BATCH]))
            failed = [photo.error for photo in fetched if photo.error is not None]
            if failed:
                raise failed[0]
        return len(uris) / (time.perf_counter() - started)

    def close(self) -> None:
        """Stop the decoders."""
        self._executor.shutdown()


def decode_milliseconds(photos: Sequence[bytes], decode: Callable[[bytes], object]) -> float:
    """Return the time on one core for one photo."""
    started = time.thread_time()
    for photo in photos:
        decode(photo)
    return 1000 * (time.thread_time() - started) / len(photos)


def planned_figures() -> dict[str, Figure]:
    """Return every figure with its goal, by name."""
    figures = [
        Figure("photo of 1024 x 768 decoded, scaled, CPU", "ms", 4.0),
        Figure("the same photo decoded in full, CPU", "ms"),
        Figure("its thumbnail, as a JPEG again, CPU", "ms"),
        Figure("cached photo, to a thumbnail, CPU", "ms"),
        Figure("cached photos, to thumbnails", "photos/s", 300.0, at_least=True),
        Figure("photo from S3, to a thumbnail, CPU without the server's", "ms"),
        Figure("photos from S3, to thumbnails", "photos/s", 150.0, at_least=True),
        Figure("photos from S3, cached and to thumbnails", "photos/s"),
    ]
    return {figure.name: figure for figure in figures}


async def photos(scratch: Path) -> dict[str, float]:
    """Return the figures of one run, in a process of its own with the service's event loop."""
    found = scratch / "figures.json"
    command = (sys.executable, "-m", "bench.photos", "--runs", "1", "--json", str(found))
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL)
    # It ends with 1 also where a goal is missed.
    await process.wait()
    if not found.exists():
        raise RuntimeError(f"python -m bench.photos ended with {process.returncode}")
    figures = json.loads(found.read_bytes())["figures"]
    return {figure["name"]: figure["median"] for figure in figures}


async def measure(runs: int, count: int) -> list[Figure]:
    """Return the figures of all runs."""
    figures = planned_figures()
    made = await asyncio.to_thread(made_photos, count)
    echo_stderr(f"{count} photos of {sum(map(len, made)) / count / 1000:.0f} kB")
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-photos-")))
        server = SeaweedFs(folder / "seaweed")
        stack.push_async_callback(server.kill)
        await server.start()
        os.environ |= server.environment
        uris = [f"s3://{BUCKET}/{number:06d}.jpg" for number in range(count)]
        async with opened_object_store(f"s3://{BUCKET}") as store:
            for number, photo in enumerate(made):
                await store.write(f"{number:06d}.jpg", photo)
        limits = RequestLimits(
            total=DEFAULTS["concurrency"].default, per_host=DEFAULTS["host_concurrency"].default
        )
        source = await stack.enter_async_context(
            ObjectStoreSource(
                [f"s3://{BUCKET}"],
                limits,
                max_bytes=DEFAULTS["max_bytes"].default,
                total_seconds=DEFAULTS["photo_seconds"].default,
            )
        )
        for run in range(1, runs + 1):
            echo_stderr(f"run {run} of {runs}")
            random.shuffle(uris)
            cache = OriginalsCache(folder / f"cache-{run}", max_bytes=10**10, keep_seconds=10**6)
            uncached, caching = Downloads(source, None), Downloads(source, cache)
            some = made[:200]
            found: dict[str, float] = {
                "photo of 1024 x 768 decoded, scaled, CPU": await asyncio.to_thread(
                    decode_milliseconds, some, partial(decode_photo, enough=SHORT_SIDE)
                ),
                "the same photo decoded in full, CPU": await asyncio.to_thread(
                    decode_milliseconds, some, decode_photo
                ),
                "its thumbnail, as a JPEG again, CPU": await asyncio.to_thread(
                    decode_milliseconds, some, thumbnail
                ),
            }
            before = time.process_time()
            found["photos from S3, to thumbnails"] = await uncached.rate(uris)
            found["photo from S3, to a thumbnail, CPU without the server's"] = (
                1000 * (time.process_time() - before) / count
            )
            found["photos from S3, cached and to thumbnails"] = await caching.rate(uris)
            before = time.process_time()
            found["cached photos, to thumbnails"] = await caching.rate(uris)
            found["cached photo, to a thumbnail, CPU"] = (
                1000 * (time.process_time() - before) / count
            )
            for name, value in found.items():
                figures[name].runs.append(value)
            uncached.close()
            caching.close()
    return [*figures.values()]


def main() -> int:
    """Measure and print; returns the exit code: 1 if a goal is missed."""
    parser = argparse.ArgumentParser(prog="python -m bench.photos", description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--photos", type=int, default=1000)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    args = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # as in the service
        figures = runner.run(measure(args.runs, args.photos))
    echo_table(["", ">median", ">min to max", "goal", "met"], [f.row() for f in figures])
    echo(machine())
    if args.json:
        document = {"cores": os.cpu_count(), "figures": [figure.document() for figure in figures]}
        args.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return int(any(figure.reached is False for figure in figures))


if __name__ == "__main__":
    raise SystemExit(main())
