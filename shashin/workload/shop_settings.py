"""Settings of the shop that docker-compose.yml runs."""

from __future__ import annotations

from pydantic import Field

from shashin.runtime.settings import ServiceSettings


class ShopSettings(ServiceSettings):
    """Settings of the shop."""

    shop_photos: str = Field(
        description="URI of the bucket and folder that the shop's photos are stored in, in one of the "
        "forms of SHASHIN_REPOSITORY; its position is stored there, too."
    )
    shop_rate: float = Field(1.0, gt=0, le=100, description="Events per second.")
    shop_stock: int = Field(
        100, ge=0, description="Events that a new shop begins with, without a pause between them."
    )
    shop_photos_each: int = Field(2, ge=1, le=20, description="Photos of a listing.")
    shop_seed: int = Field(11, ge=0, description="Seed of the products' looks.")
