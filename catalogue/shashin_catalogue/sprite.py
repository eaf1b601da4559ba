"""A product's sprite: its image with a transparent background."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from shashin_catalogue.drawing import Part, draw
from shashin_catalogue.prints import PRINTS
from shashin_catalogue.product import Product
from shashin_catalogue.rng import Rng
from shashin_catalogue.silhouettes import SILHOUETTES
from shashin_catalogue.textures import TEXTURES, Colour, Pixels, grid

SIZE = 256
_SCALE = 2
_SHAPE, _SURFACE, _PRINT = 2, 3, 4


@lru_cache(maxsize=32)
def sprite(product: Product) -> Image.Image:
    """Return the product as an RGBA image of 256 x 256 pixels."""
    parts = SILHOUETTES[product.category](Rng(product.seed, product.number, _SHAPE))
    canvas = Image.new("L", (SIZE * _SCALE, SIZE * _SCALE), 0)
    roles = ("nothing", "body", "second", "dark", "light")
    shapes = ImageDraw.Draw(canvas)
    for part in parts:
        draw(shapes, part, SIZE * _SCALE, 0 if part.role == "cut" else roles.index(part.role))
    fills = _fills(product)
    colour = np.zeros((SIZE, SIZE, 3), np.float32)
    alpha = np.zeros((SIZE, SIZE, 1), np.float32)
    shares = {role: _share(canvas, number) for number, role in enumerate(roles) if number}
    for role, share in shares.items():
        colour += fills[role] * share
        alpha += share
    colour /= np.maximum(alpha, np.float32(1e-3))
    colour = _printed(product, colour, shares["body"])
    # Light from above: without it, the product would look flat.
    _, y = grid(SIZE)
    colour *= (np.float32(270) - np.float32(36) * y)[:, :, None]
    whole = np.concatenate([colour, alpha * np.float32(255)], axis=2)
    return Image.fromarray(np.clip(whole, 0, 255).astype(np.uint8))


def _fills(product: Product) -> dict[str, Pixels]:
    size = SIZE
    texture = TEXTURES[product.texture](
        Rng(product.seed, product.number, _SURFACE), size, product.body
    )
    base = np.asarray(product.body[0], np.float32)
    flat = np.ones((size, size, 3), np.float32)
    return {
        "body": texture,
        "second": flat * np.asarray(product.second, np.float32),
        "dark": flat * (base * 0.25),
        "light": flat * (base * 0.15 + 0.8),
    }


def _share(canvas: Image.Image, number: int) -> Pixels:
    """Return the share of each pixel covered by this number, (size, size, 1)."""
    mask = canvas.point([255 if value == number else 0 for value in range(256)])
    return (np.asarray(mask.reduce(_SCALE), np.float32) / np.float32(255))[:, :, None]


def _printed(product: Product, colour: Pixels, body: Pixels) -> Pixels:
    if not product.print_name:
        return colour
    parts = PRINTS[product.print_name](Rng(product.seed, product.number, _PRINT))
    share = _print_mask(parts, product.print_at, product.print_size)
    share = share * body
    ink: Colour = product.print_colour
    return colour * (1 - share) + np.asarray(ink, np.float32) * share


def _print_mask(parts: Sequence[Part], at: tuple[float, float], size: float) -> Pixels:
    canvas = Image.new("L", (SIZE, SIZE), 0)
    shapes = ImageDraw.Draw(canvas)
    for part in parts:
        moved = Part(
            tuple((at[0] + x * size, at[1] + y * size) for x, y in part.points),
            part.role,
            part.width * size,
        )
        draw(shapes, moved, SIZE, 0 if part.role == "cut" else 255)
    mask: Pixels = np.asarray(canvas, np.float32)[:, :, None] / np.float32(255)
    return mask
