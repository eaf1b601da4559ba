"""The discovery setting of services that call endpoints."""

from __future__ import annotations

from pydantic import Field, field_validator

from shashin.discovery.open import FILE_FORM, KUBERNETES_FORM, open_discovery
from shashin.runtime.settings import ServiceSettings, validated_by


class DiscoverySettings(ServiceSettings):
    """How endpoints are found."""

    discovery: str = Field(
        description=f"URI of the list of ready endpoints: {FILE_FORM} (JSON, re-read after each "
        f"change), {KUBERNETES_FORM} (EndpointSlices of Services with the label shashin.dev/role; without "
        "a namespace those of the pod's own), or static: followed by the endpoints themselves, such as "
        "static:indexer=10.0.0.6:50053,index-server/hourly@demo-v1=[fd00::7]:50054,"
        "embedder=10.0.0.8:50052. ;group=NAME after an address names the replicas that hold the same "
        "shards, ;zone=NAME where they run."
    )

    @field_validator("discovery")
    @classmethod
    def _discovery_can_be_opened(cls, value: str) -> str:
        return validated_by(open_discovery, value)
