"""A dashboard for each service: its process, its calls, and its own work."""

from __future__ import annotations

from collections.abc import Sequence

from monitoring.panels import Board, Panel, Query, Row, empty_until
from monitoring.queries import RATE, calls_to_endpoints, mean, quantiles, rate, total


def _of(service: str) -> str:
    """Return the selector of the chosen processes of a service."""
    return f'shashin_service_info{{service="{service}",instance=~"$instance"}}'


def _process(service: str) -> list[Row]:
    of = f"and on (instance) {_of(service)}"
    return [
        Row(
            "Process",
            [
                Panel(
                    "Problems",
                    [Query(f"shashin_problems {of}", "{{instance}}")],
                    "short",
                    "Of /healthz, which names each.",
                    limits=((1, "red"),),
                    alerts=("ShashinProblem", "ShashinTargetDown"),
                ),
                Panel(
                    "CPU",
                    [Query(f"rate(process_cpu_seconds_total{RATE}) {of}", "{{instance}}")],
                    "percentunit",
                    "Of one core.",
                ),
                Panel(
                    "Memory",
                    [Query(f"process_resident_memory_bytes {of}", "{{instance}}")],
                    "bytes",
                    "Resident, with mapped pages that are in use.",
                ),
                Panel(
                    "Lag of the event loop, p99",
                    [
                        Query(
                            "histogram_quantile(0.99, sum by (le, instance) "
                            f"(rate(shashin_event_loop_lag_seconds_bucket{RATE}) {of}))",
                            "{{instance}}",
                        )
                    ],
                    "s",
                    "How late timers fire: what every call waits for, on top of its own work.",
                    limits=((0.1, "red"),),
                ),
            ],
        )
    ]


def _calls(service: str) -> Row:
    of = f"and on (instance) {_of(service)}"
    return Row(
        "Calls by gRPC",
        [
            Panel(
                "Answers",
                [
                    Query(
                        f"sum by (method, status) (rate(shashin_rpc_answers_total{RATE}) {of})",
                        "{{method}} {{status}}",
                    )
                ],
                "reqps",
                "Answers a second by status.",
            ),
            Panel(
                "Duration, p99",
                [
                    Query(
                        "histogram_quantile(0.99, sum by (le, method) "
                        f"(rate(shashin_rpc_seconds_bucket{RATE}) {of}))",
                        "{{method}}",
                    )
                ],
                "s",
                "From a request to its response.",
            ),
        ],
    )


def _consumer(topic: str) -> Row:
    of = f'{{topic="{topic}"}}'
    return Row(
        f"Consumer of {topic}",
        [
            Panel(
                "Records",
                [rate("shashin_consumed_records_total", by="topic", where=of)],
                "ops",
                "Records a second.",
                alerts=("ShashinConsumerStuck",),
            ),
            Panel(
                "Lag in seconds",
                [total("shashin_consumer_lag_seconds", by="partition", where=of, how="max")],
                "s",
                "By partition.",
                alerts=("ShashinLagNearRetention",),
            ),
            Panel(
                "Dead letters",
                [rate("shashin_dead_letters_total", by="reason", where=of)],
                "ops",
                "By error.",
                alerts=("ShashinDeadLettersRising",),
                empty_until="a record is dead-lettered",
            ),
        ],
    )


def _board(service: str, means: str, rows: Sequence[Row]) -> Board:
    return Board(
        f"shashin-{service}",
        f"Shashin: {service}",
        means,
        [*rows, *_process(service)],
        instances=f'shashin_service_info{{service="{service}"}}',
    )


