"""What is returned of a decoded photo: the part that is wanted, reduced, in sRGB, and upright."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from shashin.errors import InvalidQuery
from shashin.photo_box import Box, PixelBox, size_problem, stored_pixels, upright_size
from shashin.photos.colour import to_srgb
from shashin.photos.exif import orientation

_STRIP_PIXELS = 1 << 18
"""Pixels that are converted at once."""

_SIXTEEN_BITS = np.rint(np.arange(65536) / 257).astype(np.uint8)


def strips(box: PixelBox, factor: int) -> Iterator[PixelBox]:
    """Yield horizontal strips of a box, each of a multiple of ``factor`` rows but the last."""
    left, top, right, bottom = box
    rows = factor * max(1, _STRIP_PIXELS // ((right - left) * factor))
    for start in range(top, bottom, rows):
        yield left, start, right, min(start + rows, bottom)


@dataclass(frozen=True)
class Wanted:
    """What is wanted of a photo; see ``decode_photo``."""

    box: Box | None
    enough: int | None
    longest_ratio: int | None

    def check_size(self, image: Image.Image) -> None:
        """Check how many pixels are in the box.

        Raises:
            InvalidQuery: when they are too few.
        """
        if self.box is None:
            return
        size = upright_size(orientation(image.info), *image.size)
        if problem := size_problem(self.box, *size):
            raise InvalidQuery(f"the box has {problem}: crop less, or send a larger photo")

    def part_of(self, image: Image.Image) -> PixelBox:
        """Return the pixels in the box, where they are stored."""
        if self.box is None:
            return 0, 0, *image.size
        turn = orientation(image.info)
        upright = self.box.pixels(*upright_size(turn, *image.size))
        return stored_pixels(upright, turn, *image.size)

    def frame_of(self, image: Image.Image) -> Frame:
        """Return the frame of a loaded image.

        Raises:
            InvalidQuery: when too few pixels are in the box.
        """
        self.check_size(image)
        return Frame(image.size, self.part_of(image), self.enough, self.longest_ratio)

    def frame_bytes(self, image: Image.Image) -> int:
        """Return what the frame of an image that is not loaded takes, however it will be turned."""
        width, height = image.size
        parts = [(0, 0, width, height)]
        if self.box is not None:
            sideways = stored_pixels(self.box.pixels(height, width), 5, width, height)
            parts = [self.box.pixels(width, height), sideways]
        return max(Frame(image.size, part, self.enough, self.longest_ratio).bytes for part in parts)


class Frame:
    """The part of a photo that is wanted, and by how much it is reduced.

    A photo is converted strip by strip, so that nothing but the decoder's own image ever has its
    full size.
    """

    def __init__(
        self,
        size: tuple[int, int],
        part: PixelBox,
        enough: int | None,
        longest_ratio: int | None,
    ) -> None:
        self._is_whole = part == (0, 0, *size)
        self._box = _middle(part, longest_ratio)
        left, top, right, bottom = self._box
        width, height = right - left, bottom - top
        # Averaging blocks of pixels is a coarse filter, so a finer one gets twice what is enough.
        self._factor = 1 if enough is None else max(1, min(width, height) // (2 * enough))
        self._size = -(-width // self._factor), -(-height // self._factor)

    @property
    def bytes(self) -> int:
        """The bytes of the returned image, of a copy that is turned, and of strips."""
        left, _, right, _ = self._box
        strip = max(_STRIP_PIXELS, (right - left) * self._factor)
        return 8 * self._size[0] * self._size[1] + 32 * strip

    def _is_small_rgb(self, image: Image.Image) -> bool:
        """Whether it is wanted as it is, like most JPEGs, and copies fit what strips would take."""
        return (
            self._is_whole
            and image.mode == "RGB"
            and image.size == self._size
            and image.width * image.height <= 4 * _STRIP_PIXELS
            and "transparency" not in image.info
        )

    def as_rgb(self, image: Image.Image) -> Image.Image:
        """Return this part of a loaded image: RGB and upright."""
        white_level = _white_level(image)
        to_rgb = to_srgb(image.info.get("icc_profile"))
        if self._is_small_rgb(image):
            small = to_rgb(image.copy())
            small.info = {}
            return _upright(small, image)
        made = Image.new("RGB", self._size)
        for box in strips(self._box, self._factor):
            strip = _simple(image.crop(box), white_level)
            if self._factor > 1:
                strip = strip.reduce(self._factor)
            at = 0, (box[1] - self._box[1]) // self._factor
            if strip.mode in {"LA", "RGBA"}:
                colours = strip.convert(strip.mode[:-1])
                made.paste((255, 255, 255), (*at, strip.width, at[1] + strip.height))
                made.paste(to_rgb(colours), at, strip.getchannel("A"))
            else:
                made.paste(to_rgb(strip), at)
        return _upright(made, image)


def _middle(part: PixelBox, longest_ratio: int | None) -> PixelBox:
    left, top, right, bottom = part
    size = width, height = right - left, bottom - top
    longest = max(size) if longest_ratio is None else longest_ratio * min(size)
    left, top = left + max(0, width - longest) // 2, top + max(0, height - longest) // 2
    return left, top, left + min(width, longest), top + min(height, longest)


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns a photo upright, by its EXIF orientation."""


def _upright(made: Image.Image, image: Image.Image) -> Image.Image:
    turn = _TURNS.get(orientation(image.info))
    return made if turn is None else made.transpose(turn)


def _simple(strip: Image.Image, white_level: float | None) -> Image.Image:
    """Return a strip in a mode that can be reduced: L, LA, RGB, RGBA or CMYK."""
    if white_level is not None:
        return _eight_bits(strip, white_level)
    if "transparency" in strip.info:
        return strip.convert("RGBA")
    if strip.mode in {"L", "LA", "RGB", "RGBA", "CMYK"}:
        return strip
    other = {"1": "L", "La": "LA", "PA": "RGBA", "RGBa": "RGBA"}
    return strip.convert(other.get(strip.mode, "RGB"))


def _white_level(image: Image.Image) -> float | None:
    """Return the value that is white in a mode of more than 8 bits, else None."""
    if image.mode.startswith("I;16"):
        return 65535.0
    if image.mode not in {"I", "F"}:
        return None
    highest = image.getextrema()[1]
    assert isinstance(highest, int | float)
    if image.mode == "I":
        return 65535.0 if highest > 255 else 255.0
    return 1.0 if highest <= 1.0 else 255.0


def _eight_bits(strip: Image.Image, white_level: float) -> Image.Image:
    """Scale to 8 bits per pixel; Pillow's own conversion would clip."""
    if strip.mode.startswith("I;16"):
        return Image.fromarray(_SIXTEEN_BITS.take(np.asarray(strip)))
    scaled = np.clip(np.asarray(strip, dtype=np.float32) * (255.0 / white_level), 0.0, 255.0)
    return Image.fromarray(np.rint(np.nan_to_num(scaled)).astype(np.uint8))
