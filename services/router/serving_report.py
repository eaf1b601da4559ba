"""What the router tells those who ask whether it, or one tier, can be searched."""

from __future__ import annotations

from collections.abc import Iterable

from services.router.active import ActiveModel
from services.router.endpoints import EndpointState
from shashin.rpc.health_service import HealthService
from shashin.runtime.health import Health
from shashin.runtime.scope import Loop, LoopScope

_EVERY_SECONDS = 0.25
SERVICE = "shashin.v1.SearchService"
TIER = "shashin.tier."


def serving(*, ready: bool, states: Iterable[EndpointState]) -> dict[str, bool]:
    """Return whether the router serves, by the names of the health service.

    A tier is served if an endpoint of it answers. A tier without any endpoint of the model that is searched
    is unknown.
    """
    tiers: dict[str, bool] = {}
    for state in states:
        if state.tier and state.status != "other_model":
            name = f"{TIER}{state.tier}"
            tiers[name] = tiers.get(name, False) or state.ready
    return {"": ready, SERVICE: ready, **tiers}


class ServingReport:
    """Keeps the health service up to date."""

    def __init__(self, service: HealthService, health: Health, active: ActiveModel) -> None:
        self._service = service
        self._health = health
        self._active = active

    def loop(self) -> Loop:
        """Return the loop; when it has to stop, nothing is serving any longer, before calls are refused."""
        return Loop("serving report", self._run)

    async def _run(self, loop: LoopScope) -> None:
        while loop.next_turn():
            ready = not self._health.readiness_problems()
            self._service.report(serving(ready=ready, states=self._active.current.watch.states()))
            await loop.sleep(_EVERY_SECONDS)
        self._service.drain()
