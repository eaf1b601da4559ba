"""The discovery interface used by the router and the indexer."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple, Protocol

from shashin.model_space import ModelSpace

Role = Literal["indexer", "index-server", "embedder"]

INDEXER: Role = "indexer"
INDEX_SERVER: Role = "index-server"
EMBEDDER: Role = "embedder"


class GroupKey(NamedTuple):
    """Identifies the endpoints that are replicas of each other."""

    role: Role
    tier: str
    group: str
    """Name of the group; empty for an endpoint without one."""
    endpoint: str
    """The endpoint, if it has no group; otherwise empty."""


@dataclass(frozen=True, order=True)
class Endpoint:
    """One ready gRPC endpoint of a process."""

    name: str
    role: Role
    address: str
    """HOST:PORT; an IPv6 address is in brackets."""
    tier: str = ""
    """live, hourly, daily or monthly; empty for an embedder, or if unknown to discovery."""
    model_id: str = ""
    """The model that it works with; empty if unknown to discovery."""
    group: str = ""
    """Endpoints of one role, tier and group are replicas: they hold the same shards, but for a moment
    during a rollout. Without a group, an endpoint is a group of its own."""
    zone: str = ""
    """The availability zone that it runs in; empty if unknown to discovery."""

    def __hash__(self) -> int:
        # Every call is counted by its endpoint; all fields together would take longer than the counting.
        return hash(self.address)

    @cached_property
    def group_key(self) -> GroupKey:
        """Identify its group. A group has one role and one tier, so an equal name elsewhere is another group."""
        if self.group:
            return GroupKey(self.role, self.tier, self.group, "")
        return GroupKey(self.role, self.tier, "", str(self))

    def may_hold(self, model_id: str) -> bool:
        """Whether it may work with a model, as far as discovery knows."""
        return self.model_id in {"", model_id}

    def __str__(self) -> str:
        return f"{self.name} at {self.address}"


class Discovery(Protocol):
    """Finds ready endpoints. Creating one does no I/O, so that it can validate settings."""

    async def endpoints(self) -> list[Endpoint]:
        """Return the currently ready endpoints, sorted by name; cheap to call often.

        Raises:
            ShashinError: when the source does not respond; callers keep the endpoints they have.
        """
        ...

    async def active_model(self) -> ModelSpace | None:
        """Return the model that searches should use; None if discovery does not say.

        Raises:
            ShashinError: when the source does not respond; callers keep the model they have.
        """
        ...

    @property
    def problem(self) -> str | None:
        """Why what it returns may be out of date; None if it is not."""
        ...

    async def close(self) -> None:
        """Release connections and watches; no call follows."""
        ...
