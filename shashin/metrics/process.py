"""The process itself: which service it is, its health, and how responsive its event loop is."""

from __future__ import annotations

from shashin.metrics.core import OTHER_VALUES as OTHER_VALUES  # noqa: PLC0414 - one of this area
from shashin.metrics.core import counter, gauge, histogram, info
from shashin.metrics.definitions import Label
from shashin.metrics.labels import REASON

SERVICE = info(
    "shashin_service",
    "Which service this process is.",
    [Label("service", "the service", at_most=8)],
)
PROBLEMS = gauge("shashin_problems", "Number of problems on /healthz; 0 when healthy.")
LOOP_LAG_SECONDS = histogram(
    "shashin_event_loop_lag_seconds",
    "How much later than asked for a timer of the event loop fires, sampled twice a second: what every call "
    "and every loop of the process waits for, on top of its own work.",
    unit="seconds",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
)
DEBUG_LOGS = gauge(
    "shashin_debug_logs",
    "1 while lines of the severity debug are logged, which costs time and disk.",
)
OPERATION_RETRIES = counter(
    "shashin_operation_retries",
    "Operations on Kafka, the object store and other systems that failed and are repeated until they "
    "succeed, by error.",
    [REASON],
)

FROM_THE_CLIENT_LIBRARY = {
    "process_cpu_seconds_total": "CPU time of the process, user and system.",
    "process_resident_memory_bytes": "Resident memory.",
    "process_virtual_memory_bytes": "Virtual memory; mapped shards are part of it.",
    "process_start_time_seconds": "Start of the process, in Unix seconds.",
    "process_open_fds": "Open file descriptors.",
    "process_max_fds": "Limit of open file descriptors.",
    "python_gc_collections_total": "Runs of Python's garbage collector, by generation.",
    "python_gc_objects_collected_total": "Objects that these freed, by generation.",
    "python_gc_objects_uncollectable_total": "Objects that these could not free, by generation.",
    "python_info": "The Python that runs it.",
}
"""What the Prometheus client adds to every page, on Linux."""
