"""Indexes of one quantizer, searched together: at the price of one, however many they are.

A list of a small index has a few rows, and going there costs more than reading them. So the codes of
small indexes are copied into a few runs, list by list, each several times as large as the one before, as
in a log-structured merge tree: what joins is copied a few times in all. Large indexes are read where
they are mapped. A stack does not change: indexes join and leave by another stack, which shares the runs
that stay.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from operator import attrgetter
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from shashin.shards.kinds.growing_sq4 import GrowingSq4Index
from shashin.shards.kinds.ivf_sq4 import (
    IvfSq4Index,
    candidates_for,
    lists_of,
    probes_factor,
    probes_needed,
)
from shashin.shards.kinds.native import library
from shashin.shards.kinds.native.library import Listings, Member, Run, Searcher
from shashin.shards.kinds.npy_file import drop_pages
from shashin.shards.kinds.protocol import (
    Hits,
    OpenRows,
    RowMask,
    SearchableIndex,
    StackHits,
    StackMember,
    Vectors,
)
from shashin.shards.kinds.quantizer import Quantizer

_LARGE_ROWS_PER_LIST = 64
"""From so many rows a list on, an index is searched where it is mapped."""

_GROWTH = 8
"""A copied run is more than so many times as large as the one before."""

_EXACT_ROWS = 4_000
"""Up to so many rows, all of them are compared."""

_EXACT_WITH_FILTER = 2
"""With a filter, so many times as many: a search would read more lists."""

_MANY_HIDDEN = 0.2
"""From this share of hidden rows on, they are treated as if a filter excluded them."""

_FLAGGED = attrgetter("flagged")


class _Plan(NamedTuple):
    """How a search is done."""

    groups: int
    """How many are found, at most."""
    candidates: int
    """Rows that are compared exactly."""
    is_exact: bool
    """Whether all rows are."""
    factor: float
    """By how much more lists are read than for the 10 nearest rows."""
    filtered: bool
    """Whether many rows may not be found."""


_NOBODY = Member(np.zeros((0, 1), np.float16), np.zeros(0, np.uint8), np.zeros(0, np.uint32))


class IvfSq4Stack:
    """The members, and the runs that have their codes."""

    def __init__(
        self,
        quantizer: Quantizer,
        members: Mapping[int, StackMember] | None = None,
        runs: Sequence[Run] = (),
        gone: Mapping[int, Member] | None = None,
    ) -> None:
        self._quantizer = quantizer
        self.members: Mapping[int, StackMember] = members or {}
        """By number."""
        self._runs = tuple(runs)
        self._gone = gone or {}
        """Members that left, of which runs still have codes; all of their rows are flagged."""
        known = {number: _native(member) for number, member in self.members.items()}
        known |= self._gone
        numbered = [known.get(number, _NOBODY) for number in range(max(known, default=-1) + 1)]
        self._searcher = Searcher(lists_of(quantizer), self._runs, numbered)
        self._rows = sum(len(member.index) for member in self.members.values())
        self._groups = sum(member.groups for member in self.members.values())
        self._masked = [member.masked for member in self.members.values()]

    @property
    def memory_bytes(self) -> int:
        """Bytes in memory beyond those of the indexes."""
        copied = (run for run in self._runs if run.members is not None)
        return sum(array.nbytes for run in copied for array in _arrays(run))

    @property
    def next_number(self) -> int:
        """The number that the first of the open indexes of a search has."""
        return len(self._searcher.members)

    def fits(self, index: SearchableIndex) -> bool:
        """Whether an index has this quantizer."""
        return isinstance(index, IvfSq4Index | GrowingSq4Index) and index.quantizer.is_same(
            self._quantizer
        )

    def over(self, members: Sequence[StackMember]) -> IvfSq4Stack:
        """Return the stack of these members, made from this one where they are the same.

        What is copied costs about 0.1 microseconds a row.
        """
        wanted = {id(member) for member in members}
        if wanted == {id(member) for member in self.members.values()}:
            return self
        numbered = {n: member for n, member in self.members.items() if id(member) in wanted}
        runs = [run for run in self._runs if _share(run, numbered) > 0]
        used = {number for run in runs for number in run.counts}
        joining = [m for m in members if id(m) not in {id(known) for known in numbered.values()}]
        free = (n for n in range(len(used) + len(members)) if n not in used and n not in numbered)
        for number, member in zip(free, joining, strict=False):
            assert isinstance(member.index, IvfSq4Index)
            # One object for all: it is compared, and mapped, only once.
            member.index.quantizer = self._quantizer
            numbered[number] = member
            if len(member.index):
                runs.append(replace(member.index.run, member=number))
        merged = self._merged(runs, numbered)
        left = {number for run in merged for number in run.counts} - set(numbered)
        gone = {number: _flagged(self._searcher.members[number]) for number in left}
        return IvfSq4Stack(self._quantizer, numbered, merged, gone)

    def _merged(self, runs: Sequence[Run], members: Mapping[int, StackMember]) -> list[Run]:
        large_rows = _LARGE_ROWS_PER_LIST * len(self._quantizer)
        large = [run for run in runs if run.members is None and len(run) >= large_rows]
        small = sorted((run for run in runs if not any(run is one for one in large)), key=len)
        merged: list[Run] = []
        for group in grouped([len(run) for run in small]):
            of_group = small[group]
            (only, *others) = of_group
            if others or _share(only, members) < 0.5:
                only = self._run_of(of_group, members)
            merged.append(only)
        return [*large, *merged]

    def _run_of(self, runs: Sequence[Run], members: Mapping[int, StackMember]) -> Run:
        """Return one run of what members have in several."""
        count = 1 + max(number for run in runs for number in run.counts)
        gone = np.array([number not in members for number in range(count)])
        run = library.merged(runs, len(self._quantizer), gone, probes=1)
        for copied in (run for run in runs if run.members is None):
            for array in _arrays(copied):
                drop_pages(array)
        stored = [
            _NOBODY.vectors if number not in members else _native(members[number]).vectors
            for number in range(count)
        ]
        return replace(run, probes=probes_needed(self._quantizer, run, stored))

    def search(
        self,
        queries: Vectors,
        k: int,
        *,
        allowed: Mapping[int, RowMask] | None,
        opened: Sequence[OpenRows] = (),
    ) -> StackHits:
        """Return the nearest row of each of up to ``k`` groups of all members, for each query.

        The indexes that are open are searched as well.
        """
        return self._search(queries, self._plan(k, allowed, opened), allowed, opened)

    def _search(
        self,
        queries: Vectors,
        plan: _Plan,
        allowed: Mapping[int, RowMask] | None,
        opened: Sequence[OpenRows],
    ) -> StackHits:
        if plan.groups == 0:
            return nothing(len(queries))
        more = [_open(one) for one in opened]
        if plan.is_exact:
            return self._searcher.search_exactly(
                queries, plan.groups, candidates=plan.candidates, allowed=allowed, more=more
            )
        return self._searcher.search(
            queries,
            plan.groups,
            candidates=plan.candidates,
            factor=plan.factor,
            allowed=allowed,
            filtered=plan.filtered,
            more=more,
        )

    def search_listings(
        self,
        queries: Vectors,
        groups: int,
        k: int,
        *,
        listings: Listings,
        positions: npt.NDArray[np.int64],
        allowed: Mapping[int, RowMask] | None,
        opened: Sequence[OpenRows] = (),
    ) -> tuple[Hits, list[int]]:
        """Return the ``k`` best listings of what ``search`` finds for ``groups``, and how many rows that is.

        In one call, unless all rows are compared.
        """
        plan = self._plan(groups, allowed, opened)
        if plan.groups == 0 or plan.is_exact:
            found = self._search(queries, plan, allowed, opened)
            begins = np.arange(len(queries), dtype=np.int64) * found.rows.shape[1]
            best = listings.best(
                positions[found.members].ravel(),
                found.rows.astype(np.int64).ravel(),
                found.scores.ravel(),
                begins,
                found.counts,
                k,
            )
            return best, found.counts.tolist()
        return self._searcher.search_listings(
            queries,
            k,
            groups=plan.groups,
            listings=listings,
            positions=positions,
            candidates=plan.candidates,
            factor=plan.factor,
            allowed=allowed,
            filtered=plan.filtered,
            more=[_open(one) for one in opened],
        )

    def _plan(
        self, k: int, allowed: Mapping[int, RowMask] | None, opened: Sequence[OpenRows]
    ) -> _Plan:
        """Return how a search for ``k`` groups is done."""
        rows, groups, flagged = self._rows, self._groups, sum(map(_FLAGGED, self._masked))
        for one in opened:
            rows += one.rows
            groups += one.groups
            flagged += one.flagged
        matching = rows if allowed is None else sum(mask.count for mask in allowed.values())
        k = min(k, matching)
        rows_per_group = max(1.0, rows / max(1, groups))
        candidates = candidates_for(k, rows_per_group)
        if not self._runs:  # without codes there are no estimates that could be off
            candidates = int(k * min(rows_per_group, 4.0)) + 8
        return _Plan(
            k,
            candidates,
            matching <= _EXACT_ROWS * (1 if allowed is None else _EXACT_WITH_FILTER),
            probes_factor(k, rows_per_group),
            allowed is not None or flagged > _MANY_HIDDEN * rows,
        )


def grouped(sizes: Sequence[int]) -> list[slice]:
    """Return which of some runs, by ascending size, become one: those next to each other in a slice.

    Each of the results is more than ``_GROWTH`` times as large as the one before.
    """
    groups: list[slice] = []
    start = 0
    while start < len(sizes):
        total, end = sizes[start], start + 1
        while end < len(sizes) and _GROWTH * total >= sizes[end]:
            total += sizes[end]
            end += 1
        groups.append(slice(start, end))
        start = end
    return groups


def nothing(queries: int) -> StackHits:
    """Return no hits."""
    return StackHits(
        np.zeros((queries, 0), np.uint32),
        np.zeros((queries, 0), np.uint32),
        np.zeros((queries, 0), np.float32),
        np.zeros(queries, np.int32),
    )


def _open(opened: OpenRows) -> tuple[Member, Run]:
    assert isinstance(opened.index, GrowingSq4Index)
    return opened.index.member(opened), opened.index.run(opened.rows)


def _native(member: StackMember) -> Member:
    assert isinstance(member.index, IvfSq4Index)
    return Member(member.index.stored, member.flags, member.group)


def _flagged(member: Member) -> Member:
    """Return a member of which no row is found."""
    if member.vectors.shape[1] == 1:
        return member
    rows = len(member.flags)
    # Only flags are read.
    return Member(
        np.zeros((rows, 0), np.float16), np.ones(rows, np.uint8), np.zeros(rows, np.uint32)
    )


def _share(run: Run, members: Mapping[int, StackMember]) -> float:
    """Return the share of a run's codes whose members are still there."""
    kept = sum(count for number, count in run.counts.items() if number in members)
    return kept / max(1, len(run))


def _arrays(run: Run) -> list[np.ndarray]:
    arrays = (run.starts, run.codes, run.scales, run.signs, run.sign_scales, run.rows, run.members)
    return [array for array in arrays if array is not None]
