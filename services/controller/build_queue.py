"""Which builds may begin, and which are old enough to be deleted. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime

from shashin.kube.resource import Key

_BEGINNING_OF_TIME = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class QueuedBuild:
    """A build that runs, or waits."""

    key: Key
    created: str
    """As the API has it, so that it sorts by time."""
    parents: frozenset[str] = frozenset()
    """Ids of the shards that it merges."""


@dataclass(frozen=True)
class EndedBuild:
    """A build that has ended."""

    key: Key
    tier: str
    phase: str
    completed: datetime | None


def why_waiting(
    key: Key, waiting: Collection[QueuedBuild], running: Collection[QueuedBuild], *, limit: int
) -> str:
    """Return why a waiting build may not begin now; empty if it may.

    Oldest first; one that merges shards which another one is merging lets those behind it pass.
    """
    left = limit - len(running)
    merging = {parent: build.key[1] for build in running for parent in build.parents}
    for build in sorted(waiting, key=lambda one: (one.created, one.key)):
        other = next((merging[parent] for parent in build.parents if parent in merging), "")
        why = ""
        if other:
            why = f"{other} merges some of its shards"
        elif left <= 0:
            why = f"{limit} other builds run, or come first"
        if build.key == key:
            return why
        if not why:
            left -= 1
            merging |= dict.fromkeys(build.parents, build.key[1])
    raise AssertionError(f"{key} is none of those that wait")


def expired(ended: Collection[EndedBuild], *, history: int) -> list[Key]:
    """Return the builds to delete: of each tier and phase, all but the newest ``history``."""
    groups: defaultdict[tuple[str, str], list[EndedBuild]] = defaultdict(list)
    for build in ended:
        groups[build.tier, build.phase].append(build)
    return sorted(
        build.key
        for group in groups.values()
        for build in sorted(
            group, key=lambda one: (one.completed or _BEGINNING_OF_TIME, one.key), reverse=True
        )[history:]
    )
