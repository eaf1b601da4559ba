"""Decoding takes the memory that it is admitted with, whatever the photo."""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shashin.errors import PhotoTooLarge
from shashin.photos import DecodeBudget, thumbnail, thumbnail_image
from tests.support.waiting import until

SIDE = 2400
LARGE = 4800
"""So large that one byte per pixel is more than what a decode reserves besides its pixels."""
MEGABYTE = 1_000_000
BASE = 40 * MEGABYTE
"""What a decode may take besides its pixels: buffers, strips and the small image that it returns."""

MEASURE = """
import contextlib, json, pathlib, sys
from PIL import Image
from shashin.photo_box import Box
from shashin.photos import thumbnail_image

class Recorded:
    @contextlib.contextmanager
    def reserve(self, wanted):
        self.wanted = wanted
        yield

def status(name):
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))

Image.init()
data, budget = pathlib.Path(sys.argv[1]).read_bytes(), Recorded()
before = status("VmRSS")
box = Box(*map(float, sys.argv[2:])) if sys.argv[2:] else None
made = thumbnail_image(data, box=box, budget=budget)
print(json.dumps({"wanted": budget.wanted, "peak": status("VmHWM") - before, "size": made.size}))
"""


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    made = io.BytesIO()
    image.save(made, kind, **options)
    return made.getvalue()


def square(mode: str, side: int = LARGE) -> Image.Image:
    return blank(mode, (side, side))


def blank(mode: str, size: tuple[int, int] = (SIDE, SIDE)) -> Image.Image:
    if mode == "I;16":
        return Image.fromarray(np.zeros(size[::-1], np.uint16))
    return Image.new(mode, size)


