"""Settings of the canary."""

from __future__ import annotations

import re

from pydantic import Field, field_validator

from shashin.rpc.router_access import RouterAccess
from shashin.rpc.router_address import check_router_address
from shashin.runtime.settings import ServiceSettings, validated_by

_REPLICA = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


class CanarySettings(RouterAccess, ServiceSettings):
    """Settings of the canary."""

    router: str = Field(
        description="Router to search through: HOST:PORT, dns:///NAME:PORT for all that the name has, or "
        "grpcs://NAME:PORT for those with TLS."
    )
    photos: str = Field(
        description="Where the canary's photos are put: file:///FOLDER, s3://BUCKET/FOLDER or "
        "gs://BUCKET/FOLDER, which the downloader may read."
    )
    replica: str = Field(
        "0",
        description="Name of this canary, in the ids of its listings; no two may have the same.",
    )
    every_seconds: float = Field(
        15.0, gt=0, le=3600, description="Seconds from the begin of a cycle to that of the next."
    )
    found_limit_seconds: float = Field(
        20.0,
        gt=0,
        le=300,
        description="Seconds within which a listing has to be found; then the cycle fails.",
    )
    gone_limit_seconds: float = Field(
        20.0,
        gt=0,
        le=300,
        description="Seconds within which a sold listing has to be gone; then the cycle fails.",
    )

    @field_validator("router")
    @classmethod
    def _router_is_an_address(cls, value: str) -> str:
        return validated_by(check_router_address, value)

    @field_validator("replica")
    @classmethod
    def _replica_can_be_in_an_id(cls, value: str) -> str:
        if not _REPLICA.fullmatch(value):
            raise ValueError("expected lower-case letters, digits and hyphens, as in a pod's name")
        return value
