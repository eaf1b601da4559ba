"""The resources of Kubernetes that this project reads and writes."""

from __future__ import annotations

from typing import Final

from shashin.kube.resource import Resource

CONFIG_MAPS: Final = Resource("", "v1", "configmaps")
DEPLOYMENTS: Final = Resource("apps", "v1", "deployments")
DISRUPTION_BUDGETS: Final = Resource("policy", "v1", "poddisruptionbudgets")
ENDPOINT_SLICES: Final = Resource("discovery.k8s.io", "v1", "endpointslices")
EVENTS: Final = Resource("", "v1", "events")
JOBS: Final = Resource("batch", "v1", "jobs")
LEASES: Final = Resource("coordination.k8s.io", "v1", "leases")
PODS: Final = Resource("", "v1", "pods")
SERVICES: Final = Resource("", "v1", "services")

INDEX_BUILDS: Final = Resource("shashin.dev", "v1alpha1", "indexbuilds")
INDEX_SERVINGS: Final = Resource("shashin.dev", "v1alpha1", "indexservings")
