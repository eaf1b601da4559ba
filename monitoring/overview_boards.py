"""The dashboards of the whole system."""

from __future__ import annotations

from monitoring.alerts import RECALL
from monitoring.objectives import FRESH_SECONDS, OBJECTIVES, ROUTERS, SEARCH
from monitoring.panels import Board, Panel, Query, Row, empty_until
from monitoring.queries import (
    RATE,
    calls_to_endpoints,
    mean,
    quantiles,
    rate,
    rates_by_tier,
    total,
)

_SEARCHES = Query(
    f"sum by (status) (rate(shashin_rpc_answers_total{{{SEARCH}}}{RATE}) {ROUTERS})", "{{status}}"
)
_TOTAL = '{stage="total"}'
_SEARCHABLE = '{stage="searchable"}'
_PROMISES = {objective.name: objective for objective in OBJECTIVES}


def _promise(name: str, title: str, means: str) -> Panel:
    objective = _PROMISES[name]
    return Panel(
        title,
        [Query(f"1 - {objective.recorded('1h')}")],
        "percentunit",
        f"{means} over the last hour; promised: {objective.target:.1%}.",
        limits=((0.0, "red"), (objective.target, "green")),
        shows="number",
        alerts=(f"Shashin{name.capitalize()}BudgetBurn",),
    )


_OVERVIEW = Board(
    "shashin-overview",
    "Shashin: overview",
    "Whether what is promised to users holds, and how much there is to do.",
    [
        Row(
            "Promises",
            [
                _promise(
                    "availability", "Searches answered", "Share of searches that were answered"
                ),
                _promise(
                    "completeness", "Searches complete", "Share of searches that left nothing out"
                ),
                _promise(
                    "freshness",
                    f"Searchable within {FRESH_SECONDS} s",
                    f"Share of listings that were searchable {FRESH_SECONDS} s after their event",
                ),
                Panel(
                    "Ghosts in an hour",
                    [Query('sum(increase(shashin_canary_failures_total{kind="not_gone"}[1h]))')],
                    "short",
                    "Sold listings of the canary that were still found.",
                    limits=((1, "red"),),
                    shows="number",
                    alerts=("ShashinGhosts",),
                ),
                Panel(
                    "Coverage",
                    [Query("min(shashin_router_coverage_complete)")],
                    "percentunit",
                    "Whether the ready endpoints cover the whole log.",
                    limits=((0, "red"), (1, "green")),
                    shows="number",
                    alerts=("ShashinSearchesIncomplete", "ShashinPartitionNotIndexed"),
                ),
                Panel(
                    "Recall@10",
                    [
                        Query(
                            "sum(rate(shashin_recall_found_hits_total[1h])) "
                            "/ sum(rate(shashin_recall_expected_hits_total[1h]))"
                        )
                    ],
                    "percentunit",
                    "Share of the nearest 10 listings that searches find, from a sample of live queries.",
                    limits=((0, "red"), (RECALL, "green")),
                    shows="number",
                    alerts=("ShashinRecallLow",),
                ),
            ],
        ),
        Row(
            "What users see",
            [
                Panel(
                    "From a listing's event to searchable",
                    quantiles("shashin_pipeline_since_event_seconds", where=_SEARCHABLE),
                    "s",
                    "Time from the append of an event until the listing can be found.",
                    limits=((FRESH_SECONDS, "red"),),
                    alerts=("ShashinFreshnessBudgetBurn",),
                ),
                Panel(
                    "Seen by the canary",
                    [
                        *(
                            Query(one.expr, f"found {one.legend}")
                            for one in quantiles("shashin_canary_found_seconds")
                        ),
                        *(
                            Query(one.expr, f"gone {one.legend}")
                            for one in quantiles("shashin_canary_gone_seconds")
                        ),
                    ],
                    "s",
                    "Time until a listing of its own is found, and until it is gone after its sale.",
                    alerts=("ShashinCanaryFailing", "ShashinGhosts"),
                ),
                Panel(
                    "Duration of searches",
                    quantiles(
                        "shashin_router_search_seconds", where=_TOTAL, shares=(0.5, 0.95, 0.99)
                    ),
                    "s",
                    "Whole searches, as the router sees them.",
                ),
            ],
        ),
        Row(
            "Load",
            [
                Panel(
                    "Searches",
                    [_SEARCHES],
                    "reqps",
                    "Searches a second by the status of their answer.",
                    alerts=("ShashinAvailabilityBudgetBurn",),
                ),
                Panel(
                    "Records processed",
                    [rate("shashin_consumed_records_total", by="topic")],
                    "ops",
                    "Records a second that consumer groups process.",
                ),
                Panel(
                    "Rows served",
                    [total("shashin_index_rows", by="tier", how="max")],
                    "short",
                    "Rows of the largest endpoint of each tier, also hidden ones.",
                ),
            ],
        ),
    ],
)

