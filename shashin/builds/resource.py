"""IndexBuilds as objects of Kubernetes: read, and made of documents. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from pydantic import ValidationError

from shashin.builds.document import KIND, IndexBuild, parse_build
from shashin.builds.resource_status import IndexBuildStatus
from shashin.documents.parts import API_VERSION
from shashin.kube.resource import KubeObject

FORM: Final = "kubernetes:///NAMESPACE"
"""URI of the IndexBuilds of a namespace; without one, of the pod's own or the kubeconfig context's."""

RETRY_ANNOTATION: Final = "shashin.dev/retry"
"""Any value that it did not have before runs a build that has failed or was cancelled again."""

CANCEL_ANNOTATION: Final = "shashin.dev/cancel"
"""``true`` ends a build, and keeps one from beginning."""


def build_of(found: KubeObject, *, now: datetime | None = None) -> IndexBuild:
    """Return the document of an object; with ``now``, its window has to be over.

    Raises:
        UserError: if it is not valid, though the API server took it.
    """
    metadata = found["metadata"]
    document = {
        "apiVersion": found.get("apiVersion", API_VERSION),
        "kind": found.get("kind", KIND),
        "metadata": {"name": metadata["name"], "labels": metadata.get("labels") or {}},
        "spec": found.get("spec"),
    }
    return parse_build(document, origin=f"{KIND} {metadata['name']}", now=now)


def status_of(found: KubeObject) -> IndexBuildStatus:
    """Return the status of an object, that of a new one if it has none that this version reads."""
    try:
        return IndexBuildStatus.model_validate(found.get("status") or {})
    except ValidationError:
        return IndexBuildStatus()


def annotation(found: KubeObject, name: str) -> str:
    """Return the value of an annotation; empty if it is not there."""
    value: str = (found["metadata"].get("annotations") or {}).get(name, "")
    return value


def object_of(build: IndexBuild) -> KubeObject:
    """Return the object of a document."""
    return build.document()
