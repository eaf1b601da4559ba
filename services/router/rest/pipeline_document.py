"""Makes the document of the live pipeline from what the router has polled anyway."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence

from services.router.endpoints import EndpointState, EndpointWatch
from services.router.pipeline_history import APP, SEARCHABLE, STAGES, Moment
from services.router.rest import pipeline_schema as schema
from services.router.rest.convert import coverage_of, endpoint_of
from services.router.rest.schema import OffsetRange
from shashin.kafka.topics import LISTINGS_EVENTS, VECTORS_EMBEDDED
from shashin.offsets.progress import StageState
from shashin.tiers import TIERS, freshest_first
from shashin.v1 import index_pb2

MAX_SHARDS = 500
"""Of a tier in the document; years of unmerged shards would take longer to draw than a second."""

_ENDS = {APP: LISTINGS_EVENTS, SEARCHABLE: VECTORS_EMBEDDED}


def pipeline_of(watch: EndpointWatch, model_id: str, since: float) -> schema.Pipeline:
    """Return the pipeline, with the history after ``since`` in Unix seconds."""
    moments = watch.history.moments(since)
    last = watch.history.last()
    return schema.Pipeline(
        at=0.0 if last is None else last.sample.at,
        now=time.time(),
        model_id=model_id,
        stages=[_stage(stage, last, watch.history.stages.get(stage)) for stage in STAGES],
        freshness_seconds=None if last is None else last.freshness_seconds,
        dead_letters=[
            schema.DeadLetterTopic(topic=topic, records=records)
            for topic, records in ({} if last is None else last.sample.dead_letters).items()
        ],
        coverage=coverage_of(watch.coverage()),
        tiers=tiers_of(watch.states()),
        history=_history(moments),
    )


def _stage(name: str, last: Moment | None, state: StageState | None) -> schema.PipelineStage:
    figures = None if last is None else last.sample.stages.get(name)
    return schema.PipelineStage(
        stage=name,
        topic=_ENDS.get(name) or (state.topic if state else None),
        processed=figures.processed if figures else None,
        rate=last.rates.get(name) if last else None,
        behind=figures.behind if figures else None,
        waiting_seconds=figures.seconds if figures else None,
        partitions=[
            schema.StagePartition(
                partition=partition, processed=one.processed, end=one.end, behind=one.behind
            )
            for partition, one in sorted(state.partitions.items() if state else ())
        ],
    )


def _history(moments: Sequence[Moment]) -> schema.PipelineHistory:
    return schema.PipelineHistory(
        at=[round(one.sample.at, 3) for one in moments],
        rates={stage: [_rounded(one.rates.get(stage)) for one in moments] for stage in STAGES},
        behind={
            stage: [
                None if (figures := one.sample.stages.get(stage)) is None else figures.behind
                for one in moments
            ]
            for stage in STAGES
            if stage != APP
        },
        freshness_seconds=[_rounded(one.freshness_seconds) for one in moments],
        dead_letters=[sum(letters.values()) if letters else None for letters in _letters(moments)],
    )


def _letters(moments: Sequence[Moment]) -> Iterator[Mapping[str, int]]:
    return (one.sample.dead_letters for one in moments)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def tiers_of(states: Sequence[EndpointState]) -> list[schema.PipelineTier]:
    """Return the tiers that there are, and each that a shard belongs to; the pipeline's own always."""
    served: dict[str, dict[str, schema.PipelineShard]] = {}
    for state in states:
        if state.described is not None:
            for shard in state.described.shards:
                _add(served.setdefault(shard.tier, {}), shard, state)
    names = freshest_first({*TIERS, *served, *(state.tier for state in states if state.tier)})
    return [
        _tier(
            name,
            [state for state in states if state.tier == name],
            served.get(name, {}).values(),
        )
        for name in names
    ]


def _add(
    shards: dict[str, schema.PipelineShard], shard: index_pb2.ShardInfo, state: EndpointState
) -> None:
    known = shards.get(shard.shard_id)
    if known is None:
        shards[shard.shard_id] = schema.PipelineShard(
            shard_id=shard.shard_id,
            bucket_start=shard.bucket_start or None,
            bucket_seconds=shard.bucket_seconds or None,
            rows=shard.rows,
            hidden_rows=shard.hidden_rows,
            ranges=[
                OffsetRange(
                    partition=one.partition, from_offset=one.from_offset, to_offset=one.to_offset
                )
                for one in shard.ranges
            ],
            model_id=state.model_id,
            served_by=[state.endpoint.name],
        )
        return
    known.served_by.append(state.endpoint.name)
    known.rows = max(known.rows, shard.rows)
    known.hidden_rows = max(known.hidden_rows, shard.hidden_rows)


def _tier(
    name: str, states: Iterable[EndpointState], shards: Iterable[schema.PipelineShard]
) -> schema.PipelineTier:
    ordered = sorted(shards, key=lambda one: (one.bucket_start or 0, one.shard_id))
    return schema.PipelineTier(
        tier=name,
        endpoints=[endpoint_of(state) for state in states],
        shard_count=len(ordered),
        rows=sum(one.rows for one in ordered),
        hidden_rows=sum(one.hidden_rows for one in ordered),
        shards=ordered[-MAX_SHARDS:],
    )