_PIPELINE = Board(
    "shashin-pipeline",
    "Shashin: pipeline",
    "The way of a listing from its event to the live tier, stage by stage.",
    [
        Row(
            "Time",
            [
                Panel(
                    "Since the event, p99 at the end of each stage",
                    quantiles("shashin_pipeline_since_event_seconds", by="stage", shares=(0.99,)),
                    "s",
                    "Where a listing's time goes.",
                    alerts=("ShashinFreshnessBudgetBurn",),
                ),
                Panel(
                    "Lag in seconds",
                    [total("shashin_consumer_lag_seconds", by="topic", how="max")],
                    "s",
                    "For how long the oldest record that was not processed has been waiting.",
                    alerts=("ShashinLagNearRetention", "ShashinConsumerStuck"),
                ),
                Panel(
                    "Lag in records",
                    [total("shashin_consumer_lag_records", by="topic")],
                    "short",
                    "Offsets that are not processed yet.",
                ),
            ],
        ),
        Row(
            "Work",
            [
                Panel(
                    "Records",
                    [rate("shashin_consumed_records_total", by="topic")],
                    "ops",
                    "Records a second.",
                ),
                Panel(
                    "Batches",
                    [mean("shashin_consume_batch_records", by="topic")],
                    "short",
                    "Records of a batch, mean.",
                ),
                Panel(
                    "Duration of a batch",
                    quantiles("shashin_consume_batch_seconds", by="topic", shares=(0.99,)),
                    "s",
                    "From the poll to the commit, p99.",
                ),
            ],
        ),
        Row(
            "Trouble",
            [
                Panel(
                    "Dead letters",
                    [rate("shashin_dead_letters_total", by="topic, reason")],
                    "ops",
                    "Records and photos a second that cannot be processed.",
                    alerts=("ShashinDeadLettersRising",),
                    empty_until="a record is dead-lettered",
                ),
                Panel(
                    "Retries",
                    [rate("shashin_retries_total", by="topic, reason")],
                    "ops",
                    "Records a second that are tried again.",
                    empty_until="a record is tried again",
                ),
                Panel(
                    "Paused, or held back by a batch",
                    [
                        Query("max by (topic) (shashin_consumption_paused)", "{{topic}} paused"),
                        Query(
                            "sum by (topic) (shashin_undecodable_batches)", "{{topic}} held back"
                        ),
                    ],
                    "short",
                    "Topics that wait for a decision.",
                    limits=((1, "red"),),
                    alerts=("ShashinConsumptionPaused", "ShashinBatchHeldBack"),
                    empty_until="a consumer has to wait",
                ),
            ],
        ),
    ],
)

_SEARCH = Board(
    "shashin-search",
    "Shashin: search",
    "Searches, from the router to the endpoints of each tier.",
    [
        Row(
            "Router",
            [
                Panel(
                    "Searches by status",
                    [_SEARCHES],
                    "reqps",
                    "RESOURCE_EXHAUSTED is load that was shed.",
                    alerts=("ShashinAvailabilityBudgetBurn", "ShashinNoRouter"),
                ),
                Panel(
                    "Duration by stage, p99",
                    quantiles("shashin_router_search_seconds", by="stage", shares=(0.99,)),
                    "s",
                    "Embedding the photo, asking the endpoints, merging their hits, and all of it.",
                ),
                Panel(
                    "Incomplete answers, filled gaps, more rounds",
                    [
                        rate("shashin_router_incomplete_answers_total", legend="incomplete"),
                        rate("shashin_router_filled_gaps_total", legend="gaps filled"),
                        rate("shashin_router_over_fetch_rounds_total", legend="more rounds"),
                    ],
                    "ops",
                    "Answers that lacked a part of the log, and what the router did to complete others.",
                    alerts=("ShashinCompletenessBudgetBurn", "ShashinSearchesIncomplete"),
                ),
            ],
        ),
        Row(
            "Calls to endpoints",
            [
                Panel(
                    "Duration, p99",
                    calls_to_endpoints(),
                    "s",
                    "Calls of the router, by tier.",
                ),
                Panel(
                    "Failed calls",
                    [rate("shashin_fleet_failed_calls_total", by="tier, status")],
                    "ops",
                    "Calls a second to endpoints that failed.",
                    empty_until="a call fails",
                ),
                Panel(
                    "Hedges and retries",
                    [
                        *rates_by_tier("shashin_fleet_hedges_total", "hedges"),
                        *rates_by_tier("shashin_fleet_hedges_won_total", "won"),
                        *rates_by_tier("shashin_fleet_retries_total", "retries"),
                    ],
                    "ops",
                    "Calls to a second replica: since the first is slow, or has failed.",
                ),
            ],
        ),
        Row(
            "Endpoints",
            [
                Panel(
                    "Search over all shards, p99",
                    quantiles("shashin_index_search_seconds", by="tier", shares=(0.99,)),
                    "s",
                    "What an endpoint needs, without the way to it.",
                ),
                Panel(
                    "Queries of a call",
                    [mean("shashin_router_batched_queries")],
                    "short",
                    "Query vectors that share a call to an endpoint.",
                ),
                Panel(
                    "Recall@10 by tier",
                    [
                        Query(
                            "sum by (tier) (rate(shashin_recall_found_hits_total[1h])) "
                            "/ sum by (tier) (rate(shashin_recall_expected_hits_total[1h]))",
                            "{{tier}}",
                        )
                    ],
                    "percentunit",
                    "Share of the nearest 10 that searches find, from a sample of live queries.",
                    limits=((0, "red"), (RECALL, "green")),
                    alerts=("ShashinRecallLow",),
                ),
            ],
        ),
    ],
)

