"""The JSON of the live pipeline."""

from __future__ import annotations

from pydantic import BaseModel, Field

from services.router.rest.schema import Coverage, EndpointStatus, OffsetRange


class StagePartition(BaseModel):
    """A stage in one partition."""

    partition: int
    processed: int = Field(description="The offset up to which it has processed the partition.")
    end: int = Field(description="The partition's end.")
    behind: int = Field(description="Offsets not processed, by the replica furthest behind.")


class PipelineStage(BaseModel):
    """A stage of the pipeline: `app` writes events, `searchable` is what ready endpoints can search."""

    stage: str
    topic: str | None = Field(description="Whose offsets are counted; null if that is not known.")
    processed: int | None = Field(
        description="The sum of the offsets up to which it has processed the partitions; null if unknown."
    )
    rate: float | None = Field(description="Offsets per second, the mean of five; null if unknown.")
    behind: int | None = Field(description="Offsets not processed; null if unknown, and for `app`.")
    waiting_seconds: float | None = Field(
        description="For how long at least the oldest of them has been waiting; null if unknown."
    )
    partitions: list[StagePartition]


class PipelineShard(BaseModel):
    """A shard, once for all endpoints that serve it."""

    shard_id: str
    bucket_start: int | None = Field(description="Unix seconds; null for a shard without rows.")
    bucket_seconds: int | None = Field(description="null for a shard that is still open.")
    rows: int
    hidden_rows: int
    ranges: list[OffsetRange]
    model_id: str
    served_by: list[str] = Field(description="Names of ready endpoints.")


class PipelineTier(BaseModel):
    """A tier: the endpoints that belong to it, and the shards of its age, whoever serves them."""

    tier: str
    endpoints: list[EndpointStatus]
    shard_count: int
    rows: int
    hidden_rows: int
    shards: list[PipelineShard] = Field(
        description="Oldest first; of more than 500 the newest, while the other figures are of all."
    )


class DeadLetterTopic(BaseModel):
    """A topic of dead letters."""

    topic: str
    records: int = Field(
        description="End less begin of its partitions: what it retains, resolutions included."
    )


class PipelineHistory(BaseModel):
    """The last five minutes as columns, oldest first, about one sample per second."""

    at: list[float] = Field(description="Unix seconds by the router's clock.")
    rates: dict[str, list[float | None]] = Field(description="By stage, as `rate` of the stages.")
    behind: dict[str, list[int | None]] = Field(description="By stage, as `behind` of the stages.")
    freshness_seconds: list[float | None] = Field(
        description="The mean time from an event until it was searchable, of those that became searchable "
        "in the five seconds before; null if none did."
    )
    dead_letters: list[int | None] = Field(
        description="What all of their topics retain; null if none of them is known."
    )


class Pipeline(BaseModel):
    """The pipeline as the router sees it."""

    at: float = Field(
        description="Of the last sample, Unix seconds by the router's clock; 0 if none."
    )
    now: float = Field(description="Unix seconds by the router's clock.")
    model_id: str
    stages: list[PipelineStage] = Field(description="In the order of the pipeline.")
    freshness_seconds: float | None = Field(description="As in the history.")
    dead_letters: list[DeadLetterTopic] = Field(
        description="Without topics that no live tier could read lately."
    )
    coverage: Coverage
    tiers: list[PipelineTier] = Field(description="From the freshest to the oldest.")
    history: PipelineHistory
