"""Plans replays: which records to send again for which dead letters, and in what order. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from shashin.kafka.dlq_entries import DlqEntry, DlqEntryId, Origin, StoredDeadLetter
from shashin.kafka.producer import OutRecord
from shashin.kafka.record_traces import extract, inject
from shashin.kafka.records import InRecord

MAX_CHUNK_RECORDS = 200
MAX_CHUNK_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True)
class Replay:
    """One record to send again."""

    dead_letter: StoredDeadLetter
    """The entry whose value is sent."""
    origin: Origin
    """The record's original position; the replay goes to the end of the same partition."""
    resolves: tuple[DlqEntryId, ...]
    """All open entries of that record: the replay retries each of its photos."""


def plan_replays(entries: Iterable[DlqEntry], chosen: Iterable[DlqEntryId]) -> list[Replay]:
    """Return one replay for each record that has a chosen entry.

    Entries that are not replayable are skipped. Replays are in the order of their origins, except that
    those of a listing are in version order: a record whose earlier replay failed is further back
    in the log than newer versions.
    """
    chosen_ids = set(chosen)
    dead_letters_of: dict[tuple[Origin, bytes | None, bytes], list[StoredDeadLetter]] = defaultdict(
        list
    )
    for entry in entries:
        dead_letter = entry.dead_letter
        if entry.open and dead_letter.replayable and dead_letter.origin is not None:
            # Offsets restart if a topic is deleted and recreated, so compare the contents too.
            dead_letters_of[dead_letter.origin, dead_letter.key, dead_letter.value_sha256].append(
                dead_letter
            )
    replays = []
    for (origin, _, _), dead_letters in dead_letters_of.items():
        if any(dead_letter.entry_id in chosen_ids for dead_letter in dead_letters):
            ids = tuple(sorted(dead_letter.entry_id for dead_letter in dead_letters))
            first = min(dead_letters, key=lambda dead_letter: dead_letter.entry_id)
            replays.append(Replay(first, origin, ids))
    replays.sort(key=lambda replay: (replay.origin, replay.dead_letter.entry_id))
    return _versions_in_order(replays)


def _versions_in_order(replays: Sequence[Replay]) -> list[Replay]:
    """Return the replays with those of each listing in version order."""
    places: dict[tuple[str, int, str], list[int]] = defaultdict(list)
    for place, replay in enumerate(replays):
        key = (replay.origin.topic, replay.origin.partition, replay.dead_letter.listing_id)
        places[key].append(place)
    ordered = list(replays)
    for of_listing in places.values():
        by_version = sorted(of_listing, key=lambda place: replays[place].dead_letter.version)
        for place, taken_from in zip(of_listing, by_version, strict=True):
            ordered[place] = replays[taken_from]
    return ordered


def in_chunks(replays: Iterable[Replay]) -> Iterator[list[Replay]]:
    """Yield the replays in order, in chunks of bounded size."""
    chunk: list[Replay] = []
    size = 0
    for replay in replays:
        size += replay.dead_letter.value_bytes
        if chunk and (size > MAX_CHUNK_BYTES or len(chunk) >= MAX_CHUNK_RECORDS):
            yield chunk
            chunk, size = [], replay.dead_letter.value_bytes
        chunk.append(replay)
    if chunk:
        yield chunk


def replayed_record(replay: Replay, stored: InRecord) -> OutRecord:
    """Return the original record, addressed to its original partition; it continues its trace.

    It has no other headers: those of a stage would say that it has been on its way ever since.
    """
    trace = extract(stored.headers)
    return OutRecord(
        replay.origin.topic,
        stored.key,
        stored.value,
        () if trace is None else inject((), trace),
        partition=replay.origin.partition,
    )
