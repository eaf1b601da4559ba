"""Converts how far the pipeline has come from and to its message."""

from __future__ import annotations

from shashin.offsets.progress import PartitionOffsets, PipelineProgress, StageOffsets
from shashin.v1 import index_pb2


def progress_in(answer: index_pb2.DescribeResponse) -> PipelineProgress | None:
    """Return what the endpoint has sampled; None if it has not, or is no live tier."""
    if not answer.HasField("pipeline"):
        return None
    message = answer.pipeline
    return PipelineProgress(
        stages=tuple(
            StageOffsets(
                one.stage,
                one.topic,
                one.seconds,
                {p.partition: PartitionOffsets(p.processed, p.end) for p in one.partitions},
            )
            for one in message.stages
        ),
        dead_letters={one.topic: one.records for one in message.dead_letters},
        searchable_events=message.searchable_events,
        searchable_event_seconds=message.searchable_event_seconds,
    )


def progress_message(progress: PipelineProgress | None) -> index_pb2.PipelineProgress | None:
    """Return the message of what an endpoint has sampled; None for none."""
    if progress is None:
        return None
    return index_pb2.PipelineProgress(
        stages=[
            index_pb2.StageOffsets(
                stage=one.stage,
                topic=one.topic,
                seconds=one.seconds,
                partitions=[
                    index_pb2.PartitionOffsets(
                        partition=partition, processed=offsets.processed, end=offsets.end
                    )
                    for partition, offsets in sorted(one.partitions.items())
                ],
            )
            for one in progress.stages
        ],
        dead_letters=[
            index_pb2.DeadLetters(topic=topic, records=records)
            for topic, records in sorted(progress.dead_letters.items())
        ],
        searchable_events=progress.searchable_events,
        searchable_event_seconds=progress.searchable_event_seconds,
    )