_TIERS = Board(
    "shashin-tiers",
    "Shashin: tiers and rollouts",
    "What each tier serves, how it came there, and whether anything is missing.",
    [
        Row(
            "Coverage",
            [
                Panel(
                    "Complete",
                    [Query("min(shashin_router_coverage_complete)")],
                    "short",
                    "1 while the ready endpoints cover the log.",
                    limits=((0, "red"), (1, "green")),
                    shows="number",
                    alerts=("ShashinSearchesIncomplete",),
                ),
                Panel(
                    "Missing offsets",
                    [Query("max(shashin_router_missing_offsets)")],
                    "short",
                    "Offsets that no ready endpoint holds.",
                    limits=((1, "red"),),
                    shows="number",
                    alerts=("ShashinSearchesIncomplete",),
                ),
                Panel(
                    "Partitions that nobody indexes",
                    [Query("max(shashin_router_unknown_partitions)")],
                    "short",
                    "Partitions whose live position no endpoint reports.",
                    limits=((1, "red"),),
                    shows="number",
                    alerts=("ShashinPartitionNotIndexed",),
                ),
                Panel(
                    "Bad shards",
                    [Query("sum(shashin_index_server_bad_shards) or vector(0)")],
                    "short",
                    "Shards that an index server cannot serve.",
                    limits=((1, "red"),),
                    shows="number",
                    alerts=("ShashinBadShards",),
                ),
            ],
        ),
        Row(
            "What is served",
            [
                Panel(
                    "Rows",
                    [total("shashin_index_rows", by="tier", how="max")],
                    "short",
                    "Rows of the largest endpoint of a tier.",
                ),
                Panel(
                    "Hidden rows",
                    [total("shashin_index_hidden_rows", by="tier", how="max")],
                    "short",
                    "Rows of sold, removed and replaced listings; compaction drops them.",
                ),
                Panel(
                    "Shards",
                    [total("shashin_index_shards", by="tier", how="max")],
                    "short",
                    "Shards of the endpoint that has most.",
                ),
                Panel(
                    "Endpoints",
                    [total("shashin_router_endpoints", by="tier, state", how="max")],
                    "short",
                    "Endpoints as the router knows them.",
                ),
            ],
        ),
        Row(
            "Seals and rollouts",
            [
                Panel(
                    "Shards sealed",
                    [
                        Query(
                            "sum by (cut) (increase(shashin_indexer_sealed_shards_total[1h]))",
                            "{{cut}}",
                        )
                    ],
                    "short",
                    "Shards sealed in an hour, by why they were cut.",
                    alerts=("ShashinSealingStuck",),
                ),
                Panel(
                    "Time to seal",
                    quantiles("shashin_indexer_seal_seconds"),
                    "s",
                    "From the cut of a range to the commit of its shard.",
                ),
                Panel(
                    "Time to swap",
                    quantiles("shashin_index_server_swap_seconds"),
                    "s",
                    "From the look at a pointer until its shards are served.",
                ),
                Panel(
                    "Planned and held shards",
                    [
                        total("shashin_image_builder_planned_shards", by="tier"),
                        Query("sum(shashin_indexer_held_shards)", "held by indexers"),
                    ],
                    "short",
                    "Shards of the plan, and those that indexers hold until others serve them.",
                ),
            ],
        ),
    ],
)

