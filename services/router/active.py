"""Which model is searched: that of the settings, until discovery names another one.

A call uses one model throughout, the one that is active when it begins: its query is embedded by that
model's embedders and sent to that model's endpoints. Another model takes over for the calls that begin
then, once its endpoints are ready; until then, the one before is searched on.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable

from services.router.batching import SearchBatches
from services.router.embedding import Embedding
from services.router.endpoints import EndpointWatch
from services.router.first_ready import FirstReady
from services.router.locate import Locator
from services.router.lookup import Lookup
from services.router.newest import Newest
from services.router.query_vectors import QueryVectorizer
from services.router.search import Searcher
from services.router.settings import RouterSettings
from shashin.discovery.protocol import EMBEDDER, Discovery, Endpoint
from shashin.errors import ShashinError
from shashin.model_space import ModelSpace
from shashin.offsets.answer_coverage import KnownPositions
from shashin.runtime.logging import get_logger
from shashin.runtime.scope import Loop, LoopScope
from shashin.serving.fleet import INDEX_ROLES, Fleet
from shashin.serving.replica_calls import ReplicaCalls
from shashin.serving.replica_record import ReplicaRecord

_SWITCH = "active model"

log = get_logger(__name__)


class ServedModel:
    """One model, with the endpoints that are searched and everything that is known of them."""

    def __init__(self, space: ModelSpace, settings: RouterSettings) -> None:
        self.space = space
        self.fleet = Fleet(space.model_id)
        self._record = ReplicaRecord(zone=settings.zone)
        positions = KnownPositions()
        self.watch = EndpointWatch(
            self.fleet,
            positions,
            self._record,
            space=space,
            describe_seconds=settings.describe_seconds,
        )
        lookup = Lookup(ReplicaCalls(self._record), self.watch.held_ranges, space=space)
        self._embedding = Embedding(self.fleet, space)
        self.searcher = Searcher(
            self.fleet,
            positions,
            QueryVectorizer(self._embedding, lookup, space=space),
            ReplicaCalls(self._record),
            SearchBatches(),
            self.watch.held_ranges,
            space=space,
            deadline_ms=settings.deadline_ms,
        )
        self.locator = Locator(self.fleet, lookup, deadline_ms=settings.deadline_ms)
        self.newest = Newest(
            self.fleet, ReplicaCalls(self._record), space=space, deadline_ms=settings.deadline_ms
        )
        self.calls = 0
        """Calls that use it now."""

    @property
    def photo_vectors(self) -> int:
        """How many vectors a query photo without a crop has, by what the embedders answered last."""
        return self._embedding.photo_vectors

    @property
    def has_embedder(self) -> bool:
        """Whether queries by photo can be embedded."""
        with self.fleet.hold(EMBEDDER) as held:
            return bool(held.peers)

    def sync(self, endpoints: Iterable[Endpoint]) -> bool:
        """Replace the known endpoints with these; returns whether anything changed."""
        changed = self.fleet.sync(endpoints)
        # Each time, since calls to endpoints that have left end later.
        self._record.keep_only(self.fleet.endpoints(*INDEX_ROLES))
        return changed

    async def problem(self, before: ServedModel) -> str | None:
        """Poll the endpoints; returns why this cannot take over from another model, or None."""
        if (not_ready := await self.watch.describe_once()) is not None:
            return not_ready
        unready = [s for s in self.watch.states() if s.status == "unready"]
        if unready and not self.watch.coverage().complete:
            return f"coverage is not complete, and not ready: {'; '.join(map(str, unready))}"
        if before.has_embedder and not self.has_embedder:
            return f"no embedder of {self.space.model_id!r} is known"
        return None


class InUse:
    """A model while a call uses it."""

    def __init__(self, model: ServedModel, ended: Callable[[], None]) -> None:
        self._model = model
        self._ended = ended

    def __enter__(self) -> ServedModel:
        self._model.calls += 1
        return self._model

    def __exit__(self, *_: object) -> None:
        self._model.calls -= 1
        self._ended()


class ActiveModel:
    """The model that calls use, which follows discovery."""

    def __init__(self, discovery: Discovery, settings: RouterSettings, space: ModelSpace) -> None:
        self._discovery = discovery
        self._settings = settings
        self._endpoints: list[Endpoint] = []
        self._changed = asyncio.Event()
        self._current = ServedModel(space, settings)
        self._next: ServedModel | None = None
        """The model that takes over once it can."""
        self._retired: list[ServedModel] = []
        """Models that calls still use which began before the switch."""
        self._first_ready = FirstReady(settings.complete_seconds)

    @property
    def current(self) -> ServedModel:
        """The model that a call which begins now would use."""
        return self._current

    def in_use(self) -> InUse:
        """Return a context that uses the current model: its endpoints stay known, even after a switch."""
        return InUse(self._current, self._release_retired)

    def _release_retired(self) -> None:
        if self._retired:
            for model in [retired for retired in self._retired if not retired.calls]:
                self._retired.remove(model)
                model.fleet.sync(())

    async def close(self) -> None:
        """Close every channel."""
        for model in filter(None, (self._current, self._next, *self._retired)):
            await model.fleet.close()

    def loops(self) -> tuple[Loop, Loop]:
        """Return the loops; ready once an index endpoint is."""
        return (
            Loop("discovery follower", self._follow_discovery),
            Loop(
                "endpoint poller",
                self._describe,
                ready_when="index endpoints that describe themselves",
            ),
        )

    async def _follow_discovery(self, loop: LoopScope) -> None:
        while loop.next_turn():
            try:
                with loop.waiting_for("discovery"):
                    self._endpoints = await self._discovery.endpoints()
                    wanted = await self._discovery.active_model()
                self._want(wanted or (self._next or self._current).space)
                for model in filter(None, (self._current, self._next)):
                    if model.sync(self._endpoints):
                        self._changed.set()
                self._report_problem(loop, self._discovery.problem)
            except ShashinError as error:
                loop.degraded("discovery", error.message)
                log.warning(
                    "discovery unavailable: keeping the known endpoints", error=error.message
                )
            await loop.sleep(self._settings.discovery_seconds)

    @staticmethod
    def _report_problem(loop: LoopScope, problem: str | None) -> None:
        if problem is None:
            loop.clear("discovery")
        else:
            loop.degraded("discovery", problem)

    def _want(self, space: ModelSpace) -> None:
        if space == (self._next or self._current).space:
            return
        if self._next is not None:
            self._next.fleet.sync(())
        self._next = None if space == self._current.space else ServedModel(space, self._settings)
        self._changed.set()

    async def _describe(self, loop: LoopScope) -> None:
        """Poll every endpoint periodically, and immediately when endpoints change."""
        while loop.next_turn():
            self._changed.clear()
            not_ready = await self._current.watch.describe_once()
            if (wanted := self._next) is None:
                loop.clear(_SWITCH)
            elif (problem := await wanted.problem(self._current)) is None:
                not_ready = None
                # Unless discovery has named yet another one meanwhile.
                if wanted is self._next:
                    self._switch_to(wanted)
                    loop.clear(_SWITCH)
            else:
                loop.degraded(
                    _SWITCH,
                    f"{wanted.space.model_id!r} is active, and {self._current.space.model_id!r} is "
                    f"searched until it can take over: {problem}",
                )
            self._current.watch.publish()
            if not_ready is None:
                not_ready = self._first_ready.waits_for(
                    self._current.watch.coverage(), time.monotonic()
                )
            if not_ready is None:
                loop.ready()
            else:
                loop.not_ready(not_ready)
            await loop.wait(self._changed, self._settings.describe_seconds)

    def _switch_to(self, model: ServedModel) -> None:
        log.info("switched models", before=str(self._current.space), now=str(model.space))
        self._retired.append(self._current)
        self._current, self._next = model, None
        self._release_retired()
