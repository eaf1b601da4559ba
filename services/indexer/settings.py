"""Settings of the indexer."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator

from services.indexer.partition_choice import PartitionChoice
from shashin.discovery.settings import DiscoverySettings
from shashin.kafka.settings import ConsumerSettings
from shashin.objectstore.settings import RepositorySettings
from shashin.offsets.cut import CutRules
from shashin.runtime.settings import ModelSpaceSettings
from shashin.serving.settings import ServingSettings
from shashin.shards.kinds.names import kind_names
from shashin.shards.kinds.protocol import GrowingKind, IndexKind
from shashin.shards.kinds.registry import (
    DEFAULT_KIND,
    DEFAULT_SEALED_KIND,
    GROWING_KINDS,
    growing_kind,
    index_kind,
)


class IndexerSettings(
    ConsumerSettings, DiscoverySettings, ModelSpaceSettings, RepositorySettings, ServingSettings
):
    """Settings of the indexer."""

    grpc_host: str = Field("127.0.0.1", description="Address that IndexService listens on.")
    grpc_port: int = Field(
        0, ge=0, le=65535, description="Port of IndexService; 0 takes a free one."
    )
    work_folder: Path = Field(
        description="Scratch folder for shards, of this process alone: empty or missing at the first "
        "start, and cleared at every start."
    )
    hidden_folder: Path | None = Field(
        None,
        description="Folder for the store of hidden listings, of this process alone, on a disk that "
        "survives a restart; 5 to 40 bytes per listing that was ever hidden. Disposable: it is "
        "filled again from listings.hidden. Unset: in the work folder, and filled at every start.",
    )
    bucket_seconds: int = Field(
        3600, ge=1, le=7 * 86400, description="Length of a bucket in the hourly tier, in seconds."
    )
    grace_seconds: float = Field(
        60.0,
        ge=0,
        description="Seconds after the end of a bucket at which an idle partition is cut; must exceed "
        "the clock skew between broker and indexer.",
    )
    index_kind: str = Field(
        DEFAULT_KIND,
        description=f"Index kind of open shards: {' or '.join(GROWING_KINDS)}.",
    )
    sealed_index_kind: str = Field(
        DEFAULT_SEALED_KIND,
        description=f"Index kind of sealed shards: {', '.join(kind_names())}; must be the same for all "
        "replicas. Shards of ivf-sq4 are searched together, at the price of one.",
    )
    row_limit: int = Field(
        500_000,
        ge=1,
        description="Rows at which the open shard of a partition is sealed early, to bound memory.",
    )
    held_row_limit: int = Field(
        2_000_000,
        ge=1,
        description="Maximum rows of closed and sealed shards that wait here for an index server. "
        "Above it consumption is paused, to bound memory while the repository or the index "
        "servers are unavailable; about 600 bytes per row at 128 dimensions.",
    )
    partitions: str = Field(
        "all",
        description="Partitions to index: all, a list such as 0-3,7, or a share such as 1/3: every "
        "third one, beginning with number 1.",
    )
    release_after_seconds: float = Field(
        3.0,
        ge=0,
        description="Seconds that sealed rows stay here once an index server holds them; must exceed "
        "the router's SHASHIN_DEADLINE_MS. A slower search may miss rows that moved during it, "
        "and then reports incomplete coverage.",
    )

    @field_validator("index_kind")
    @classmethod
    def _index_kind_is_known(cls, value: str) -> str:
        if value not in GROWING_KINDS:
            raise ValueError(f"expected {' or '.join(GROWING_KINDS)}")
        return value

    @field_validator("sealed_index_kind")
    @classmethod
    def _sealed_index_kind_is_known(cls, value: str) -> str:
        if value not in kind_names():
            raise ValueError(f"expected {' or '.join(kind_names())}")
        return value

    @field_validator("partitions")
    @classmethod
    def _partitions_parse(cls, value: str) -> str:
        PartitionChoice.parse(value)
        return value

    def kind(self) -> GrowingKind:
        """Return the index kind of open shards."""
        return growing_kind(self.index_kind)

    def sealed_kind(self) -> IndexKind:
        """Return the index kind of sealed shards."""
        return index_kind(self.sealed_index_kind)

    def partition_choice(self) -> PartitionChoice:
        """Return which partitions to index."""
        return PartitionChoice.parse(self.partitions)

    def cut_rules(self) -> CutRules:
        """Return the cut rules."""
        return CutRules(self.bucket_seconds, self.grace_seconds, self.row_limit)
