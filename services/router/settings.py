"""Settings of the router."""

from __future__ import annotations

from pydantic import Field

from services.router.front_settings import FrontSettings
from shashin.discovery.settings import DiscoverySettings
from shashin.runtime.settings import ModelSpaceSettings
from shashin.thumbnails.settings import ThumbnailSettings


class RouterSettings(FrontSettings, DiscoverySettings, ModelSpaceSettings, ThumbnailSettings):
    """Settings of the router."""

    grpc_host: str = Field("127.0.0.1", description="Address that SearchService listens on.")
    grpc_port: int = Field(
        0, ge=0, le=65535, description="Port of SearchService; 0 takes a free one."
    )
    rest_host: str = Field("127.0.0.1", description="Address that REST listens on.")
    rest_port: int = Field(0, ge=0, le=65535, description="Port of REST; 0 takes a free one.")
    rest_origins: str = Field(
        "",
        description="Origins of web pages that may call REST from a browser (CORS), comma-separated, such as "
        "`https://shop.example`; empty allows none but the router's own.",
    )
    deadline_ms: int = Field(
        1000,
        ge=1,
        le=60_000,
        description="Default deadline of a search, in milliseconds; the indexer's "
        "SHASHIN_RELEASE_AFTER_SECONDS and every SHASHIN_HIDE_SUPERSEDED_AFTER_SECONDS must exceed "
        "it.",
    )
    zone: str = Field(
        "",
        description="Zone that the router runs in: of replicas that work equally well, those of the same "
        "zone in discovery are asked; empty prefers none.",
    )
    discovery_seconds: float = Field(
        0.1, gt=0, le=60, description="Seconds between reads of discovery."
    )
    describe_seconds: float = Field(
        0.5,
        gt=0,
        le=60,
        description="Seconds between polls of what every endpoint holds.",
    )
    complete_seconds: float = Field(
        5.0,
        ge=0,
        description="Seconds for which a router that has just started is not ready while coverage is "
        "incomplete; others may know more.",
    )
    thumbnail_cache_bytes: int = Field(
        32 * 1024 * 1024,
        ge=0,
        description="Maximum memory of thumbnails that were asked for last, in bytes; 0 keeps none.",
    )

    @property
    def origins(self) -> list[str]:
        """The origins of ``rest_origins``."""
        return [origin for one in self.rest_origins.split(",") if (origin := one.strip())]
