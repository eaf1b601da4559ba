"""One product: what it is and what decides its look."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

from shashin_catalogue.dice import Dice
from shashin_catalogue.prints import PRINTS
from shashin_catalogue.silhouettes import CATEGORIES
from shashin_catalogue.textures import TEXTURES, Colour

DEMO_NUMBERS = range(1_000_000)
"""Products of demos and benchmarks; no model ever saw them in training."""

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
"""What tells a product's stream of choices from those of its photos."""


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
    """The colours that its texture is made of."""
    second: Colour
    """Of straps, collars, soles."""
    print_name: str
    """Empty for a product without a print."""
    print_colour: Colour
    print_at: tuple[float, float]
    print_size: float


def product(seed: int, number: int) -> Product:
    """Return product ``number`` of the catalogue ``seed``; the same one every time.

    Raises:
        ValueError: for a number below 0.
    """
    if number < 0:
        raise ValueError(f"product number {number}; expected 0 or more")
    dice = Dice(seed, number, _LOOK)
    body = (_colour(dice), _colour(dice), _colour(dice))
    has_print = dice.happens(0.55)
    return Product(
        seed=seed,
        number=number,
        category=dice.one_of(CATEGORIES),
        brand=dice.one_of(_BRANDS),
        price_minor=dice.whole(3, 300) * 100,
        currency="JPY",
        texture="plain" if dice.happens(0.3) else dice.one_of(sorted(TEXTURES)),
        body=body,
        second=_colour(dice),
        print_name=dice.one_of(sorted(PRINTS)) if has_print else "",
        print_colour=_contrasting(dice, body[0]),
        print_at=(dice.between(-0.2, 0.2), dice.between(-0.15, 0.35)),
        print_size=dice.between(0.15, 0.34),
    )


def _colour(dice: Dice) -> Colour:
    grey = dice.happens(0.22)
    saturation = dice.between(0.0, 0.12) if grey else dice.between(0.35, 0.95)
    return colorsys.hsv_to_rgb(dice.between(0, 1), saturation, dice.between(0.15, 0.97))


def _contrasting(dice: Dice, background: Colour) -> Colour:
    """Return a colour that can be told from the background."""
    while True:
        colour = _colour(dice)
        if sum(abs(a - b) for a, b in zip(colour, background, strict=True)) > 0.7:
            return colour