BOARDS = (
    _board(
        "downloader",
        "Reads listing events, fetches their photos and makes thumbnails.",
        [
            _consumer("listings.events"),
            Row(
                "Photos",
                [
                    Panel(
                        "Outcomes",
                        [rate("shashin_downloader_photos_total", by="outcome")],
                        "ops",
                        "Photos a second.",
                    ),
                    Panel(
                        "Time to read one",
                        quantiles("shashin_downloader_fetch_seconds"),
                        "s",
                        "From its source or the cache.",
                    ),
                    Panel(
                        "Time to make a thumbnail",
                        quantiles("shashin_downloader_thumbnail_seconds"),
                        "s",
                        "Decoding is most of it.",
                    ),
                    Panel(
                        "Waiting",
                        [
                            Query("sum(shashin_downloader_waiting_originals)", "for memory"),
                            Query("sum(shashin_downloader_waiting_decodes)", "to be decoded"),
                        ],
                        "short",
                        "Photos that wait.",
                    ),
                ],
            ),
            Row(
                "Thumbnails for web pages",
                [
                    Panel(
                        "Written",
                        [rate("shashin_thumbnails_written_total", by="outcome")],
                        "ops",
                        "Thumbnails a second that are in the store, new or before.",
                    ),
                    Panel(
                        "Dropped",
                        [rate("shashin_thumbnails_dropped_total", by="reason")],
                        "ops",
                        "Not written, by why. No listing is affected.",
                    ),
                    Panel(
                        "Failed",
                        [rate("shashin_thumbnails_failed_total", by="reason")],
                        "ops",
                        "Writes that the store did not take, after all attempts, by error.",
                        empty_until="the store does not take a thumbnail",
                    ),
                    Panel(
                        "Time to write one",
                        quantiles("shashin_thumbnails_write_seconds"),
                        "s",
                        "Until the store has it.",
                    ),
                    Panel(
                        "Waiting",
                        [Query("sum(shashin_thumbnails_waiting_bytes)", "to be written")],
                        "bytes",
                        "Bounded by SHASHIN_THUMBNAIL_QUEUE_BYTES of each downloader.",
                    ),
                ],
            ),
        ],
    ),
    _board(
        "embedder",
        "Turns thumbnails and query photos into vectors.",
        [
            _consumer("images.downloaded"),
            Row(
                "Model",
                [
                    Panel(
                        "Photos",
                        [rate("shashin_embedder_photos_total", by="kind")],
                        "ops",
                        "Photos a second, of listings and of queries.",
                    ),
                    Panel(
                        "Duration of a call",
                        quantiles("shashin_embedder_model_seconds", by="kind"),
                        "s",
                        "Inference of a batch.",
                    ),
                    Panel(
                        "Photos of a call",
                        [mean("shashin_embedder_batch_photos", by="kind")],
                        "short",
                        "Mean. More share a call under load.",
                    ),
                    Panel(
                        "Refused query photos",
                        [rate("shashin_embedder_refused_query_photos_total", legend="refused")],
                        "ops",
                        "Too many waited.",
                    ),
                ],
            ),
            _calls("embedder"),
        ],
    ),
    _board(
        "indexer",
        "The live tier: adds vectors to open shards, searches them, and seals them.",
        [
            Row(
                "Indexing",
                [
                    Panel(
                        "Rows",
                        [rate("shashin_indexer_rows_total", legend="rows")],
                        "ops",
                        "Rows a second that are added to open shards.",
                    ),
                    Panel(
                        "From the log to searchable",
                        quantiles("shashin_indexer_searchable_seconds"),
                        "s",
                        "From the append of a vector.",
                    ),
                    Panel(
                        "Lag of each stage",
                        [total("shashin_indexer_stage_lag_seconds", by="stage", how="max")],
                        "s",
                        "As the indexer sees it from outside, also of stages that do not run.",
                    ),
                ],
            ),
            Row(
                "Sealing",
                [
                    Panel(
                        "Shards sealed in an hour",
                        [
                            Query(
                                "sum by (cut) (increase(shashin_indexer_sealed_shards_total[1h]))",
                                "{{cut}}",
                            )
                        ],
                        "short",
                        "By why they were cut.",
                        alerts=("ShashinSealingStuck",),
                    ),
                    Panel(
                        "Time to seal",
                        quantiles("shashin_indexer_seal_seconds"),
                        "s",
                        "From the cut to the commit.",
                    ),
                    Panel(
                        "Held and set aside",
                        [
                            Query("sum(shashin_indexer_held_shards)", "held"),
                            Query("sum(shashin_indexer_set_aside_shards)", "set aside"),
                            Query("max(shashin_indexer_reading_paused)", "reading paused"),
                        ],
                        "short",
                        "Shards that wait for index servers, or cannot be sealed.",
                        alerts=("ShashinSealingStuck",),
                    ),
                ],
            ),
            _calls("indexer"),
        ],
    ),
    _board(
        "index-server",
        "Serves the sealed shards of a tier.",
        [
            Row(
                "Shards",
                [
                    Panel(
                        "Shards",
                        [
                            Query(
                                f"shashin_index_shards and on (instance) {_of('index-server')}",
                                "{{tier}} {{instance}}",
                            )
                        ],
                        "short",
                        "Served by each process.",
                    ),
                    Panel(
                        "Bad shards and pointers",
                        [
                            Query(
                                "sum by (instance) (shashin_index_server_bad_shards)",
                                "{{instance}} shards",
                            ),
                            Query(
                                "sum by (instance) (shashin_index_server_bad_pointer)",
                                "{{instance}} pointer",
                            ),
                        ],
                        "short",
                        "What cannot be read.",
                        limits=((1, "red"),),
                        alerts=("ShashinBadShards",),
                    ),
                    Panel(
                        "Time to swap",
                        quantiles("shashin_index_server_swap_seconds"),
                        "s",
                        "Until other shards are served.",
                    ),
                    Panel(
                        "Search over all shards",
                        quantiles("shashin_index_search_seconds", by="tier"),
                        "s",
                        "By tier.",
                    ),
                ],
            ),
            _calls("index-server"),
        ],
    ),
    _board(
        "image-builder",
        "Plans tiers and rolls them out: as pointers, or as images on Kubernetes.",
        [
            Row(
                "Plans",
                [
                    Panel(
                        "Rollouts in an hour",
                        [
                            Query(
                                "sum by (tier) (increase(shashin_image_builder_rollouts_total[1h]))",
                                "{{tier}}",
                            )
                        ],
                        "short",
                        "Plans that were rolled out.",
                    ),
                    Panel(
                        "Planned shards",
                        [total("shashin_image_builder_planned_shards", by="tier")],
                        "short",
                        "Of the current plan.",
                    ),
                    Panel(
                        "Left out",
                        [total("shashin_image_builder_refused_shards", by="tier, reason")],
                        "short",
                        "Unreadable, or redundant.",
                    ),
                    Panel(
                        "Time of a round",
                        quantiles("shashin_image_builder_round_seconds"),
                        "s",
                        "Looking, planning, writing.",
                    ),
                ],
            ),
        ],
    ),
    _board(
        "router",
        "Answers searches.",
        [
            _calls("router"),
            Row(
                "Searches",
                [
                    Panel(
                        "By stage, p99",
                        quantiles("shashin_router_search_seconds", by="stage", shares=(0.99,)),
                        "s",
                        "Where a search's time goes.",
                    ),
                    Panel(
                        "Endpoints",
                        [total("shashin_router_endpoints", by="tier, state", how="max")],
                        "short",
                        "As discovery has them.",
                    ),
                    Panel(
                        "Calls to endpoints, p99",
                        calls_to_endpoints(),
                        "s",
                        "By tier.",
                    ),
                ],
            ),
            Row(
                "Load",
                [
                    Panel(
                        "Shed calls",
                        [rate("shashin_router_shed_calls_total", by="exhausted")],
                        "ops",
                        "arrivals: the router is busy; in_progress: endpoints are.",
                    ),
                    Panel(
                        "Work in progress",
                        [
                            total("shashin_router_work_in_progress", by="instance", how="max"),
                            total("shashin_router_work_limit", by="instance", how="max"),
                        ],
                        "short",
                        "And its limit, which shrinks while answers are late.",
                    ),
                    Panel(
                        "Wait of calls, p99",
                        quantiles("shashin_router_wait_seconds", shares=(0.99,)),
                        "s",
                        "Until the router looks at them.",
                    ),
                ],
            ),
        ],
    ),
    empty_until(
        _board(
            "controller",
            "Keeps Kubernetes as IndexServings and IndexBuilds say; empty elsewhere.",
            [
                Row(
                    "Reconciling",
                    [
                        Panel(
                            "Looks at objects",
                            [rate("shashin_controller_reconciles_total", by="kind, result")],
                            "ops",
                            "By result.",
                        ),
                        Panel(
                            "Duration, p99",
                            quantiles(
                                "shashin_controller_reconcile_seconds", by="kind", shares=(0.99,)
                            ),
                            "s",
                            "Of a look.",
                        ),
                        Panel(
                            "Leading",
                            [Query("shashin_controller_leading", "{{instance}}")],
                            "short",
                            "1 where it works.",
                            alerts=("ShashinNoController",),
                        ),
                    ],
                ),
            ],
        ),
        "a controller runs, on Kubernetes",
    ),
    _board(
        "canary",
        "Publishes listings of its own, finds them, sells them, and watches them go.",
        [
            Row(
                "Cycles",
                [
                    Panel(
                        "Published to found",
                        quantiles("shashin_canary_found_seconds"),
                        "s",
                        "From sending the event.",
                        alerts=("ShashinCanaryFailing",),
                    ),
                    Panel(
                        "Sold to gone",
                        quantiles("shashin_canary_gone_seconds"),
                        "s",
                        "From sending the sale.",
                        alerts=("ShashinGhosts",),
                    ),
                    Panel(
                        "Failures",
                        [rate("shashin_canary_failures_total", by="kind")],
                        "ops",
                        "By what failed.",
                        alerts=("ShashinCanaryFailing",),
                    ),
                ],
            ),
        ],
    ),
)
