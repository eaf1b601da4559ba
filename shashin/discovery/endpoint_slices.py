"""Endpoints from the EndpointSlices of Kubernetes, and the active model from a ConfigMap. Pure.

A Service's labels say what its pods are, and its slices inherit them. They are the contract between
whoever writes Services and whoever calls their pods.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, get_args

from shashin.discovery.protocol import EMBEDDER, INDEX_SERVER, INDEXER, Endpoint, Role
from shashin.errors import UserError
from shashin.model_space import ModelSpace, check_model_id
from shashin.tiers import LIVE, SEALED_TIERS

ROLE_LABEL: Final = "shashin.dev/role"
"""indexer, index-server or embedder."""
TIER_LABEL: Final = "shashin.dev/tier"
"""Of an index server: hourly, daily or monthly."""
MODEL_LABEL: Final = "shashin.dev/model"
"""The model's id; missing if it is not known, or not possible as the value of a label."""

SERVICE_LABEL: Final = "kubernetes.io/service-name"
"""Set by Kubernetes: the Service that a slice belongs to."""

GRPC_PORT: Final = "grpc"
"""Name of the port that is called."""

ACTIVE_MODEL_CONFIG_MAP: Final = "shashin-active-model"
"""Its data are ``model_id`` and ``dimensions``."""

_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?")
_MAX_DIMENSIONS = 8192
_ROLES: tuple[Role, ...] = get_args(Role)


@dataclass(frozen=True)
class FoundEndpoints:
    """What slices say."""

    endpoints: Sequence[Endpoint]
    """Sorted by name."""
    problems: Sequence[str]
    """Slices that are left out, and why."""


@dataclass(frozen=True)
class _Pod:
    """A pod that does not terminate, as one slice has it."""

    key: str
    endpoint: Endpoint
    service: str
    ready: bool

    @property
    def alone(self) -> bool:
        """Whether no other pod of its Service can stand in for it."""
        return self.endpoint.role == INDEXER


def endpoints_in(slices: Iterable[Mapping[str, Any]]) -> FoundEndpoints:
    """Return an endpoint per pod that takes new calls.

    These are the pods that are ready. Of a Service without any, they are all that do not terminate:
    Kubernetes also calls pods not ready that answer, all at once, when it has lost sight of their node.
    Endpoints say themselves whether they serve. For the same reason an indexer, whose partitions no
    other one has, is called whether it is ready or not.

    A pod is called once, also if it is in several slices: one per address family, or twice for a
    moment while the control plane moves it from one slice to another.
    """
    pods: list[_Pod] = []
    problems = []
    for one in sorted(slices, key=_order):
        try:
            pods += _pods_of(one)
        except UserError as error:
            problems.append(error.message)
    with_ready = {pod.service for pod in pods if pod.ready}
    found: dict[str, Endpoint] = {}
    for pod in sorted(pods, key=lambda one: not one.ready):
        if pod.ready or pod.alone or pod.service not in with_ready:
            found.setdefault(pod.key, pod.endpoint)
    by_address = {endpoint.address: endpoint for endpoint in found.values()}
    return FoundEndpoints(sorted(by_address.values()), problems)


def _order(one: Mapping[str, Any]) -> tuple[str, str]:
    # IPv4 comes before IPv6, and the result does not depend on the order of a list.
    return str(one.get("addressType")), str(one["metadata"].get("name"))


def _pods_of(one: Mapping[str, Any]) -> list[_Pod]:
    metadata = one["metadata"]
    where = f"endpoint slice {metadata.get('name')!r}"
    labels = metadata.get("labels") or {}
    role = next((known for known in _ROLES if known == labels.get(ROLE_LABEL)), None)
    if role is None:
        raise UserError(
            f"{where}: label {ROLE_LABEL} is {labels.get(ROLE_LABEL)!r}, expected "
            f"{', '.join(_ROLES)}; correct it in the Service"
        )
    tier = _tier(where, role, labels.get(TIER_LABEL) or "")
    if one.get("addressType") not in {"IPv4", "IPv6"}:
        raise UserError(f"{where}: address type {one.get('addressType')!r}, expected IPv4 or IPv6")
    entries = [entry for entry in one.get("endpoints") or () if may_answer(entry)]
    if not any(map(takes_new_calls, entries)) and not one.get("ports"):
        # They may be unknown as long as no pod is ready.
        return []
    port = _port(where, one.get("ports") or ()) if entries else 0
    return [
        _Pod(
            _pod(entry, port),
            Endpoint(
                name=(entry.get("targetRef") or {}).get("name") or entry["addresses"][0],
                role=role,
                # No meaning is defined for further addresses.
                address=_address(entry["addresses"][0], port),
                tier=tier,
                model_id=labels.get(MODEL_LABEL) or "",
                # Pods of one Service serve the same shards; those of an indexer's have partitions of
                # their own.
                group=(labels.get(SERVICE_LABEL) or "") if role == INDEX_SERVER else "",
                zone=entry.get("zone") or "",
            ),
            labels.get(SERVICE_LABEL) or str(metadata.get("name")),
            takes_new_calls(entry),
        )
        for entry in entries
    ]