_BUILDS = Board(
    "shashin-builds",
    "Shashin: builds",
    "Index builds and servings on Kubernetes; empty elsewhere.",
    [
        Row(
            "Builds",
            [
                Panel(
                    "Builds by phase",
                    [total("shashin_controller_builds", by="tier, phase", how="max")],
                    "short",
                    "IndexBuilds that exist.",
                    alerts=("ShashinBuildsFailed",),
                ),
                Panel(
                    "Attempts that ended",
                    [
                        Query(
                            "sum by (tier, reason) "
                            "(increase(shashin_controller_build_attempts_total[1h]))",
                            "{{tier}} {{reason}}",
                        )
                    ],
                    "short",
                    "In an hour, by how they ended.",
                ),
            ],
        ),
        Row(
            "Servings",
            [
                Panel(
                    "Servings by state",
                    [total("shashin_controller_servings", by="tier, reason", how="max")],
                    "short",
                    "IndexServings by the reason of their condition Ready.",
                    alerts=("ShashinServingNotReady",),
                ),
                Panel(
                    "Time to roll out",
                    quantiles("shashin_controller_rollout_seconds", by="tier"),
                    "s",
                    "From a new image until all pods run it.",
                ),
                Panel(
                    "Controllers at work",
                    [Query("sum(shashin_controller_leading)")],
                    "short",
                    "Exactly one works; others wait to take over.",
                    limits=((0, "red"), (1, "green"), (2, "red")),
                    alerts=("ShashinNoController",),
                ),
            ],
        ),
    ],
)

_STORES = Board(
    "shashin-stores",
    "Shashin: Kafka and stores",
    "What the system depends on: the log, the object store, photos, disks.",
    [
        Row(
            "Kafka",
            [
                Panel(
                    "Polls that failed",
                    [rate("shashin_poll_failures_total", by="topic")],
                    "ops",
                    "And were repeated.",
                    empty_until="a poll fails",
                ),
                Panel(
                    "Retained before the consumer",
                    [total("shashin_consumer_retained_records", by="topic", how="min")],
                    "short",
                    "Records before the position that the topic still has: at 0, retention overtakes it.",
                    alerts=("ShashinLagNearRetention", "ShashinRecordsLost"),
                ),
                Panel(
                    "Lag of hidden listings",
                    [Query("max by (instance) (shashin_hidden_lag_records)", "{{instance}}")],
                    "short",
                    "Records of listings.hidden that an endpoint has not applied.",
                ),
            ],
        ),
        Row(
            "Stores and photos",
            [
                Panel(
                    "Operations that are repeated",
                    [rate("shashin_operation_retries_total", by="instance, reason")],
                    "ops",
                    "Calls to Kafka, object stores and others that failed.",
                    empty_until="an operation fails",
                ),
                Panel(
                    "Time to read a photo",
                    quantiles("shashin_downloader_fetch_seconds"),
                    "s",
                    "From its source.",
                ),
                Panel(
                    "Photos by outcome",
                    [rate("shashin_downloader_photos_total", by="outcome")],
                    "ops",
                    "Photos a second; ok, or the name of the error.",
                ),
            ],
        ),
        Row(
            "Disks and cache",
            [
                Panel(
                    "Free space",
                    [
                        Query(
                            "min by (instance, folder) "
                            "(shashin_folder_free_bytes / shashin_folder_size_bytes)",
                            "{{instance}} {{folder}}",
                        )
                    ],
                    "percentunit",
                    "Of the disk of each folder that a process writes to.",
                    limits=((0, "red"), (0.1, "green")),
                    alerts=("ShashinDiskAlmostFull",),
                    full=True,
                ),
                Panel(
                    "Look-ups in the photo cache",
                    [rate("shashin_cache_lookups_total", by="outcome")],
                    "ops",
                    "A hit saves a download.",
                    empty_until="the downloader has a cache (SHASHIN_CACHE_FOLDER)",
                ),
                Panel(
                    "Size of the photo cache",
                    [total("shashin_cache_bytes", by="instance")],
                    "bytes",
                    "Its limit is a setting of the downloader.",
                ),
            ],
        ),
    ],
)

BOARDS = (
    _OVERVIEW,
    _PIPELINE,
    _SEARCH,
    _TIERS,
    empty_until(_BUILDS, "a controller runs, on Kubernetes"),
    _STORES,
)
