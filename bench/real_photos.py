"""What the model for real photos costs: a photo alone, photos in batches, and searches by photo with zooms."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from shashin_catalogue import real_photos_folder

from bench.figures import Figure
from bench.measures import quiet_searches
from bench.workload import running
from shashin.local.system import System
from shashin.model.loading import LITE, load_embedder
from shashin.model.photo_folders import open_photo, read_products

_ALONE = f"{LITE}: a photo alone, one core, p50"
_BATCHES = f"{LITE}: photos in batches, one core"
_SEARCH = f"{LITE}: search by photo with zooms, 5 a second,"
_BATCH = 32
_REPEATS = 40
_LISTINGS = 40


def planned_figures() -> list[Figure]:
    """Return every figure with its goal."""
    return [
        Figure(_ALONE, "ms", 25.0),
        Figure(_BATCHES, "photos/s", 45.0, at_least=True),
        Figure(f"{_SEARCH} p50", "ms"),
        Figure(f"{_SEARCH} p99", "ms", 150.0),
    ]


async def real_photos(scratch: Path) -> dict[str, float]:
    """Measure the model in this process, and in a system that runs with it."""
    embedding = await asyncio.to_thread(_embedding, _photos())
    async with running(System(scratch / "system"), listings=_LISTINGS, model=LITE) as workload:
        return {**embedding, **await quiet_searches(workload, _SEARCH)}


def _photos() -> list[Image.Image]:
    products = read_products([real_photos_folder()])
    found = [open_photo(path) for product in products for path in product.photos]
    return [found[number % len(found)] for number in range(_BATCH)]


def _embedding(photos: Sequence[Image.Image]) -> dict[str, float]:
    model = load_embedder(LITE)
    model.embed(photos)
    alone = []
    for number in range(_REPEATS):
        began = time.perf_counter()
        model.embed([photos[number % len(photos)]])
        alone.append(time.perf_counter() - began)
    batches = []
    for _ in range(_REPEATS // 4):
        began = time.perf_counter()
        model.embed(photos)
        batches.append(time.perf_counter() - began)
    return {
        _ALONE: statistics.median(alone) * 1000,
        _BATCHES: len(photos) / statistics.median(batches),
    }
