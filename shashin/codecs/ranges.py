"""Converts offset ranges and what live tiers report from and to their messages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from shashin.offsets.coverage import LiveReport, Position, StageLag
from shashin.offsets.ranges import OffsetRange
from shashin.v1 import index_pb2


def ranges_in(messages: Iterable[index_pb2.OffsetRange]) -> Iterator[OffsetRange]:
    """Yield the offset ranges."""
    for message in messages:
        yield OffsetRange(message.partition, message.from_offset, message.to_offset)


def report_in(answer: index_pb2.IndexSearchResponse | index_pb2.DescribeResponse) -> LiveReport:
    """Return what the endpoint reports of the log; nothing if it is no live tier."""
    return LiveReport(
        positions={
            p.partition: Position(p.horizon_offset, p.live_offset) for p in answer.positions
        },
        partitions=answer.log.partitions,
        end_unknown_seconds=answer.log.end_unknown_seconds,
        stages=tuple(
            StageLag(s.stage, s.records if s.HasField("records") else None, s.seconds)
            for s in answer.log.stages
        ),
    )


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


def put_log(message: index_pb2.LogState, report: LiveReport) -> None:
    """Fill the message of what a live tier knows of the log, beside its positions."""
    message.partitions = report.partitions
    message.end_unknown_seconds = report.end_unknown_seconds
    message.stages.extend(stage_messages(report.stages))


def stage_messages(stages: Iterable[StageLag]) -> list[index_pb2.StageLag]:
    """Return the messages of how far stages are behind."""
    return [
        index_pb2.StageLag(stage=lag.stage, records=lag.records, seconds=lag.seconds)
        for lag in stages
    ]