def may_answer(entry: Mapping[str, Any]) -> bool:
    """Whether a pod does not terminate, and has an address."""
    terminating = (entry.get("conditions") or {}).get("terminating")
    return not terminating and bool(entry.get("addresses"))


def takes_new_calls(entry: Mapping[str, Any]) -> bool:
    """Whether a pod answers, as far as Kubernetes knows, and will go on to do so.

    ``ready`` is no condition of its own: it is true for every pod of a Service that publishes pods
    that are not ready, and otherwise says the same.
    """
    conditions = entry.get("conditions") or {}
    ready = conditions.get("ready")
    serving = conditions.get("serving")
    if serving is None:
        # Unknown counts as ready, says the API.
        serving = ready is not False
    return bool(serving) and may_answer(entry)


def _tier(where: str, role: Role, tier: str) -> str:
    if role == EMBEDDER:
        return ""
    if role == INDEXER:
        return LIVE
    if tier not in SEALED_TIERS:
        raise UserError(
            f"{where}: label {TIER_LABEL} is {tier!r}, expected {', '.join(SEALED_TIERS)} for an "
            "index server; correct it in the Service"
        )
    return tier


def _port(where: str, ports: Sequence[Mapping[str, Any]]) -> int:
    for port in ports:
        number = port.get("port")
        if port.get("name") == GRPC_PORT and isinstance(number, int):
            return number
    names = ", ".join(repr(port.get("name")) for port in ports) or "none"
    raise UserError(f"{where}: no port is named {GRPC_PORT!r}, found {names}")


def _pod(entry: Mapping[str, Any], port: int) -> str:
    uid = (entry.get("targetRef") or {}).get("uid")
    return f"{uid}:{port}" if uid else _address(entry["addresses"][0], port)


def _address(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def model_label(model_id: str) -> str | None:
    """Return the value of the label for a model; None if its id cannot be one.

    Without the label an endpoint is called, and says itself which model it has.
    """
    return model_id if model_id and _LABEL_VALUE.fullmatch(model_id) else None


def active_model_in(config_map: Mapping[str, Any]) -> ModelSpace:
    """Return the model that a ConfigMap names.

    Raises:
        UserError: naming the entry that is missing or malformed.
    """
    data = config_map.get("data") or {}
    where = f"config map {ACTIVE_MODEL_CONFIG_MAP!r}"
    model_id, dimensions = data.get("model_id"), data.get("dimensions")
    if not isinstance(model_id, str):
        raise UserError(f"{where}: model_id is missing")
    try:
        check_model_id(model_id)
    except UserError as error:
        raise UserError(f"{where}: {error.message}") from error
    text = dimensions if isinstance(dimensions, str) else ""
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= _MAX_DIMENSIONS):
        raise UserError(
            f"{where}: dimensions is {dimensions!r}, expected the length of the model's vectors, a "
            f'number from 1 to {_MAX_DIMENSIONS} in quotes, such as "128"'
        )
    return ModelSpace(model_id, int(text))


def active_model_config_map(space: ModelSpace) -> dict[str, Any]:
    """Return the ConfigMap that names a model, as ``active_model_in`` reads it."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": ACTIVE_MODEL_CONFIG_MAP,
            "labels": {"app.kubernetes.io/part-of": "shashin"},
        },
        "data": {"model_id": space.model_id, "dimensions": str(space.dimensions)},
    }
