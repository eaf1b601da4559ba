"""The live tier: the open and held shards that this indexer serves. No I/O.

``recovery`` restores it at startup, ``tail`` applies the log to it, ``sealing`` seals its closed
ranges, and ``release`` removes those that index servers hold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from services.indexer.held_shards import HeldShards
from services.indexer.partition import PartitionState
from services.indexer.settings import IndexerSettings
from services.indexer.start_offsets import StartOffset
from shashin.offsets.coverage import Position
from shashin.runtime.logging import get_logger
from shashin.serving.served_shards import ServedShards
from shashin.shards.open_shard import OpenShard
from shashin.shards.sealed_shard import SealedShard
from shashin.shards.shard import Shard
from shashin.shards.visibility import Visibility

log = get_logger(__name__)


class LiveTier:
    """One open shard per partition, and the closed shards that no index server serves yet."""

    def __init__(self, settings: IndexerSettings, served: ServedShards, hidden: Visibility) -> None:
        self._space = settings.space
        self._kind = settings.kind()
        self._rules = settings.cut_rules()
        self._served = served
        self._hidden = hidden
        self.partitions: dict[int, PartitionState] = {}
        self.held = HeldShards()

    def open_partitions(self, starts: Mapping[int, StartOffset]) -> None:
        """Open a shard at the start offset of each partition."""
        for partition, start in starts.items():
            for lost in start.lost:
                log.error("offsets lost: neither in the log nor in any shard", lost=str(lost))
            self.partitions[partition] = PartitionState(
                partition,
                horizon_offset=start.horizon_offset,
                from_offset=start.from_offset,
                rules=self._rules,
                space=self._space,
                kind=self._kind,
                hidden=self._hidden,
            )
        log.info("reading partitions", offsets={p: s.from_offset for p, s in starts.items()})
        self._serve()

    def adopt(self, sealed: SealedShard) -> None:
        """Serve a sealed and masked shard of an earlier process that no index server serves."""
        self.held.hold(sealed)
        self.held.mark_committed(sealed.shard_id)
        self._serve()

    def cut(self, state: PartitionState) -> OpenShard:
        """Close a partition's open range and hold its shard; returns the shard."""
        closed = state.cut()
        self.held.hold(closed)
        self._serve()
        return closed

    def release(self, shards: Sequence[Shard]) -> None:
        """Stop serving these shards."""
        self.held.release(shards)
        self._serve()

    def positions(
        self, shards: Sequence[Shard], log_ends: Mapping[int, int]
    ) -> dict[int, Position]:
        """Return the positions to be covered, as of the shards of one snapshot.

        ``log_ends`` are the ends of partitions up to which everything should be searchable by now:
        what is not read yet is then missing.
        """
        ends = {
            r.partition: r.to_offset
            for shard in shards
            if isinstance(shard, OpenShard)
            for r in shard.ranges
        }
        return {
            partition: Position(
                state.horizon_offset, max(ends[partition], log_ends.get(partition, 0))
            )
            for partition, state in self.partitions.items()
            if partition in ends
        }

    def next_offsets(self) -> dict[int, int]:
        """Return the next offset to read of each partition."""
        return {partition: state.open.position for partition, state in self.partitions.items()}

    def sealed_up_to(self) -> dict[int, int]:
        """Return the offset from which a restart would read each partition."""
        return self.held.sealed_up_to(
            {partition: state.open.from_offset for partition, state in self.partitions.items()}
        )

    def _serve(self) -> None:
        opened = [state.open for state in self.partitions.values()]
        self._served.serve([*self.held.shards, *opened])