def detailed() -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 255, (60, 60, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((SIDE, SIDE))


def rotated() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def tiff_with_a_tile(image_side: int, tile_side: int) -> bytes:
    """Return a greyscale TIFF whose only tile is larger than the image."""
    tile = zlib.compress(bytes(tile_side * tile_side))
    tags = {256: image_side, 257: image_side, 258: 8, 259: 8, 262: 1, 277: 1}
    tags |= {322: tile_side, 323: tile_side, 324: 8, 325: len(tile)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    return b"II*\0" + struct.pack("<I", 8 + len(tile)) + tile + directory


PLAIN_PHOTOS: dict[str, tuple[Callable[[], bytes], float]] = {
    "grey of 16 bits": (lambda: saved(square("I;16"), "PNG"), 2),
    "RGB": (lambda: saved(square("RGB"), "PNG"), 4),
    "RGB to be turned": (lambda: saved(square("RGB"), "PNG", exif=rotated()), 4),
    "transparent": (lambda: saved(square("RGBA"), "PNG"), 4),
    "transparent grey": (lambda: saved(square("LA"), "PNG"), 4),
    "transparent palette": (lambda: saved(square("P"), "PNG", transparency=0), 1),
    "integers": (lambda: saved(square("I"), "TIFF", compression="tiff_lzw"), 4),
    "floats": (lambda: saved(square("F"), "TIFF", compression="tiff_lzw"), 4),
    "inks": (lambda: saved(square("CMYK"), "TIFF", compression="tiff_lzw"), 4),
    "TIFF in one strip": (
        lambda: saved(
            square("RGB"), "TIFF", compression="tiff_adobe_deflate", strip_size=3 * LARGE * LARGE
        ),
        7,
    ),
    "TIFF of a large tile": (lambda: tiff_with_a_tile(10, LARGE // 16 * 16), 1),
    "GIF": (lambda: saved(square("P"), "GIF"), 2),
}

CODED_PHOTOS: dict[str, tuple[Callable[[], bytes], float]] = {
    "WebP": (lambda: saved(blank("RGBA"), "WEBP", lossless=True), 16),
    "AVIF": (lambda: saved(blank("RGB"), "AVIF", speed=10), 10),
    "AVIF of all colours": (
        lambda: saved(detailed(), "AVIF", speed=10, subsampling="4:4:4"),
        12,
    ),
    "transparent AVIF": (lambda: saved(blank("RGBA"), "AVIF", speed=10), 14),
    "HEIC": (lambda: saved(detailed(), "HEIF"), 10),
    "HEIC of all colours": (lambda: saved(detailed(), "HEIF", chroma="444"), 12),
    "transparent HEIC": (lambda: saved(blank("RGBA"), "HEIF"), 14),
    "HEIC to be turned": (lambda: saved(blank("RGB"), "HEIF", exif=rotated().tobytes()), 10),
    "HEIC of tiles": (lambda: saved(detailed(), "HEIF", tile_size=512), 10),
    "grey HEIC": (lambda: saved(blank("L"), "HEIF"), 6),
    "JPEG": (lambda: saved(blank("RGB"), "JPEG", subsampling=0), 0.1),
    "JPEG without an end marker": (lambda: saved(blank("RGB"), "JPEG")[:-2], 4),
    "progressive JPEG": (lambda: saved(blank("RGB"), "JPEG", subsampling=0, progressive=True), 6.1),
    "long JPEG": (lambda: saved(blank("RGB", (SIDE * SIDE // 768, 768)), "JPEG"), 4),
}

PHOTOS = {
    **{name: (make, LARGE, of_each) for name, (make, of_each) in PLAIN_PHOTOS.items()},
    **{name: (make, SIDE, of_each) for name, (make, of_each) in CODED_PHOTOS.items()},
}


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak in /proc")
@pytest.mark.parametrize(("make", "side", "bytes_per_pixel"), PHOTOS.values(), ids=list(PHOTOS))
def test_a_decode_takes_little_more_than_its_decoded_size_and_no_more_than_it_reserves(
    make: Callable[[], bytes], side: int, bytes_per_pixel: float, tmp_path: Path
) -> None:
    check_memory(make(), bytes_per_pixel * side * side, tmp_path)


def check_memory(data: bytes, pixel_bytes: float, folder: Path, *box: float) -> None:
    """Check what a decode takes; ``pixel_bytes`` is what its pixels may."""
    photo = folder / "photo"
    photo.write_bytes(data)
    run = subprocess.run(  # a process of its own has a peak of its own
        [sys.executable, "-c", MEASURE, str(photo), *map(str, box)],
        capture_output=True,
        check=True,
        text=True,
    )
    measured = json.loads(run.stdout)
    assert measured["wanted"] <= pixel_bytes + BASE
    assert measured["peak"] <= measured["wanted"] + 4 * MEGABYTE
    assert max(measured["size"]) <= 1024


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak in /proc")
@pytest.mark.parametrize(("width", "bytes_per_pixel"), [(0.05, 4), (0.25, 1), (0.5, 0.25)])
def test_a_crop_takes_memory_by_the_scale_that_it_is_decoded_at(
    width: float, bytes_per_pixel: float, tmp_path: Path
) -> None:
    data = saved(square("RGB"), "JPEG", subsampling=0, exif=rotated())
    box = 0.1, 0.2, 0.1 + width, 0.9
    check_memory(data, bytes_per_pixel * LARGE * LARGE, tmp_path, *box)


MEASURE_THREADS = """
import concurrent.futures, pathlib, sys
from PIL import Image
from shashin.photos import DecodeBudget, thumbnail_image

def status(name):
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))

data, budget = pathlib.Path(sys.argv[1]).read_bytes(), DecodeBudget(130_000_000)
Image.init()
before = status("VmRSS")
with concurrent.futures.ThreadPoolExecutor(3) as threads:
    list(threads.map(lambda _: thumbnail_image(data, budget=budget), range(6)))
print(status("VmHWM") - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak in /proc")
def test_threads_that_share_a_budget_stay_within_it_together(tmp_path: Path) -> None:
    photo = tmp_path / "photo"
    photo.write_bytes(saved(blank("RGB", (5000, 5000)), "PNG"))
    run = subprocess.run(
        [sys.executable, "-c", MEASURE_THREADS, str(photo)],
        capture_output=True,
        check=True,
        text=True,
    )
    assert int(run.stdout) <= 150 * MEGABYTE


@pytest.mark.parametrize(
    ("kind", "options"),
    [("WEBP", {"lossless": True}), ("PNG", {}), ("JPEG", {"progressive": True})],
)
def test_a_photo_that_would_take_more_than_the_whole_budget_is_refused_with_both_figures(
    kind: str, options: dict[str, object]
) -> None:
    data = saved(blank("RGB"), kind, **options)
    with pytest.raises(PhotoTooLarge, match=r"takes \d+ MB of memory; at most 20 MB are allowed"):
        thumbnail(data, budget=DecodeBudget(20 * MEGABYTE))


def test_a_small_image_in_a_huge_tile_is_refused_by_what_the_tile_takes() -> None:
    with pytest.raises(PhotoTooLarge, match=r"takes \d\d MB of memory"):
        thumbnail(tiff_with_a_tile(10, 8192), budget=DecodeBudget(50 * MEGABYTE))


def test_a_run_length_encoded_bmp_is_only_read_when_it_is_small() -> None:
    def bmp(side: int) -> bytes:
        rows = b"\x01\x00\x00\x00" * side + b"\x00\x01"  # one pixel, and the rest of the row empty
        header = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, len(rows), 0, 0, 256, 0)
        palette = b"".join(bytes([level, level, level, 0]) for level in range(256))
        start = 14 + len(header) + len(palette)
        return struct.pack("<2sIII", b"BM", start + len(rows), 0, start) + header + palette + rows

    assert thumbnail_image(bmp(300)).size == (256, 256)
    with pytest.raises(PhotoTooLarge, match=r"run-length encoded BMP of 7000 x 7000 pixels"):
        thumbnail_image(bmp(7000))


async def test_a_decode_waits_until_its_memory_is_free_and_goes_on_then() -> None:
    budget, data = DecodeBudget(60 * MEGABYTE), saved(blank("RGB"), "PNG")
    done: list[Image.Image] = []
    other = threading.Thread(target=lambda: done.append(thumbnail_image(data, budget=budget)))
    with budget.reserve(59 * MEGABYTE):
        other.start()
        await until(lambda: budget.waiting == 1, "a decode waits")
        assert not done
    other.join()
    assert [image.size for image in done] == [(256, 256)]


async def test_a_large_decode_is_not_overtaken_for_ever_by_small_ones() -> None:
    budget, order = DecodeBudget(100), []

    def decode(name: str, wanted: int) -> threading.Thread:
        def run() -> None:
            with budget.reserve(wanted):
                order.append(name)

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    with budget.reserve(50):
        threads = [decode("large", 90)]
        await until(lambda: budget.waiting == 1, "a decode waits")
        threads.append(decode("small", 10))
        await until(lambda: budget.waiting == 2, "two decodes wait")
        assert not order
    for thread in threads:
        thread.join()
    assert order == ["large", "small"]
