"""Rendered photos as one array, rendered on all cores and cached in a file."""

from __future__ import annotations

import io
import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from shashin.model.embedder import square

Photos = npt.NDArray[np.uint8]
"""(products, photos per product, side, side, 3)."""

Progress = Callable[[int, int], None]
"""Called with the number done and the total."""

_PRODUCTS_AT_ONCE = 16


def rendered_photos(
    path: Path,
    *,
    seed: int,
    numbers: Sequence[int],
    photos_each: int,
    side: int,
    progress: Progress,
) -> Photos:
    """Return the first ``photos_each`` photos of each product, from the file if it has them."""
    shape = (len(numbers), photos_each, side, side, 3)
    if path.exists():
        kept: Photos = np.load(path, mmap_mode="r")
        if kept.shape == shape:
            progress(len(numbers), len(numbers))
            return kept
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}")
    photos = np.lib.format.open_memmap(fresh, mode="w+", dtype=np.uint8, shape=shape)
    chunks = [
        range(i, min(i + _PRODUCTS_AT_ONCE, len(numbers)))
        for i in range(0, len(numbers), _PRODUCTS_AT_ONCE)
    ]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), context, _ignore_interrupts) as pool:
        waiting = {
            pool.submit(_render, seed, [numbers[i] for i in chunk], photos_each, side): chunk
            for chunk in chunks
        }
        done = 0
        for future in as_completed(waiting):
            chunk = waiting[future]
            photos[chunk.start : chunk.stop] = future.result()
            done += len(chunk)
            progress(done, len(numbers))
    photos.flush()
    fresh.replace(path)
    return photos


def _ignore_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _render(seed: int, numbers: Sequence[int], photos_each: int, side: int) -> Photos:
    from shashin_catalogue import product, render_photo

    photos = np.empty((len(numbers), photos_each, side, side, 3), np.uint8)
    for row, number in enumerate(numbers):
        shown = product(seed, number)
        for photo in range(photos_each):
            with Image.open(io.BytesIO(render_photo(shown, photo))) as image:
                photos[row, photo] = square(image.convert("RGB"), side)
    return photos
