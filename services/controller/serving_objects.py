"""The Deployment, Service and PodDisruptionBudget of an IndexServing. Pure."""

from __future__ import annotations

from typing import Any, Final

from services.controller.drift import stamped
from services.controller.made import CONTAINER_SECURITY, POD_SECURITY, owned_by
from services.controller.settings import ControllerSettings
from shashin.discovery.endpoint_slices import (
    GRPC_PORT,
    MODEL_LABEL,
    ROLE_LABEL,
    TIER_LABEL,
    model_label,
)
from shashin.discovery.protocol import INDEX_SERVER
from shashin.kube.resource import KubeObject, Resource
from shashin.kube.resources import DEPLOYMENTS, DISRUPTION_BUDGETS, SERVICES
from shashin.servings.document import IndexServing

SERVING_LABEL: Final = "shashin.dev/serving"
OF_SERVINGS: Final = SERVING_LABEL
"""Selects all objects that were made for IndexServings."""

CONTAINER: Final = "index-server"
SHARDS_FOLDER: Final = "/indexes"

_NAME = "app.kubernetes.io/name"
_HTTP, _GRPC = 8080, 50051
_READY_SECONDS = 1
_START_SECONDS = 600
_GRACE_SECONDS = 30
_PROGRESS_SECONDS = 600


def wanted_objects(
    serving: IndexServing, owner: KubeObject, settings: ControllerSettings
) -> list[tuple[Resource, KubeObject]]:
    """Return what has to be there for a serving; ``owner`` is it as the API server has it."""
    made: list[tuple[Resource, KubeObject]] = [
        (SERVICES, _service(serving)),
        (DISRUPTION_BUDGETS, _budget(serving)),
        (DEPLOYMENTS, _deployment(serving, settings)),
    ]
    owned = owned_by(owner)
    return [
        (resource, stamped({**one, "metadata": {**one["metadata"], **owned}}))
        for resource, one in made
    ]


def _selector(serving: IndexServing) -> dict[str, Any]:
    return {"matchLabels": {SERVING_LABEL: serving.metadata.name}}


def _metadata(serving: IndexServing) -> dict[str, Any]:
    labels = {**serving.metadata.labels, **_labels(serving)}
    return {"name": serving.metadata.name, "labels": labels}


def _labels(serving: IndexServing) -> dict[str, str]:
    # Those of the serving are not on its pods: another label replaces no pod.
    labels = {
        _NAME: CONTAINER,
        "app.kubernetes.io/part-of": "shashin",
        ROLE_LABEL: INDEX_SERVER,
        TIER_LABEL: serving.spec.tier,
        SERVING_LABEL: serving.metadata.name,
    }
    model = model_label(serving.spec.model)
    return {**labels, **({MODEL_LABEL: model} if model else {})}


def _service(serving: IndexServing) -> KubeObject:
    return {
        "apiVersion": SERVICES.api_version,
        "kind": "Service",
        "metadata": _metadata(serving),
        "spec": {
            # Routers call pods, each by its address.
            "clusterIP": "None",
            "selector": {SERVING_LABEL: serving.metadata.name},
            "ports": [
                {
                    "name": GRPC_PORT,
                    "port": _GRPC,
                    "protocol": "TCP",
                    "targetPort": GRPC_PORT,
                    "appProtocol": "kubernetes.io/h2c",
                }
            ],
        },
    }


def _budget(serving: IndexServing) -> KubeObject:
    return {
        "apiVersion": DISRUPTION_BUDGETS.api_version,
        "kind": "PodDisruptionBudget",
        "metadata": _metadata(serving),
        "spec": {"maxUnavailable": 1, "selector": _selector(serving)},
    }


def _deployment(serving: IndexServing, settings: ControllerSettings) -> KubeObject:
    return {
        "apiVersion": DEPLOYMENTS.api_version,
        "kind": "Deployment",
        "metadata": _metadata(serving),
        "spec": {
            "replicas": serving.spec.replicas,
            "revisionHistoryLimit": 2,
            "progressDeadlineSeconds": _PROGRESS_SECONDS,
            # An old pod goes only when a new one serves all shards.
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1},
            },
            "selector": _selector(serving),
            "template": {
                "metadata": {"labels": _labels(serving)},
                "spec": _pod(serving, settings),
            },
        },
    }


def _pod(serving: IndexServing, settings: ControllerSettings) -> dict[str, Any]:
    return {
        "serviceAccountName": settings.index_server_account,
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": _GRACE_SECONDS + settings.pre_stop_seconds,
        "securityContext": POD_SECURITY,
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": key,
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": _selector(serving),
            }
            for key in ("kubernetes.io/hostname", "topology.kubernetes.io/zone")
        ],
        "containers": [_container(serving, settings)],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
    }


def _container(serving: IndexServing, settings: ControllerSettings) -> dict[str, Any]:
    live = {"httpGet": {"path": "/livez", "port": "http"}}
    lifecycle = {
        # Kubernetes takes the pod out of the slices at the same time, and routers hear of it later.
        "lifecycle": {"preStop": {"sleep": {"seconds": settings.pre_stop_seconds}}}
    }
    return {
        "name": CONTAINER,
        "image": serving.spec.image,
        "imagePullPolicy": "IfNotPresent",
        "envFrom": _environment_sources(settings),
        "env": [
            {"name": "SHASHIN_TIER", "value": serving.spec.tier},
            {"name": "SHASHIN_MODEL_ID", "value": serving.spec.model},
            {"name": "SHASHIN_DIMENSIONS", "value": str(serving.spec.dimensions)},
            {"name": "SHASHIN_SHARDS_FOLDER", "value": SHARDS_FOLDER},
        ],
        "ports": [
            {"name": "http", "containerPort": _HTTP, "protocol": "TCP"},
            {"name": GRPC_PORT, "containerPort": _GRPC, "protocol": "TCP"},
        ],
        "resources": _resources(serving, settings),
        "securityContext": CONTAINER_SECURITY,
        "startupProbe": {
            **live,
            "periodSeconds": _READY_SECONDS,
            "failureThreshold": _START_SECONDS // _READY_SECONDS,
        },
        "livenessProbe": {
            **live,
            "periodSeconds": 10,
            "timeoutSeconds": 5,
            "failureThreshold": 3,
        },
        "readinessProbe": {
            "httpGet": {"path": "/readyz", "port": "http"},
            "periodSeconds": _READY_SECONDS,
            "timeoutSeconds": 5,
            "failureThreshold": 3,
        },
        **(lifecycle if settings.pre_stop_seconds else {}),
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108 - a volume of the pod's own
    }


def _environment_sources(settings: ControllerSettings) -> list[dict[str, Any]]:
    sources: list[dict[str, Any]] = [{"configMapRef": {"name": settings.config_map}}]
    if settings.secret:
        sources.append({"secretRef": {"name": settings.secret}})
    return sources


def _resources(serving: IndexServing, settings: ControllerSettings) -> dict[str, Any]:
    asked = serving.spec.resources
    resources: dict[str, Any] = {
        "requests": {
            "cpu": settings.index_server_cpu,
            "memory": settings.index_server_memory,
            **asked.requests,
        }
    }
    return {**resources, "limits": dict(asked.limits)} if asked.limits else resources
