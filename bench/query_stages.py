"""Which stage of a query a sampled stack belongs to. Pure.

A profiler's samples are stacks of frames. The innermost frame that a rule knows decides, so what a
library does counts for the stage that called it. Threads that wait in a system call are no work of any
stage: their samples are left out.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

OTHER = "other"
BACKGROUND = "background: polls, probes and followers"

_WAITS = re.compile(
    r"^(epoll_p?wait|p?poll|select|futex|syscall|(__)?pthread_cond_(timed|clock)?wait|sem_\w*wait"
    r"|PyThread_acquire_lock|take_gil|clock_nanosleep|do_futex_wait)\w* "
)
_INNERMOST = 3
"""Frames of a stack that are looked at for a wait; a C library without names adds some."""


@dataclass(frozen=True)
class Stage:
    """A stage, and what frames of it look like: ``function (file:line)`` or ``function (library)``."""

    name: str
    frames: re.Pattern[str]


def _stage(name: str, *frames: str) -> Stage:
    return Stage(name, re.compile("|".join(frames)))


_BACKGROUND = _stage(
    BACKGROUND,
    r"\((services/router/endpoints|services/router/active|services/index_server/)",
    r"\(shashin/(kafka|discovery|runtime/(?!failpoints)|repository|objectstore)/",
    r"\((aiokafka|aiohttp)/",
    r"^(Describe|describe_once) ",
    r"\(shashin/serving/(hidden_follower|hidden_listings|catch_up|snapshot_renewal)",
)
_GRPC = _stage(
    "gRPC",
    r"\((ngh2|grpc)/",
    r"\(shashin/rpc/(http2_protocol|server_connection|client_connection|peer_channel|wire)",
)
_LOOP = _stage(
    "event loop", r"\(asyncio/", r"uvloop", r"\(selectors\.py", r"^(epoll_wait|uv_|uv__)"
)
_METRICS = _stage("metrics", r"\((prometheus_client|shashin/metrics)/")
_CALLS = _stage("gRPC: statuses and times of calls", r"\(shashin/rpc/")
_COVERAGE = _stage(
    "coverage", r"\(shashin/offsets/", r"\(shashin/codecs/ranges", r"^(_?coverage|put_coverage) "
)

ROUTER: Sequence[Stage] = (
    _METRICS,
    _BACKGROUND,
    _stage("decode and validate", r"^query_of ", r"\(services/router/queries", r"^validated "),
    _COVERAGE,
    _stage("decode answers", r"\(shashin/codecs/hit_lists"),
    _stage("merge", r"\(services/router/merge", r"^(found|column_error|_columns|take) "),
    _stage("encode", r"^(answer_message|_put_hit|hex_photo_hash|failure_messages) "),
    _stage(
        "fan-out",
        r"\(shashin/serving/",
        r"^(_ask|_fan_out|_fill_gap) ",
        r"\(services/router/",
    ),
    _GRPC,
    _CALLS,
    _LOOP,
)
"""The stages of the router's process."""

SERVER: Sequence[Stage] = (
    _METRICS,
    _BACKGROUND,
    _stage("decode and validate", r"^(queries_of|filter_of|check_filter) "),
    _COVERAGE,
    _stage(
        "search: native code",
        r"\((lists|search)[^ )]*\.so",
        r"\(usearch/",
        r"\(.*usearch.*\.so",
        r"usearch::|unum::",
        r"\(shashin/shards/kinds/native/",
    ),
    _stage(
        "search: index kinds, around native code",
        r"\(shashin/shards/kinds/",
    ),
    _stage("search: filters and hidden rows", r"\(shashin/shards/(row_filter|masked_rows)"),
    _stage("rows of hits", r"\(shashin/shards/format/", r"^row "),
    _stage(
        "merge of shards",
        r"^_nearest ",
        r"\(shashin/shards/hits",
        r"\(shashin/serving/(served|searched)_shards",
    ),
    _stage("search: each shard", r"\(shashin/shards/"),
    _stage("hits to columns", r"\(shashin/codecs/"),
    _stage("endpoint", r"\(shashin/serving/"),
    _GRPC,
    _CALLS,
    _stage(
        "hand-over to a search thread",
        r"\(concurrent/futures/",
        r"\(threading\.py",
        r"^(uv__?async_send|UVAsync_send|call_soon_threadsafe|_chain_future|wrap_future) ",
        r"^_chain_future\.",
    ),
    _LOOP,
)
"""The stages of the index server's process."""


def stage_of(frames: Sequence[str], stages: Sequence[Stage]) -> str:
    """Return the stage of a stack, given from the outermost frame to the innermost."""
    for frame in reversed(frames):
        for stage in stages:
            if stage.frames.search(frame):
                return stage.name
    return OTHER


def waits(frames: Sequence[str]) -> bool:
    """Return whether a stack, given from the outermost frame to the innermost, only waits."""
    return any(_WAITS.search(frame) for frame in frames[-_INNERMOST:])


def samples_by_stage(raw: Iterable[str], stages: Sequence[Stage]) -> dict[str, int]:
    """Return how many working samples each stage has, most first.

    ``raw`` has lines ``frame;frame;... count``.
    """
    counts: Counter[str] = Counter()
    for line in raw:
        stack, _, count = line.rstrip("\n").rpartition(" ")
        frames = stack.split(";")
        if stack and not waits(frames):
            counts[stage_of(frames, stages)] += int(count)
    return dict(counts.most_common())
