"""What a person is told of, beside broken promises (objectives.py)."""

from __future__ import annotations

from monitoring.model import Alert

RECALL = 0.95
"""Below it, a tier's searches miss too many of the nearest listings."""


def counted_within(counter: str, window: str, seconds: int) -> str:
    """Return PromQL: by how much each series of a counter has grown within a window of so many seconds.

    ``increase`` takes a series to begin with what was counted before. One with labels that are not known in
    advance begins with its first event, or with its first thousand, so a series is taken to begin with 0 if
    it was not there before the window although its process was scraped then, or did not run yet.
    """
    watched = f"(up offset {window} or time() - process_start_time_seconds < {seconds})"
    return (
        f"(({counter} unless {counter} offset {window}) and on (instance) {watched} "
        f"or increase({counter}[{window}]))"
    )


SEARCHING = (
    Alert(
        "ShashinGhosts",
        'sum(increase(shashin_canary_failures_total{kind="not_gone"}[15m])) > 0',
        severity="critical",
        summary="sold listings are still found",
        description="The canary sold a listing, and searches went on finding it.",
    ),
    Alert(
        "ShashinCanaryFailing",
        "time() - max(shashin_canary_last_success_timestamp_seconds) > 300",
        severity="critical",
        held="1m",
        # 0 before the first success.
        summary=(
            "no new listing was found and gone again "
            "{{ if gt $value 1e9 }}ever{{ else }}for {{ $value | humanizeDuration }}{{ end }}"
        ),
        description=(
            "The canary publishes a listing, searches for it, and sells it: which step fails is in "
            "shashin_canary_failures_total by kind, and in its log."
        ),
    ),
    Alert(
        "ShashinPartitionNotIndexed",
        "max(shashin_router_unknown_partitions) > 0",
        severity="critical",
        held="1m",
        summary="{{ $value }} partitions are indexed by no ready indexer: searches are incomplete",
        description=(
            "Every indexer has a fixed share of the partitions: does each one run, and is the second "
            "number of SHASHIN_PARTITIONS that of the replicas?"
        ),
    ),
    Alert(
        "ShashinSearchesIncomplete",
        "min(shashin_router_coverage_complete) == 0",
        severity="critical",
        held="1m",
        summary=(
            'searches are incomplete: {{ with query "max(shashin_router_missing_offsets)" }}'
            "{{ . | first | value }}{{ end }} offsets are held by no ready endpoint"
        ),
        description="`shashin status` names the gaps, and the endpoints that are not ready.",
    ),
    Alert(
        "ShashinNoRouter",
        "absent(shashin_router_coverage_complete)",
        severity="critical",
        held="1m",
        summary="no router can be scraped: searches fail, or nobody watches them",
        description="Look whether a router runs, and whether Prometheus reaches its port for metrics.",
    ),
    Alert(
        "ShashinRecallLow",
        "sum by (tier) (rate(shashin_recall_found_hits_total[1h])) "
        f"/ sum by (tier) (rate(shashin_recall_expected_hits_total[1h])) < {RECALL}",
        severity="warning",
        held="15m",
        summary="searches of the {{ $labels.tier }} tier find {{ $value | humanizePercentage }} of the nearest 10",
        description="A sample of live queries is compared with an exact search over the same shards.",
    ),
)

PIPELINE = (
    Alert(
        "ShashinConsumerStuck",
        # The lag as indexers measure it: of a consumer that hangs or is down nothing can be scraped.
        "max by (topic) (shashin_indexer_stage_lag_seconds) > 600 unless ("
        "sum by (topic) (increase(shashin_consumed_records_total[10m])) > 0 or "
        "label_replace(sum(increase(shashin_indexer_records_total[10m]) "
        "+ increase(shashin_indexer_skipped_records_total[10m])) > 0, "
        '"topic", "vectors.embedded", "", ""))',
        severity="critical",
        held="5m",
        summary=(
            "records of {{ $labels.topic }} wait for {{ $value | humanizeDuration }}, and none was "
            "processed for 10 minutes"
        ),
        description="/healthz of the consumer says what it waits for, unless it hangs or is down.",
    ),
    Alert(
        "ShashinConsumptionPaused",
        "max by (topic) (shashin_consumption_paused) == 1",
        severity="critical",
        summary="{{ $labels.topic }} is not processed until someone decides",
        description=(
            "Too many records would be dead-lettered, or records were lost; the log and /healthz of "
            "the consumer name the cause and what to do."
        ),
    ),
    Alert(
        "ShashinBatchHeldBack",
        "sum by (topic) (shashin_undecodable_batches) > 0",
        severity="critical",
        held="1m",
        summary="{{ $value }} partitions of {{ $labels.topic }} wait at a batch that cannot be decoded",
        description="/healthz has the command that skips it; its records are lost then.",
    ),
    Alert(
        "ShashinLagNearRetention",
        # As indexers measure both: a consumer that is down has no lag, and knows no new retention.
        "max by (topic) (shashin_indexer_stage_lag_seconds "
        "> on (instance, topic) 0.5 * (shashin_topic_retention_seconds > 0))",
        severity="critical",
        held="5m",
        summary=(
            "records of {{ $labels.topic }} wait for {{ $value | humanizeDuration }}, more than half of the "
            "time after which they are deleted unread"
        ),
        description="Gain time by a longer retention, that of listings.hidden first; then speed the consumer up.",
    ),
    Alert(
        "ShashinRecordsLost",
        f"sum by (topic) {counted_within('shashin_lost_records_total', '1h', 3600)} > 0",
        severity="critical",
        summary="{{ $value | humanize }} records of {{ $labels.topic }} were deleted before they were read",
        description="They were given up by a decision of the operator; publish what they contained again.",
    ),
    Alert(
        "ShashinDeadLettersRising",
        f"sum by (topic, reason) {counted_within('shashin_dead_letters_total', '15m', 900)} > 10",
        severity="warning",
        summary=(
            "{{ $value | humanize }} dead letters of {{ $labels.topic }} in 15 minutes: "
            "{{ $labels.reason }}"
        ),
        description="`shashin dlq ls` shows them; `shashin dlq replay` sends them again.",
    ),
)

