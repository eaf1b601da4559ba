"""Settings of the controller."""

from __future__ import annotations

from pydantic import Field

from services.controller.build_settings import BuildSettings


class ControllerSettings(BuildSettings):
    """Settings of the controller."""

    namespace: str = Field(
        "",
        description="Namespace whose IndexServings and IndexBuilds are looked after; empty for the "
        "controller's own.",
    )
    lease: str = Field(
        "shashin-controller",
        min_length=1,
        description="Name of the Lease by which one of several controllers works at a time.",
    )
    resync_seconds: float = Field(
        300.0,
        gt=0,
        description="Seconds between looks at every object, when nothing has changed.",
    )
    config_map: str = Field(
        "shashin",
        min_length=1,
        description="ConfigMap with the environment of the pods that the controller makes.",
    )
    secret: str = Field(
        "",
        description="Secret with more of their environment, such as credentials of S3; empty for none.",
    )
    index_server_account: str = Field(
        "index-server", description="Service account of index servers."
    )
    index_server_cpu: str = Field(
        "500m", description="CPU that an index server asks for, unless its IndexServing says so."
    )
    index_server_memory: str = Field(
        "1Gi", description="Memory that it asks for, unless its IndexServing says so."
    )
    pre_stop_seconds: int = Field(
        3,
        ge=0,
        description="Seconds that an index server goes on answering once its pod terminates, until "
        "routers no longer ask it.",
    )
