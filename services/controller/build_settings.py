"""Settings of the controller for builds."""

from __future__ import annotations

from pydantic import Field

from shashin.runtime.settings import ServiceSettings


class BuildSettings(ServiceSettings):
    """How IndexBuilds are run."""

    repository: str = Field(
        "",
        description="URI of the model repository, as the pods of builds have it: a build of which it "
        "has changed is run again from its first step.",
    )
    builds_image: str = Field(
        "shashin/builds", min_length=1, description="Image of the built-in steps of builds."
    )
    builds_account: str = Field(
        "index-build", min_length=1, description="Service account of the pods of builds."
    )
    builds_cpu: str = Field("500m", description="CPU that a step of a build asks for.")
    builds_memory: str = Field("1Gi", description="Memory that a step of a build asks for.")
    builds_memory_limit: str = Field(
        "",
        description="Memory that a step may use at most; empty: as much as the node has.",
    )
    builds_claim: str = Field(
        "",
        description="PersistentVolumeClaim on which steps work, so that a retry keeps what has "
        "succeeded. Without one, a retry begins with the first step. ReadWriteMany if builds run on "
        "several nodes.",
    )
    originals_claim: str = Field(
        "",
        description="PersistentVolumeClaim with the cache of originals, from which a re-index has its "
        "photos. Without one, they come from their sources.",
    )
    embedder: str = Field(
        "embedder:50051",
        description="HOST:PORT of the embedders that embed the photos of a re-index; all addresses of "
        "the host are used.",
    )
    max_running_builds: int = Field(
        2, ge=1, description="Builds that run at the same time at most."
    )
    build_start_seconds: int = Field(
        900,
        ge=1,
        description="Seconds that a step may wait for a node, its image or its volumes before the build "
        "has failed.",
    )
    build_history: int = Field(
        20,
        ge=1,
        description="Builds of each tier that are kept once they have succeeded, and as many each that "
        "have failed or were cancelled; older ones are deleted.",
    )