TIERS = (
    Alert(
        "ShashinBadShards",
        "sum by (instance) (shashin_index_server_bad_shards) > 0",
        severity="critical",
        held="5m",
        summary="{{ $value }} shards cannot be served by {{ $labels.instance }}",
        description="/healthz of the index server names them and why; searches say what they lack.",
    ),
    Alert(
        "ShashinSealingStuck",
        "sum(shashin_indexer_set_aside_shards) > 0 or max(shashin_indexer_reading_paused) > 0 "
        "or max(shashin_indexer_seal_lag_seconds) > 600",
        severity="critical",
        held="10m",
        summary="the indexer cannot seal, or waits for index servers",
        description="/healthz of the indexer says for what; new listings are not searchable if it paused.",
    ),
    Alert(
        "ShashinBuildsFailed",
        'sum by (tier) (shashin_controller_builds{phase="Failed"}) > 0',
        severity="warning",
        held="10m",
        summary="{{ $value }} builds of the {{ $labels.tier }} tier have failed",
        description=(
            "`kubectl get indexbuilds -n shashin` lists them, `kubectl describe` says why. Retry each "
            "one, or delete it."
        ),
    ),
    Alert(
        "ShashinServingNotReady",
        "sum by (tier, reason) "
        '(shashin_controller_servings{reason!~"RolledOut|ScaledToZero|Rolling|New"}) > 0',
        severity="warning",
        held="2m",
        summary=(
            "{{ $value }} servings of the {{ $labels.tier }} tier cannot be rolled out: "
            "{{ $labels.reason }}"
        ),
        description=(
            "The previous pods go on serving. `kubectl describe indexservings -n shashin` says why."
        ),
    ),
    Alert(
        "ShashinNoController",
        "(sum(shashin_controller_leading) or vector(0)) != 1 and on() count(shashin_controller_leading)",
        severity="warning",
        held="2m",
        summary="{{ $value }} controllers work, expected one: no new index is rolled out",
        description="What is served stays. See the log of the controller's pods.",
    ),
)

PROCESSES = (
    Alert(
        "ShashinTargetDown",
        "up == 0",
        severity="warning",
        held="2m",
        summary="{{ $labels.job }} at {{ $labels.instance }} cannot be scraped",
        description="It does not run, or is not reached.",
    ),
    Alert(
        "ShashinProblem",
        "max by (job, instance) (shashin_problems) > 0",
        severity="warning",
        held="5m",
        summary="{{ $labels.job }} at {{ $labels.instance }} reports {{ $value }} problems",
        description="Its /healthz names each, with what to do.",
    ),
    Alert(
        "ShashinDiskAlmostFull",
        "shashin_folder_free_bytes / shashin_folder_size_bytes < 0.1",
        severity="warning",
        held="5m",
        summary=(
            "the disk of the {{ $labels.folder }} folder of {{ $labels.instance }} is "
            "{{ $value | humanizePercentage }} free"
        ),
        description="Shards that do not fit are not sealed or served; photos are fetched again.",
    ),
    Alert(
        "ShashinCertificateExpires",
        f"(shashin_certificate_expires_seconds > 0) - time() < {7 * 86_400}",
        severity="warning",
        held="5m",
        summary=(
            "the certificate of {{ $labels.job }} at {{ $labels.instance }} "
            "{{ if gt $value 0.0 }}expires in {{ $value | humanizeDuration }}{{ else }}has expired{{ end }}"
        ),
        description="Clients refuse a server whose certificate has expired: nobody could search.",
    ),
    Alert(
        "ShashinClockSkew",
        "abs(shashin_kubernetes_clock_skew_seconds) > 5",
        severity="warning",
        held="5m",
        # Only what scrapes pods adds their names.
        summary=(
            "the clock of {{ $labels.job }} at {{ $labels.instance }}"
            "{{ with $labels.pod }} ({{ . }}){{ end }} is {{ $value | humanizeDuration }} off the API server's"
        ),
        description=(
            "The API server's clock counts for builds and images meanwhile. Check the time service "
            "(NTP) of the nodes."
        ),
    ),
)
