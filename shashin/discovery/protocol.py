"""What the router and the indexer ask of discovery."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

Role = Literal["indexer", "index-server", "embedder"]


@dataclass(frozen=True, order=True)
class Endpoint:
    """One ready process that answers gRPC."""

    name: str
    role: Role
    address: str
    tier: str = ""
    """live, hourly, daily or monthly; empty for an embedder."""


class Discovery(Protocol):
    """Knows the ready endpoints."""

    async def endpoints(self) -> list[Endpoint]:
        """Return the endpoints that are ready now, sorted by name; cheap to call often."""
        ...
