"""Makes Deployments serve what IndexServings ask for, and says how far they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from services.controller.drift import differs
from services.controller.events import record_event
from services.controller.made import MANAGER
from services.controller.serving_objects import SERVING_LABEL, wanted_objects
from services.controller.serving_status import READY, Pods, Served, invalid_status, status_of
from services.controller.settings import ControllerSettings
from shashin.errors import UserError
from shashin.kube.client import KubeClient
from shashin.kube.reflector import Reflector
from shashin.kube.resource import Key, KubeObject, Resource
from shashin.kube.resources import DEPLOYMENTS, DISRUPTION_BUDGETS, INDEX_SERVINGS, SERVICES
from shashin.metrics import controller as metrics
from shashin.runtime.logging import get_logger
from shashin.servings.document import IndexServing, ServingStatus, parse_serving
from shashin.tiers import SEALED_TIERS

log = get_logger(__name__)


@dataclass(frozen=True)
class ServingWorld:
    """What is known of IndexServings and of what was made for them."""

    servings: Reflector
    deployments: Reflector
    services: Reflector
    budgets: Reflector
    pods: Reflector

    @property
    def made(self) -> Sequence[Reflector]:
        """The reflectors of what was made."""
        return (self.deployments, self.services, self.budgets, self.pods)

    def found(self, resource: Resource, key: Key) -> KubeObject | None:
        """Return an object that was made, as it was last seen."""
        reflectors = {
            DEPLOYMENTS: self.deployments,
            SERVICES: self.services,
            DISRUPTION_BUDGETS: self.budgets,
        }
        return reflectors[resource].objects.get(key)

    def pods_of(self, key: Key) -> Pods:
        """Return the pods of a serving."""
        namespace, name = key
        return Pods(
            [
                pod
                for (its_namespace, _), pod in self.pods.objects.items()
                if its_namespace == namespace
                and pod["metadata"]["labels"].get(SERVING_LABEL) == name
            ]
        )


class ServingReconciler:
    """The reconciler of IndexServings."""

    name = "serving"

    def __init__(
        self, client: KubeClient, world: ServingWorld, settings: ControllerSettings
    ) -> None:
        self._client = client
        self._world = world
        self._settings = settings
        self._parsed: dict[Key, tuple[str, int, IndexServing | UserError]] = {}

    async def reconcile(self, key: Key) -> float | None:
        """Apply what an IndexServing wants, and write its status."""
        owner = self._world.servings.objects.get(key)
        self._measure()
        if owner is None or "deletionTimestamp" in owner["metadata"]:
            # What was made for it goes with it, by its owner references.
            self._parsed.pop(key, None)
            return None
        before = _status_before(owner)
        now = self._client.clock.utc()
        serving = self._serving(key, owner)
        if isinstance(serving, UserError):
            status = invalid_status(owner, serving.message, before, now)
        else:
            await self._apply(serving, owner)
            served = self._served(key, owner, serving)
            status = status_of(served, self._others(key), before, now)
        await self._write(owner, before, status)
        return None

    async def _apply(self, serving: IndexServing, owner: KubeObject) -> None:
        namespace = owner["metadata"]["namespace"]
        for resource, wanted in wanted_objects(serving, owner, self._settings):
            found = self._world.found(resource, (namespace, wanted["metadata"]["name"]))
            if differs(wanted, found):
                await self._client.apply(resource, wanted, manager=MANAGER, namespace=namespace)
                log.info(
                    "applied", kind=wanted["kind"], name=serving.metadata.name, new=found is None
                )

    async def _write(self, owner: KubeObject, before: ServingStatus, status: ServingStatus) -> None:
        if status == before:
            return
        namespace, name = owner["metadata"]["namespace"], owner["metadata"]["name"]
        await self._client.merge_patch(
            INDEX_SERVINGS,
            name,
            {
                # Of the serving that was looked at, not of one that came since under its name.
                "metadata": {"resourceVersion": owner["metadata"]["resourceVersion"]},
                "status": status.model_dump(mode="json", by_alias=True),
            },
            namespace=namespace,
            subresource="status",
        )
        old, new = _ready_of(before), _ready_of(status)
        if new is not None and (
            old is None or (old.status, old.reason) != (new.status, new.reason)
        ):
            good = new.status == "True" or new.reason == "Rolling"
            await record_event(
                self._client, owner, new.reason, new.message, kind="Normal" if good else "Warning"
            )
            log.info("serving", name=name, reason=new.reason, message=new.message)
            if new.reason == "RolledOut" and status.image != before.image:
                metrics.ROLLOUTS.labels(owner["spec"]["tier"]).inc()
                if old is not None and old.status != "True":
                    took = new.last_transition_time - old.last_transition_time
                    metrics.ROLLOUT_SECONDS.labels(owner["spec"]["tier"]).observe(
                        max(0.0, took.total_seconds())
                    )

    def _serving(self, key: Key, owner: KubeObject) -> IndexServing | UserError:
        """Return its document, or why it cannot be used."""
        identity = (str(owner["metadata"].get("uid")), int(owner["metadata"].get("generation", 0)))
        known = self._parsed.get(key)
        if known is not None and known[:2] == identity:
            return known[2]
        parsed: IndexServing | UserError
        try:
            parsed = parse_serving(_document(owner), origin=f"IndexServing {key[1]}")
        except UserError as error:
            parsed = error
        self._parsed[key] = (*identity, parsed)
        return parsed

    def _served(self, key: Key, owner: KubeObject, serving: IndexServing) -> Served:
        return Served(serving, owner, self._world.found(DEPLOYMENTS, key), self._world.pods_of(key))

    def _others(self, key: Key) -> list[Served]:
        return [
            self._served(other, owner, serving)
            for other, owner in self._world.servings.objects.items()
            if other != key
            and other[0] == key[0]
            and isinstance(serving := self._serving(other, owner), IndexServing)
        ]

    def _measure(self) -> None:
        counted = Counter(
            (str(owner["spec"].get("tier")), ready.reason if ready else "New")
            for owner in self._world.servings.objects.values()
            for ready in [_ready_of(_status_before(owner))]
        )
        metrics.SERVINGS.clear()
        for (tier, reason), number in counted.items():
            if tier in SEALED_TIERS:
                metrics.SERVINGS.labels(tier, reason).set(number)


def _document(owner: KubeObject) -> dict[str, Any]:
    """Return the part of an object that a person writes."""
    metadata = owner["metadata"]
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "metadata": {"name": metadata["name"], "labels": metadata.get("labels") or {}},
        "spec": owner["spec"],
    }


def _status_before(owner: KubeObject) -> ServingStatus:
    try:
        return ServingStatus.model_validate(owner.get("status") or {})
    except ValidationError:
        return ServingStatus()  # of another version: written anew


def _ready_of(status: ServingStatus) -> Any:
    return next((one for one in status.conditions if one.type == READY), None)
