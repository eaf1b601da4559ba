"""One product: its attributes and its appearance."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

from shashin_catalogue.prints import PRINTS
from shashin_catalogue.rng import Rng
from shashin_catalogue.silhouettes import CATEGORIES
from shashin_catalogue.textures import TEXTURES, Colour

DEMO_NUMBERS = range(1_000_000)
"""Products of demos and benchmarks, never used for training."""

TRAINING_NUMBERS = range(1_000_000, 2_000_000)
EVALUATION_NUMBERS = range(2_000_000, 3_000_000)

_BRANDS = (
    "Aoyama",
    "Birch & Co",
    "Cobalt",
    "Dune",
    "Everly",
    "Fjord",
    "Ginkgo",
    "Harbor",
    "Indigo Lane",
    "Juniper",
    "Kite",
    "Lumen",
)
_LOOK = 1
"""Separates a product's random stream from those of its photos."""


@dataclass(frozen=True)
class Product:
    """A product of the catalogue."""

    seed: int
    number: int
    category: str
    brand: str
    price_minor: int
    """Yen."""
    currency: str
    texture: str
    body: tuple[Colour, Colour, Colour]
    """The colours of its texture."""
    second: Colour
    """Of straps, collars, soles."""
    print_name: str
    """Empty for a product without a print."""
    print_colour: Colour
    print_at: tuple[float, float]
    print_size: float


def product(seed: int, number: int) -> Product:
    """Return product ``number`` of the catalogue with this seed.

    Raises:
        ValueError: for a number below 0.
    """
    if number < 0:
        raise ValueError(f"product number {number}; expected 0 or more")
    rng = Rng(seed, number, _LOOK)
    body = (_colour(rng), _colour(rng), _colour(rng))
    has_print = rng.chance(0.55)
    return Product(
        seed=seed,
        number=number,
        category=rng.choice(CATEGORIES),
        brand=rng.choice(_BRANDS),
        price_minor=rng.integer(3, 300) * 100,
        currency="JPY",
        texture="plain" if rng.chance(0.3) else rng.choice(sorted(TEXTURES)),
        body=body,
        second=_colour(rng),
        print_name=rng.choice(sorted(PRINTS)) if has_print else "",
        print_colour=_contrasting(rng, body[0]),
        print_at=(rng.uniform(-0.2, 0.2), rng.uniform(-0.15, 0.35)),
        print_size=rng.uniform(0.15, 0.34),
    )


def _colour(rng: Rng) -> Colour:
    grey = rng.chance(0.22)
    saturation = rng.uniform(0.0, 0.12) if grey else rng.uniform(0.35, 0.95)
    return colorsys.hsv_to_rgb(rng.uniform(0, 1), saturation, rng.uniform(0.15, 0.97))


def _contrasting(rng: Rng, background: Colour) -> Colour:
    """Return a colour that stands out from the background."""
    while True:
        colour = _colour(rng)
        if sum(abs(a - b) for a, b in zip(colour, background, strict=True)) > 0.7:
            return colour
