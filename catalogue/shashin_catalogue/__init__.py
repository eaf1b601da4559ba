"""A synthetic catalogue: products and photos of them, rendered, endless and always the same.

It stands in for a marketplace's photos where none may be shipped: to train and judge the default
model, and to try the whole system. Nothing in it is random beyond its seed.
"""

from shashin_catalogue.photo import render_photo
from shashin_catalogue.product import (
    DEMO_NUMBERS,
    EVALUATION_NUMBERS,
    TRAINING_NUMBERS,
    Product,
    product,
)
from shashin_catalogue.silhouettes import CATEGORIES

__all__ = [
    "CATEGORIES",
    "DEMO_NUMBERS",
    "EVALUATION_NUMBERS",
    "TRAINING_NUMBERS",
    "Product",
    "product",
    "render_photo",
]
