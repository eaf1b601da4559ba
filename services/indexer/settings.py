"""Settings of the indexer."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator

from shashin.discovery.settings import DiscoverySettings
from shashin.kafka.settings import ConsumerSettings
from shashin.objectstore.open import known_forms
from shashin.offsets.cut import CutRules
from shashin.runtime.settings import ModelSpaceSettings
from shashin.shards.kinds.protocol import GrowingKind
from shashin.shards.kinds.registry import DEFAULT_KIND, growing_kind, kind_names


class IndexerSettings(ConsumerSettings, DiscoverySettings, ModelSpaceSettings):
    """Settings of the indexer."""

    grpc_host: str = Field("127.0.0.1", description="Address that IndexService listens on.")
    grpc_port: int = Field(
        0, ge=0, le=65535, description="Port of IndexService; 0 takes a free one."
    )
    repository: str = Field(
        description=f"Model repository that shards are sealed into: {known_forms()}."
    )
    work_folder: Path = Field(
        description="Folder for shards while they are written; its content may be lost."
    )
    bucket_seconds: int = Field(
        3600, ge=1, le=7 * 86400, description="Length of a bucket of the hourly tier, in seconds."
    )
    grace_seconds: float = Field(
        60.0,
        ge=0,
        description="Seconds after a bucket's end at which an idle partition is cut; has to exceed "
        "the difference between the clocks of broker and indexer.",
    )
    index_kind: str = Field(
        DEFAULT_KIND,
        description=f"Kind of index that shards are built with: {' or '.join(kind_names())}; the "
        "same for all replicas.",
    )
    row_limit: int = Field(
        500_000,
        ge=1,
        description="Rows of a partition at which its shard is sealed early: bounds memory.",
    )
    held_row_limit: int = Field(
        2_000_000,
        ge=1,
        description="Rows of ended and sealed shards that may wait here for an index server. "
        "Beyond it the log is not read on, so that memory is bounded while the repository or the "
        "index servers are away; about 600 bytes a row at 128 dimensions.",
    )
    partitions: str = Field(
        "all", description="Partitions that this replica indexes: all, or a list such as 0-3,7."
    )
    release_after_seconds: float = Field(
        3.0,
        ge=0,
        description="Seconds that sealed rows stay here after an index server holds them; has to "
        "exceed the router's SHASHIN_DEADLINE_MS. A search that takes longer may miss rows that "
        "moved meanwhile, and then says that its answer is not complete.",
    )

    @field_validator("index_kind")
    @classmethod
    def _index_kind_is_known(cls, value: str) -> str:
        if value not in kind_names():
            raise ValueError(f"expected {' or '.join(kind_names())}")
        return value

    @field_validator("partitions")
    @classmethod
    def _partitions_parse(cls, value: str) -> str:
        parse_partitions(value)
        return value

    def kind(self) -> GrowingKind:
        """Return the kind of index that open shards have."""
        return growing_kind(self.index_kind)

    def cut_rules(self) -> CutRules:
        """Return the rules by which buckets are cut."""
        return CutRules(self.bucket_seconds, self.grace_seconds, self.row_limit)


def parse_partitions(text: str) -> list[int] | None:
    """Return the partitions of a list such as ``0-3,7``, sorted; None for ``all``.

    Raises:
        ValueError: when the text is neither.
    """
    if text == "all":
        return None
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        try:
            named = range(int(first), int(last if dash else first) + 1)
        except ValueError:
            raise ValueError(f"{part!r} is not a partition or a range such as 0-3") from None
        if not named:
            raise ValueError(f"{part!r} ends before it begins; expected a range such as 0-3")
        found.update(named)
    return sorted(found)
