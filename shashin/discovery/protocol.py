"""What the router and the indexer ask of discovery."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

Role = Literal["indexer", "index-server", "embedder"]

INDEXER: Role = "indexer"
INDEX_SERVER: Role = "index-server"
EMBEDDER: Role = "embedder"


@dataclass(frozen=True, order=True)
class Endpoint:
    """One ready process that answers gRPC."""

    name: str
    role: Role
    address: str
    """HOST:PORT; an IPv6 address stands in brackets."""
    tier: str = ""
    """live, hourly, daily or monthly; empty for an embedder, or when discovery does not say."""
    model_id: str = ""
    """The model that it works with; empty when discovery does not say."""

    def may_hold(self, model_id: str) -> bool:
        """Whether it works with a model, as far as discovery can tell."""
        return self.model_id in {"", model_id}

    def __str__(self) -> str:
        return f"{self.name} at {self.address}"


class Discovery(Protocol):
    """Knows the ready endpoints. Making one does no I/O, so that settings can be checked with it."""

    async def endpoints(self) -> list[Endpoint]:
        """Return the endpoints that are ready now, sorted by name; cheap to call often.

        Raises:
            ShashinError: when what knows the endpoints does not answer; callers keep those that
                they have.
        """
        ...

    async def close(self) -> None:
        """Release connections and watches; no call follows."""
        ...
