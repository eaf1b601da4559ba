"""What happens in the year: which listings are listed, updated and sold, and when. Pure.

Eleven months of few busy days, a month of 30 days and a day of 24 hours, so that every tier has all of
its windows: 31 December 2027 to the end of 2028. That includes New Year, a leap day, the ends of all
months, and the nights in which Europe's clocks are changed.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta

START = datetime(2027, 12, 31, 20, tzinfo=UTC)
END = datetime(2029, 1, 1, tzinfo=UTC)

_SPECIAL = {date(2028, 2, 29), date(2028, 3, 26), date(2028, 10, 29)}
"""The leap day, and the days on which clocks are changed."""


@dataclass(frozen=True)
class Change:
    """Something that happens to a listing."""

    at: datetime
    kind: str
    """list, update or hide."""
    listing_id: str
    version: int
    photos: int = 0


@dataclass(frozen=True)
class Size:
    """How much happens."""

    rows_of_a_month: int = 3_000
    rows_of_a_day: int = 100
    rows_of_an_hour: int = 10
    busy_days: int = 8
    """Of each of the eleven months."""


QUICK = Size(rows_of_a_month=300, rows_of_a_day=30, rows_of_an_hour=6, busy_days=3)


def hours_with_events(size: Size) -> Iterator[tuple[datetime, int]]:
    """Return the full hours in which something happens, with the number of rows."""
    yield START, size.rows_of_an_hour
    for month in range(1, 12):
        days = _busy_days(month, size.busy_days)
        for day in days:
            # Also the last hour of a day.
            hours = (0, 23) if day.day == 1 or day in _SPECIAL else (9, 22)
            for hour in hours:
                at = datetime(day.year, day.month, day.day, hour, tzinfo=UTC)
                yield at, max(1, size.rows_of_a_month // (len(days) * len(hours)))
    for day_number in range(1, 31):
        at = datetime(2028, 12, day_number, 12, tzinfo=UTC)
        yield at, size.rows_of_a_day
    for hour in range(24):
        yield datetime(2028, 12, 31, hour, tzinfo=UTC), size.rows_of_an_hour


def _busy_days(month: int, count: int) -> list[date]:
    first = date(2028, month, 1)
    last = (first + timedelta(days=32)).replace(day=1) - timedelta(days=1)
    days = {first, last, *(day for day in _SPECIAL if day.month == month)}
    step = max(1, last.day // count)
    for number in range(step, last.day, step):
        if len(days) < count:
            days.add(first + timedelta(days=number))
    return sorted(days)


def changes(size: Size, seed: int) -> Iterator[tuple[datetime, list[Change]]]:
    """Return what happens in each hour with events, in order."""
    rng = random.Random(seed)
    alive: list[str] = []
    versions: dict[str, int] = {}
    number = 0
    for hour, rows in hours_with_events(size):
        found: list[Change] = []
        left = rows
        while left > 0:
            photos = min(left, rng.randint(1, 3))
            if alive and rng.random() < 0.1:
                listing = rng.choice(alive)
                versions[listing] += 1
                found.append(Change(hour, "update", listing, versions[listing], photos))
            else:
                listing = f"m{number:08d}"
                number += 1
                versions[listing] = 1
                alive.append(listing)
                found.append(Change(hour, "list", listing, 1, photos))
            left -= photos
            if len(alive) > 10 and rng.random() < 0.15:
                # Any age: most are in old tiers.
                sold = alive.pop(rng.randrange(len(alive)))
                found.append(Change(hour, "hide", sold, versions[sold] + 1))
        seconds = sorted(rng.uniform(0, 3_500) for _ in found)
        yield (
            hour,
            [
                replace(change, at=hour + timedelta(seconds=after))
                for change, after in zip(found, seconds, strict=True)
            ],
        )
