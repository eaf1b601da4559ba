"""Events: what happened to an object, for people who `kubectl describe` it."""

from __future__ import annotations

import hashlib
from typing import Literal

from services.controller.made import MANAGER
from shashin.errors import KubernetesConflict, ShashinError
from shashin.kube.client import KubeClient
from shashin.kube.resource import KubeObject
from shashin.kube.resources import EVENTS
from shashin.runtime.logging import get_logger

log = get_logger(__name__)

_MAX_MESSAGE = 1024


async def record_event(
    client: KubeClient,
    about: KubeObject,
    reason: str,
    message: str,
    *,
    kind: Literal["Normal", "Warning"] = "Normal",
) -> None:
    """Record an event once per generation and message; a failure is only logged: events are for people."""
    metadata = about["metadata"]
    namespace = metadata.get("namespace", "")
    now = f"{client.clock.utc():%Y-%m-%dT%H:%M:%SZ}"
    same = f"{metadata.get('uid')} {metadata.get('generation')} {reason} {message}"
    event = {
        "apiVersion": EVENTS.api_version,
        "kind": "Event",
        "metadata": {
            "name": f"{metadata['name']}.{hashlib.sha256(same.encode()).hexdigest()[:16]}",
            "namespace": namespace,
        },
        "involvedObject": {
            "apiVersion": about["apiVersion"],
            "kind": about["kind"],
            "name": metadata["name"],
            "namespace": namespace,
            "uid": metadata.get("uid", ""),
            "resourceVersion": metadata.get("resourceVersion", ""),
        },
        "reason": reason,
        "message": message[:_MAX_MESSAGE],
        "type": kind,
        "source": {"component": MANAGER},
        "reportingComponent": MANAGER,
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }
    try:
        await client.create(EVENTS, event, namespace=namespace)
    except KubernetesConflict:
        pass  # recorded already
    except ShashinError as error:
        log.info("event not recorded", name=metadata["name"], reason=reason, error=error.message)
