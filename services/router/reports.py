"""What endpoints report of the log, from their messages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from shashin.index.coverage import OffsetRange, Position
from shashin.v1 import index_pb2


def ranges_in(messages: Iterable[index_pb2.OffsetRange]) -> Iterator[OffsetRange]:
    """Yield the offset ranges."""
    for message in messages:
        yield OffsetRange(message.partition, message.from_offset, message.to_offset)


def positions_in(
    messages: Iterable[index_pb2.PartitionPosition],
) -> Iterator[tuple[int, Position]]:
    """Yield partitions with their positions."""
    for message in messages:
        yield message.partition, Position(message.horizon_offset, message.live_offset)
