"""Which records to send again for which dead letters, and in which order. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from shashin.kafka.producer import OutRecord
from shashin.kafka.records import InRecord
from shashin.kafka.stored_letters import Entry, LetterId, Origin, StoredLetter

GREATEST_CHUNK_RECORDS = 200
GREATEST_CHUNK_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True)
class Replay:
    """One record that is sent again."""

    letter: StoredLetter
    """The letter whose value is sent."""
    origin: Origin
    """Where the record stood; it goes to the end of the same partition."""
    resolves: tuple[LetterId, ...]
    """All open letters of that record: the replay tries each of its photos again."""


def plan_replays(entries: Iterable[Entry], chosen: Iterable[LetterId]) -> list[Replay]:
    """Return one replay for each record that one of the chosen letters is of.

    Letters without an origin are left out. Records come in the order of the topics' partitions,
    except that the versions of a listing come in their own order: a letter that was replayed before
    in vain has a younger place in the log than its version has.
    """
    wanted = set(chosen)
    letters_of: dict[tuple[Origin, bytes | None, bytes], list[StoredLetter]] = defaultdict(list)
    for entry in entries:
        letter = entry.letter
        if entry.open and letter.origin is not None:
            # Offsets begin anew where a topic is deleted and made again: contents have to agree.
            letters_of[letter.origin, letter.key, letter.value_sha256].append(letter)
    replays = []
    for (origin, _, _), letters in letters_of.items():
        if any(letter.letter_id in wanted for letter in letters):
            ids = tuple(sorted(letter.letter_id for letter in letters))
            first = min(letters, key=lambda letter: letter.letter_id)
            replays.append(Replay(first, origin, ids))
    replays.sort(key=lambda replay: (replay.origin, replay.letter.letter_id))
    return _versions_in_order(replays)


def _versions_in_order(replays: Sequence[Replay]) -> list[Replay]:
    """Return the replays with each listing's own ones in the order of their versions."""
    places: dict[tuple[str, int, str], list[int]] = defaultdict(list)
    for place, replay in enumerate(replays):
        key = (replay.origin.topic, replay.origin.partition, replay.letter.listing_id)
        places[key].append(place)
    ordered = list(replays)
    for of_listing in places.values():
        by_version = sorted(of_listing, key=lambda place: replays[place].letter.version)
        for place, taken_from in zip(of_listing, by_version, strict=True):
            ordered[place] = replays[taken_from]
    return ordered


def in_chunks(replays: Iterable[Replay]) -> Iterator[list[Replay]]:
    """Yield the replays in order, as many at a time as may be held in memory."""
    chunk: list[Replay] = []
    size = 0
    for replay in replays:
        size += replay.letter.value_bytes
        if chunk and (size > GREATEST_CHUNK_BYTES or len(chunk) >= GREATEST_CHUNK_RECORDS):
            yield chunk
            chunk, size = [], replay.letter.value_bytes
        chunk.append(replay)
    if chunk:
        yield chunk


def replayed_record(replay: Replay, stored: InRecord) -> OutRecord:
    """Return the record as it came, for the partition that it came from."""
    return OutRecord(
        replay.origin.topic, stored.key, stored.value, partition=replay.origin.partition
    )
