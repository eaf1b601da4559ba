"""Finds the few among many sealed shards that may have rows of a listing.

To ask each of a thousand shards takes a millisecond per record of ``listings.hidden``. So the hashes of
all their listings are in a few sorted runs, with the shard of each. Runs of similar size are merged, as
in a log-structured merge tree: a shard that joins costs about its own listings. A run has the first 32
bits of each hash: a shard that is found for a listing that it does not have finds no rows of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]


class Indexed(Protocol):
    """What can be found by its listings."""

    @property
    def listing_hashes(self) -> Hashes:
        """The hash of each row's listing (``listing_hash``), sorted."""
        ...


_LARGE_ROWS = 50_000
"""Number of rows from which on a shard is looked up by itself, in its own file: there are never so many
large ones that asking each costs more than sorting their listings at a start."""

T = TypeVar("T", bound=Indexed)


@dataclass(frozen=True)
class _Run(Generic[T]):
    prefixes: npt.NDArray[np.uint32]
    """The first bits of the hashes, sorted."""
    numbers: npt.NDArray[np.unsignedinteger]
    """For each of them, which member has the listing."""
    members: tuple[T, ...]

    def __len__(self) -> int:
        return len(self.prefixes)


class ListingIndex(Generic[T]):
    """Which of its members may have rows of a listing; it does not change."""

    def __init__(
        self,
        runs: Sequence[_Run[T]] = (),
        members: Sequence[T] = (),
        *,
        large_rows: int = _LARGE_ROWS,
    ) -> None:
        self._runs = tuple(runs)
        self.members = tuple(members)
        self._large_rows = large_rows
        self._large = [m for m in members if len(m.listing_hashes) >= large_rows]
        self._identities = frozenset(map(id, members))

    def over(self, members: Sequence[T]) -> ListingIndex[T]:
        """Return the index of these members, made from this one where they are the same.

        It may take seconds for thousands of small members that are all new.
        """
        kept = frozenset(map(id, members))
        # A run is made again once most of what it has is no longer wanted.
        runs = [run for run in self._runs if _share(run, kept) > 0.5]
        indexed = {id(member) for run in runs for member in run.members}
        added = [
            member
            for member in members
            if id(member) not in indexed and 0 < len(member.listing_hashes) < self._large_rows
        ]
        if added:
            runs.append(_run_of(added))
        runs.sort(key=len, reverse=True)
        while len(runs) > 1 and 2 * len(runs[-1]) > len(runs[-2]):
            runs[-2:] = [_merged(runs[-2], runs[-1], kept)]
            runs.sort(key=len, reverse=True)
        return ListingIndex(runs, members, large_rows=self._large_rows)

    def matches(self, hashes: Hashes) -> Iterator[tuple[int, T]]:
        """Yield the members that may have a listing, with the listing's position in ``hashes``."""
        wanted = _prefixes(hashes)
        for run in self._runs:
            at = np.searchsorted(run.prefixes, wanted)
            inside = np.minimum(at, len(run) - 1)
            for position in np.flatnonzero(run.prefixes[inside] == wanted).tolist():
                entry = int(at[position])
                while entry < len(run) and run.prefixes[entry] == wanted[position]:
                    member = run.members[run.numbers[entry]]
                    if id(member) in self._identities:
                        yield position, member
                    entry += 1
        if not self._large:
            return
        # In ascending order, each look-up begins where the one before ended, in memory as well.
        order = np.argsort(hashes)
        ascending = hashes[order]
        for member in self._large:
            own = member.listing_hashes
            found = own.take(own.searchsorted(ascending), mode="clip") == ascending
            for position in order[found].tolist():
                yield position, member


def _prefixes(hashes: Hashes) -> npt.NDArray[np.uint32]:
    return (hashes >> np.uint64(32)).astype(np.uint32)


def _share(run: _Run[T], kept: frozenset[int]) -> float:
    """Return the share of a run's members that are still wanted."""
    return sum(id(member) in kept for member in run.members) / len(run.members)


def _run_of(members: Sequence[T]) -> _Run[T]:
    of_each = [np.unique(_prefixes(member.listing_hashes)) for member in members]
    numbers = np.repeat(
        np.arange(len(members), dtype=np.uint32), [len(prefixes) for prefixes in of_each]
    )
    return _sorted_run(np.concatenate(of_each), numbers, tuple(members))


def _merged(one: _Run[T], other: _Run[T], kept: frozenset[int]) -> _Run[T]:
    """Return one run of what is still wanted in two."""
    members = (*one.members, *other.members)
    prefixes = np.concatenate([one.prefixes, other.prefixes])
    numbers = np.concatenate([one.numbers, other.numbers + np.uint32(len(one.members))])
    wanted = np.array([id(member) in kept for member in members])
    entries = wanted[numbers]
    renumbered = (np.cumsum(wanted) - 1).astype(np.uint32)
    return _sorted_run(
        prefixes[entries],
        renumbered[numbers[entries]],
        tuple(member for member, keep in zip(members, wanted, strict=True) if keep),
    )


def _sorted_run(
    prefixes: npt.NDArray[np.uint32], numbers: npt.NDArray[np.uint32], members: tuple[T, ...]
) -> _Run[T]:
    order = np.argsort(prefixes, kind="stable")
    narrow = np.min_scalar_type(len(members))
    return _Run(prefixes[order], numbers[order].astype(narrow), members)
