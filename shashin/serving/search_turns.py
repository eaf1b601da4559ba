"""Which of the searches that wait is next: several small ones together, and a part of a large one. Pure.

- Searches that agree in what they ask for are done in one go, up to ``SHARED_QUERIES`` vectors. Those that
  do not agree take turns.
- A search of more vectors is done part by part. Such parts take turns with each other, and every other
  turn belongs to the small searches, as long as any waits. So neither waits for all of the other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from shashin.codecs.limits import SHARED_QUERIES


@dataclass(eq=False)
class Turnable:
    """A search that waits for its turn, or for several."""

    agrees_in: Hashable
    """Searches for which this is equal can be done in one go."""
    queries: int
    """Vectors, at least one."""
    alone: bool = False
    """Whether it is done in a go of its own."""
    given_up: bool = False
    """Whether nobody waits for it any more: it gets no turn."""
    taken: int = 0
    """How many of its vectors have had their turn."""


SearchT = TypeVar("SearchT", bound=Turnable)


class Part(NamedTuple, Generic[SearchT]):
    """Vectors of a search: from ``first`` to before ``end``."""

    search: SearchT
    first: int
    end: int


class SearchTurns(Generic[SearchT]):
    """The searches that wait."""

    def __init__(self) -> None:
        self._small: dict[Hashable, deque[SearchT]] = {}
        """By what they agree in; in the order of their turns."""
        self._large: deque[SearchT] = deque()
        self._small_is_next = True

    def add(self, search: SearchT) -> None:
        """Let a search wait for its turn."""
        if search.queries > SHARED_QUERIES:
            self._large.append(search)
        else:
            # A search of its own agrees with none.
            agrees_in = search if search.alone else search.agrees_in
            self._small.setdefault(agrees_in, deque()).append(search)

    def take(self) -> list[Part[SearchT]]:
        """Return what is done next, in one go; nothing if nothing waits."""
        if self._small_is_next:
            parts = self._take_small() or self._take_large()
        else:
            parts = self._take_large() or self._take_small()
        if parts:
            self._small_is_next = parts[0].search.queries > SHARED_QUERIES
        return parts

    def _take_small(self) -> list[Part[SearchT]]:
        while self._small:
            agrees_in, waiting = next(iter(self._small.items()))
            del self._small[agrees_in]
            parts: list[Part[SearchT]] = []
            room = SHARED_QUERIES
            while waiting and (waiting[0].given_up or waiting[0].queries <= room):
                search = waiting.popleft()
                if not search.given_up:
                    parts.append(Part(search, 0, search.queries))
                    search.taken = search.queries
                    room -= search.queries
            if waiting:
                self._small[agrees_in] = waiting
            if parts:
                return parts
        return []

    def _take_large(self) -> list[Part[SearchT]]:
        while self._large:
            search = self._large.popleft()
            if search.given_up:
                continue
            first = search.taken
            search.taken = min(first + SHARED_QUERIES, search.queries)
            if search.taken < search.queries:
                self._large.append(search)
            return [Part(search, first, search.taken)]
        return []
