"""Which dead letters a person means: by id, or by what they say. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime

from shashin.errors import DeadLetterNotFound, DeadLetterNotOpen, UserError
from shashin.kafka.dlq_entries import DlqEntry, DlqEntryId, StoredDeadLetter
from shashin.kafka.topics import DEAD_LETTER_SUFFIX, DEAD_LETTER_TOPICS

_AGE = re.compile(r"(?P<count>\d{1,9}(\.\d{1,9})?)(?P<unit>[smhd])", re.ASCII)
_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


@dataclass(frozen=True)
class DlqFilter:
    """What a dead letter has to say; None stands for anything."""

    topic: str | None = None
    """Without ``.dlq``."""
    reason: str | None = None
    step: str | None = None
    """A step, or a service for all of its steps: ``downloader`` takes ``downloader.fetch``."""
    listing_id: str | None = None
    since_ms: int | None = None
    """Unix milliseconds; entries of this moment are taken."""
    until_ms: int | None = None
    """Unix milliseconds; entries of this moment are not taken."""

    @property
    def restricts(self) -> bool:
        """Whether any entry could be left out."""
        return any(getattr(self, field.name) is not None for field in fields(self))

    def matches(self, dead_letter: StoredDeadLetter) -> bool:
        """Whether the entry says all of it."""
        return (
            self.topic in {None, dead_letter.topic}
            and self.reason in {None, dead_letter.reason}
            and (
                self.step in {None, dead_letter.step}
                or dead_letter.step.startswith(f"{self.step}.")
            )
            and self.listing_id in {None, dead_letter.listing_id}
            and (self.since_ms is None or dead_letter.at_ms >= self.since_ms)
            and (self.until_ms is None or dead_letter.at_ms < self.until_ms)
        )

    @property
    def topics(self) -> tuple[str, ...]:
        """The ``.dlq`` topics that may hold such entries."""
        return DEAD_LETTER_TOPICS if self.topic is None else (self.topic + DEAD_LETTER_SUFFIX,)


def filtered(
    entries: Iterable[DlqEntry], dlq_filter: DlqFilter, *, resolved_too: bool
) -> list[DlqEntry]:
    """Return the entries that are meant, in their order."""
    return [
        entry
        for entry in entries
        if (entry.open or resolved_too) and dlq_filter.matches(entry.dead_letter)
    ]


def newest(entries: Sequence[DlqEntry], limit: int | None) -> list[DlqEntry]:
    """Return the last ``limit`` of entries that come oldest first; all for None."""
    return list(entries) if limit is None else list(entries[max(0, len(entries) - limit) :])


def with_ids(entries: Iterable[DlqEntry], ids: Sequence[DlqEntryId]) -> list[DlqEntry]:
    """Return the entries with these ids, each once, in the order of the ids.

    Raises:
        DeadLetterNotFound: when one does not exist; then none is returned.
    """
    known = {entry.dead_letter.entry_id: entry for entry in entries}
    missing = [str(entry_id) for entry_id in dict.fromkeys(ids) if entry_id not in known]
    if missing:
        raise DeadLetterNotFound(
            f"there is no dead letter {', '.join(missing)}: `shashin dlq ls --all` shows which "
            "there are"
        )
    return [known[entry_id] for entry_id in dict.fromkeys(ids)]


def require_open(entries: Iterable[DlqEntry]) -> None:
    """Make sure that all of these can be replayed or dropped.

    Raises:
        DeadLetterNotOpen: naming the first one that is not open, and all others.
    """
    done = [
        f"{e.dead_letter.entry_id} was {e.resolution.how} before" for e in entries if e.resolution
    ]
    if done:
        raise DeadLetterNotOpen(f"{', '.join(done)}: nothing is done; leave what is not open out")


def parse_topic(text: str) -> str:
    """Return a topic without ``.dlq``; it may be written with it.

    Raises:
        UserError: when it has no dead letters.
    """
    topic = text.removesuffix(DEAD_LETTER_SUFFIX)
    if topic + DEAD_LETTER_SUFFIX not in DEAD_LETTER_TOPICS:
        known = ", ".join(name.removesuffix(DEAD_LETTER_SUFFIX) for name in DEAD_LETTER_TOPICS)
        raise UserError(f"topic {text!r} has no dead letters: expected one of {known}")
    return topic


def parse_moment(text: str, *, now_ms: int) -> int:
    """Return Unix milliseconds of a moment: so long ago (``2h``, ``30m``), or an ISO time.

    An ISO time without a zone is this machine's.

    Raises:
        UserError: when it is neither.
    """
    age = _AGE.fullmatch(text)
    if age is not None:
        return now_ms - math.floor(float(age["count"]) * _UNIT_SECONDS[age["unit"]] * 1000)
    try:
        return math.floor(datetime.fromisoformat(text).timestamp() * 1000)
    except (ValueError, OverflowError, OSError):
        raise UserError(
            f"{text!r} is no time: expected so long ago, such as 30m, 2h or 7d, or an ISO time, "
            "such as 2026-07-30T12:00"
        ) from None


@dataclass(frozen=True)
class Wanted:
    """The entries that a command is for: those with these ids, or those that match."""

    ids: tuple[DlqEntryId, ...] = ()
    dlq_filter: DlqFilter = DlqFilter()
    limit: int | None = None
    """At most so many of those that match: the newest."""

    @property
    def topics(self) -> tuple[str, ...]:
        """The ``.dlq`` topics that have to be read."""
        if not self.ids:
            return self.dlq_filter.topics
        return tuple(sorted({entry_id.topic for entry_id in self.ids}))

    def open_ones(self, entries: Sequence[DlqEntry]) -> list[DlqEntry]:
        """Return the open entries that are meant.

        Raises:
            DeadLetterNotFound: when an id does not exist.
            DeadLetterNotOpen: when an id is not open.
        """
        if not self.ids:
            matching = filtered(entries, self.dlq_filter, resolved_too=False)
            return newest(matching, self.limit)
        named = with_ids(entries, self.ids)
        require_open(named)
        return named


def check_wanted(wanted: Wanted, verb: str, *, all_open: bool | None) -> None:
    """Make sure that it was said, and only once, which entries are meant.

    ``all_open`` is None for a command that never takes all of them.

    Raises:
        UserError: when it was not, or in two ways.
    """
    narrowed = wanted.dlq_filter.restricts or wanted.limit is not None
    if wanted.ids and (narrowed or all_open):
        raise UserError("give ids or filters, not both: an id says all about which entry is meant")
    if all_open and wanted.dlq_filter.restricts:
        raise UserError("--all-open means every open letter: leave it or the filters out")
    if not (wanted.ids or wanted.dlq_filter.restricts or all_open):
        others = "" if all_open is None else ", or --all-open"
        raise UserError(
            f"which dead letters to {verb}? Give ids, as `shashin dlq ls` names them, or a filter "
            f"such as --reason PhotoMissing{others}"
        )


@dataclass(frozen=True)
class Count:
    """How many entries of a topic have one reason."""

    topic: str
    """Without ``.dlq``."""
    reason: str
    open: int
    resolved: int


def counts(entries: Iterable[DlqEntry]) -> list[Count]:
    """Return the counts by topic, in the order of the pipeline, and reason, the most first."""
    found: dict[tuple[str, str], list[int]] = {}
    for entry in entries:
        pair = found.setdefault((entry.dead_letter.topic, entry.dead_letter.reason), [0, 0])
        pair[0 if entry.open else 1] += 1
    order = {name.removesuffix(DEAD_LETTER_SUFFIX): i for i, name in enumerate(DEAD_LETTER_TOPICS)}
    return sorted(
        (Count(topic, reason, *pair) for (topic, reason), pair in found.items()),
        key=lambda c: (order.get(c.topic, len(order)), -(c.open + c.resolved), c.reason),
    )
