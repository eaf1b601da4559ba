"""What the image builder asks index servers."""

from __future__ import annotations

from typing import Protocol

from shashin.serving.index_servers import HeldShard


class Servers(Protocol):
    """Index servers in discovery."""

    async def held(self) -> list[HeldShard]:
        """Return the shards that every ready replica of a group of the model holds now."""
        ...
