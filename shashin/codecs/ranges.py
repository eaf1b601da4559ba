"""Converts offset ranges and positions from and to their messages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from shashin.offsets.coverage import Position
from shashin.offsets.ranges import OffsetRange
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


def range_messages(ranges: Iterable[OffsetRange]) -> list[index_pb2.OffsetRange]:
    """Return the messages of offset ranges."""
    return [
        index_pb2.OffsetRange(
            partition=r.partition, from_offset=r.from_offset, to_offset=r.to_offset
        )
        for r in ranges
    ]


def position_messages(positions: Mapping[int, Position]) -> list[index_pb2.PartitionPosition]:
    """Return the messages of positions, by partition."""
    return [
        index_pb2.PartitionPosition(
            partition=partition,
            horizon_offset=position.horizon_offset,
            live_offset=position.live_offset,
        )
        for partition, position in sorted(positions.items())
    ]
