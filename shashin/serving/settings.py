"""Settings of every service that serves shards."""

from __future__ import annotations

from pydantic import Field

from shashin.runtime.settings import ServiceSettings


class ServingSettings(ServiceSettings):
    """Settings of indexers and index servers."""

    hide_superseded_after_seconds: float = Field(
        2.0,
        ge=0,
        description="Seconds for which the old version of an updated listing stays visible beside "
        "the new one; must exceed the router's SHASHIN_DEADLINE_MS. A slower search may find "
        "neither.",
    )
    recall_cpu_share: float = Field(
        0.005,
        ge=0,
        le=1,
        description="Share of one core for repeating a sample of live queries and comparing the hits "
        "with an exact search over the same shards, which reads all of their vectors "
        "(shashin_recall_found_hits_total); 0 turns it off.",
    )
