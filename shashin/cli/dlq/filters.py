"""Selecting dead letters, by id or by filter. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

from shashin.errors import DeadLetterNotFound, DeadLetterNotOpen, UserError
from shashin.kafka.dlq_entries import DlqEntry, DlqEntryId, StoredDeadLetter
from shashin.kafka.topics import DEAD_LETTER_SUFFIX, DEAD_LETTER_TOPICS


@dataclass(frozen=True)
class DlqFilter:
    """What a dead letter has to match; None matches anything."""

    topic: str | None = None
    """Without ``.dlq``."""
    reason: str | None = None
    step: str | None = None
    """A step, or a service for all of its steps: ``downloader`` matches ``downloader.fetch``."""
    listing_id: str | None = None
    since_ms: int | None = None
    """Unix milliseconds, inclusive."""
    until_ms: int | None = None
    """Unix milliseconds, exclusive."""

    @property
    def restricts(self) -> bool:
        """Whether any filter is set."""
        return any(getattr(self, field.name) is not None for field in fields(self))

    def matches(self, dead_letter: StoredDeadLetter) -> bool:
        """Whether the entry matches all filters."""
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
        """The ``.dlq`` topics that can contain matching entries."""
        return DEAD_LETTER_TOPICS if self.topic is None else (self.topic + DEAD_LETTER_SUFFIX,)


def filtered(
    entries: Iterable[DlqEntry], dlq_filter: DlqFilter, *, resolved_too: bool
) -> list[DlqEntry]:
    """Return the matching entries, in order."""
    return [
        entry
        for entry in entries
        if (entry.open or resolved_too) and dlq_filter.matches(entry.dead_letter)
    ]


def newest(entries: Sequence[DlqEntry], limit: int | None) -> list[DlqEntry]:
    """Return the last ``limit`` of entries sorted oldest first; all of them for None."""
    return list(entries) if limit is None else list(entries[max(0, len(entries) - limit) :])


def with_ids(entries: Iterable[DlqEntry], ids: Sequence[DlqEntryId]) -> list[DlqEntry]:
    """Return the entries with these ids, each once, in the order of the ids.

    Raises:
        DeadLetterNotFound: if any of them does not exist.
    """
    known = {entry.dead_letter.entry_id: entry for entry in entries}
    missing = [str(entry_id) for entry_id in dict.fromkeys(ids) if entry_id not in known]
    if missing:
        raise DeadLetterNotFound(
            f"no such dead letter: {', '.join(missing)}; `shashin dlq ls --all` lists all of them"
        )
    return [known[entry_id] for entry_id in dict.fromkeys(ids)]


def require_open(entries: Iterable[DlqEntry]) -> None:
    """Check that all of these can be replayed or dropped.

    Raises:
        DeadLetterNotOpen: naming every entry that is not open.
    """
    done = [
        f"{e.dead_letter.entry_id} was already {e.resolution.how}" for e in entries if e.resolution
    ]
    if done:
        raise DeadLetterNotOpen(
            f"{', '.join(done)}: nothing changed; omit entries that are not open"
        )


def parse_topic(text: str) -> str:
    """Return a topic without the suffix ``.dlq``, which is optional in the input.

    Raises:
        UserError: if it has no dead-letter topic.
    """
    topic = text.removesuffix(DEAD_LETTER_SUFFIX)
    if topic + DEAD_LETTER_SUFFIX not in DEAD_LETTER_TOPICS:
        known = ", ".join(name.removesuffix(DEAD_LETTER_SUFFIX) for name in DEAD_LETTER_TOPICS)
        raise UserError(f"topic {text!r} has no dead-letter topic: expected one of {known}")
    return topic


@dataclass(frozen=True)
class Selection:
    """The entries that a command applies to: given by id, or matching a filter."""

    ids: tuple[DlqEntryId, ...] = ()
    dlq_filter: DlqFilter = DlqFilter()
    limit: int | None = None
    """Only the newest ``limit`` matching entries."""

    @property
    def topics(self) -> tuple[str, ...]:
        """The ``.dlq`` topics that have to be read."""
        if not self.ids:
            return self.dlq_filter.topics
        return tuple(sorted({entry_id.topic for entry_id in self.ids}))

    def open_entries(self, entries: Sequence[DlqEntry]) -> list[DlqEntry]:
        """Return the selected open entries.

        Raises:
            DeadLetterNotFound: if an id does not exist.
            DeadLetterNotOpen: if an entry given by id is not open.
        """
        if not self.ids:
            matching = filtered(entries, self.dlq_filter, resolved_too=False)
            return newest(matching, self.limit)
        named = with_ids(entries, self.ids)
        require_open(named)
        return named


def check_selection(selection: Selection, verb: str, *, all_open: bool | None) -> None:
    """Check that entries are selected in exactly one way.

    ``all_open`` is None for a command without that option.

    Raises:
        UserError: if nothing is selected, or in two ways.
    """
    narrowed = selection.dlq_filter.restricts or selection.limit is not None
    if selection.ids and (narrowed or all_open):
        raise UserError("give ids or filters, not both")
    if all_open and selection.dlq_filter.restricts:
        raise UserError("--all-open selects every open dead letter: omit either it or the filters")
    if not (selection.ids or selection.dlq_filter.restricts or all_open):
        others = "" if all_open is None else ", or --all-open"
        raise UserError(
            f"which dead letters to {verb}? Give ids, as shown by `shashin dlq ls`, or a filter "
            f"such as --reason PhotoMissing{others}"
        )


@dataclass(frozen=True)
class Count:
    """Number of entries of one topic with one reason."""

    topic: str
    """Without ``.dlq``."""
    reason: str
    open: int
    resolved: int


def counts(entries: Iterable[DlqEntry]) -> list[Count]:
    """Return the counts by topic in pipeline order, then by reason, most frequent first."""
    found: dict[tuple[str, str], list[int]] = {}
    for entry in entries:
        pair = found.setdefault((entry.dead_letter.topic, entry.dead_letter.reason), [0, 0])
        pair[0 if entry.open else 1] += 1
    order = {name.removesuffix(DEAD_LETTER_SUFFIX): i for i, name in enumerate(DEAD_LETTER_TOPICS)}
    return sorted(
        (Count(topic, reason, *pair) for (topic, reason), pair in found.items()),
        key=lambda c: (order.get(c.topic, len(order)), -(c.open + c.resolved), c.reason),
    )
