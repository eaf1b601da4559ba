"""What all objects and pods that the controller makes have in common. Pure."""

from __future__ import annotations

from typing import Any, Final

from shashin.kube.resource import KubeObject

MANAGER: Final = "shashin-controller"
"""Owns the fields that the controller applies."""

_USER = 10001

POD_SECURITY: Final[dict[str, Any]] = {
    "runAsNonRoot": True,
    "runAsUser": _USER,
    "runAsGroup": _USER,
    "fsGroup": _USER,
    "fsGroupChangePolicy": "OnRootMismatch",
    "seccompProfile": {"type": "RuntimeDefault"},
}

CONTAINER_SECURITY: Final[dict[str, Any]] = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


def owned_by(owner: KubeObject) -> dict[str, Any]:
    """Return the metadata of an object that goes with its owner, in the owner's namespace."""
    metadata = owner["metadata"]
    return {
        "namespace": metadata["namespace"],
        "ownerReferences": [
            {
                "apiVersion": owner["apiVersion"],
                "kind": owner["kind"],
                "name": metadata["name"],
                "uid": metadata["uid"],
                "controller": True,
                "blockOwnerDeletion": False,
            }
        ],
    }
