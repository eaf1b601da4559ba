"""A synthetic catalogue: an unlimited number of products with rendered photos, deterministic.

It replaces a marketplace's photos, which cannot be shipped, for training and evaluating the default
model and for trying out the whole system. Everything is determined by the seed. A handful of real,
freely licensed photos comes along as well.
"""

from shashin_catalogue.photo import render_photo
from shashin_catalogue.product import (
    DEMO_NUMBERS,
    EVALUATION_NUMBERS,
    TRAINING_NUMBERS,
    Product,
    product,
)
from shashin_catalogue.real import real_photos_folder
from shashin_catalogue.silhouettes import CATEGORIES

__all__ = [
    "CATEGORIES",
    "DEMO_NUMBERS",
    "EVALUATION_NUMBERS",
    "TRAINING_NUMBERS",
    "Product",
    "product",
    "real_photos_folder",
    "render_photo",
]
