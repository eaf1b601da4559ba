"""What has to have happened in a run, so that its zeros mean something. Pure functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field


@dataclass
class Evidence:
    """What happened."""

    expected_pauses: Collection[str]
    """The services to stop for a while."""
    expected_codecs: Collection[str]
    expected_replicas: Collection[str]
    """The indexers beside the system's own."""
    expected_deletions: Collection[str]
    """The topics of which records are deleted."""

    paused: list[str] = field(default_factory=list)
    manifest_was_unreadable: bool = False
    """While the image builder planned and an indexer started."""
    sealed: Counter[str] = field(default_factory=Counter)
    """Shards by the replica that sealed them, first or after another."""
    sealed_differently: Counter[str] = field(default_factory=Counter)
    """Shards that two indexers sealed differently, by what differs."""
    replicas_ended: Mapping[str, Collection[int]] = field(default_factory=dict)
    """The exit codes of replicas that ended by themselves, not by SIGKILL."""
    deleted: Mapping[str, int] = field(default_factory=dict)
    """Offsets that the broker deleted, by topic."""
    batches: Mapping[str, int] = field(default_factory=dict)
    """Batches of the foreign producer that were acknowledged or committed, by codec."""
    committed: int = 0
    aborted: int = 0
    """Transactions of the foreign producer, with records in them."""
    complete_answers: int = 0
    builds_succeeded: int = 0
    builds_killed: int = 0
    broker_killed: bool = False


def missing(evidence: Evidence) -> list[str]:
    """Return what did not happen."""
    e = evidence
    return [
        *_none_of("was not stopped for a while", e.expected_pauses, Counter(e.paused)),
        *_none_of("sealed no shard", e.expected_replicas, e.sealed),
        *_none_of("topic of which nothing was deleted", e.expected_deletions, e.deleted),
        *_none_of("codec of which no batch was acknowledged", e.expected_codecs, e.batches),
        *(
            what
            for what, happened in (
                ("no manifest was unreadable during a plan and a start", e.manifest_was_unreadable),
                ("no index was sealed with other bytes", e.sealed_differently["index"]),
                ("no transaction was committed", e.committed),
                ("no transaction was aborted", e.aborted),
                ("no answer to a concurrent search was complete", e.complete_answers),
                ("no build succeeded", e.builds_succeeded),
                ("no run of builds was killed", e.builds_killed),
                ("the broker was not killed", e.broker_killed),
            )
            if not happened
        ),
    ]


def wrong(evidence: Evidence) -> list[str]:
    """Return what happened and never should."""
    found = [
        f"{name} ended by itself, with {sorted(codes)}"
        for name, codes in evidence.replicas_ended.items()
        if codes
    ]
    if rows := evidence.sealed_differently["rows"]:
        found.append(f"{rows} shards of one range were sealed with other rows")
    return found


def lines_of(evidence: Evidence) -> list[str]:
    """Return what happened as lines."""
    e = evidence
    return [
        f"{e.builds_succeeded} builds succeeded, {e.builds_killed} runs of builds were killed",
        f"deleted offsets: {_counts(e.deleted)}",
        f"sealed by the other indexers: {_counts(e.sealed)}",
        f"sealed differently than another indexer, by what differs: {_counts(e.sealed_differently)}",
        f"foreign batches: {_counts(e.batches)}",
        f"foreign transactions: {e.committed} committed, {e.aborted} aborted",
    ]


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))


def _none_of(what: str, expected: Collection[str], counts: Mapping[str, int]) -> list[str]:
    return [f"{name}: {what}" for name in sorted(expected) if not counts.get(name)]
