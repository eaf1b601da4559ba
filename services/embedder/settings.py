"""Settings of the embedder."""

from __future__ import annotations

from pydantic import Field, field_validator

from shashin.kafka.settings import ConsumerSettings

WORKER, SERVER = "worker", "server"


class EmbedderSettings(ConsumerSettings):
    """What the embedder can be told."""

    model: str = Field(
        "demo-v1",
        description="Model that embeds: demo-v1, torchvision:NAME, or the path of a checkpoint.",
    )
    roles: str = Field(
        "worker,server",
        description="worker embeds listings, server embeds queries; both, or one of them.",
    )
    grpc_host: str = Field("127.0.0.1", description="Address that EmbedService listens on.")
    grpc_port: int = Field(
        0, ge=0, le=65535, description="Port of EmbedService; 0 takes a free one."
    )
    torch_threads: int = Field(1, ge=1, le=256, description="Threads of one call of the model.")
    batch_photos: int = Field(
        16,
        ge=1,
        le=512,
        description="Photos in one call of the model: a query waits for one such call at most.",
    )
    batch_records: int = Field(
        32, ge=1, le=10_000, description="Listings that the worker takes at a time."
    )
    waiting_photos: int = Field(
        256,
        ge=1,
        description="Query photos that may wait; more are refused, so that memory is bounded.",
    )

    @field_validator("roles")
    @classmethod
    def _roles_are_known(cls, value: str) -> str:
        parse_roles(value)
        return value


def parse_roles(text: str) -> frozenset[str]:
    """Return the roles that a list such as ``worker,server`` names.

    Raises:
        ValueError: when it names none, or another one.
    """
    roles = frozenset(part.strip() for part in text.split(",") if part.strip())
    if not roles or roles - {WORKER, SERVER}:
        raise ValueError("expected worker, server, or worker,server")
    return roles
