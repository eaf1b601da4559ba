"""The resources of Kubernetes that the controller reads and writes."""

from __future__ import annotations

from shashin.kube.resource import Resource

INDEX_SERVINGS = Resource("shashin.dev", "v1alpha1", "indexservings")
DEPLOYMENTS = Resource("apps", "v1", "deployments")
SERVICES = Resource("", "v1", "services")
DISRUPTION_BUDGETS = Resource("policy", "v1", "poddisruptionbudgets")
JOBS = Resource("batch", "v1", "jobs")
CONFIG_MAPS = Resource("", "v1", "configmaps")
PODS = Resource("", "v1", "pods")
EVENTS = Resource("", "v1", "events")

MANAGER = "shashin-controller"
"""Owns the fields that the controller applies."""
