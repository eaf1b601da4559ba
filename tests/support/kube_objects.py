"""Objects of Kubernetes that tests create."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shashin.kube.resource import KubeObject, Resource

NAMESPACES = Resource("", "v1", "namespaces")
SERVICE_ACCOUNTS = Resource("", "v1", "serviceaccounts")
ROLES = Resource("rbac.authorization.k8s.io", "v1", "roles")
ROLE_BINDINGS = Resource("rbac.authorization.k8s.io", "v1", "rolebindings")


def config_map(name: str, /, labels: Mapping[str, str] | None = None, **data: str) -> KubeObject:
    """Return a ConfigMap."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "labels": dict(labels or {})},
        "data": data,
    }


def free_lease(name: str) -> KubeObject:
    """Return a Lease that nobody holds: taken at once, while who creates one has to wait."""
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": name},
        "spec": {"holderIdentity": ""},
    }


def endpoint(
    address: str, *, pod: str = "", zone: str = "", **conditions: bool | None
) -> dict[str, Any]:
    """Return an entry of a slice; ready unless its conditions say otherwise."""
    entry: dict[str, Any] = {"addresses": [address]}
    entry["conditions"] = conditions or {"ready": True, "serving": True, "terminating": False}
    if pod:
        entry["targetRef"] = {"kind": "Pod", "name": pod, "uid": f"uid-of-{pod}"}
    if zone:
        entry["zone"] = zone
    return entry


def endpoint_slice(
    name: str,
    *endpoints: dict[str, Any],
    role: str = "index-server",
    tier: str = "hourly",
    model: str = "",
    port: int = 50054,
    port_name: str = "grpc",
    family: str = "IPv4",
    service: str = "",
) -> KubeObject:
    """Return a slice as the control plane makes it for a labelled Service; by default of its own name."""
    labels = {
        "kubernetes.io/service-name": service or name,
        "shashin.dev/role": role,
        "shashin.dev/tier": tier,
        "shashin.dev/model": model,
    }
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": name, "labels": {key: text for key, text in labels.items() if text}},
        "addressType": family,
        "endpoints": list(endpoints),
        "ports": [{"name": port_name, "port": port, "protocol": "TCP"}],
    }
