"""The definitions of custom resources, and what the API server checks of them."""

from __future__ import annotations

from pathlib import Path

import yaml

from shashin.kube.client import KubeClient
from shashin.kube.resource import Resource
from tests.support.waiting import until

K8S = Path(__file__).parents[2] / "k8s"
DEFINITIONS = Resource("apiextensions.k8s.io", "v1", "customresourcedefinitions")

_KINDS = {
    "CustomResourceDefinition": DEFINITIONS,
    **{
        kind: Resource("admissionregistration.k8s.io", "v1", plural)
        for kind, plural in (
            ("ValidatingAdmissionPolicy", "validatingadmissionpolicies"),
            ("ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings"),
        )
    },
}


async def apply_definitions(client: KubeClient) -> None:
    """Define them as this checkout has them, for the whole cluster; they stay, for other tests."""
    files = [*(K8S / "crds").glob("index*.yaml"), K8S / "base" / "deletion-policy.yaml"]
    for path in files:
        for one in yaml.safe_load_all(path.read_text(encoding="utf-8")):
            resource, name = _KINDS[one["kind"]], one["metadata"]["name"]
            await client.apply(resource, one, manager="test", namespace=None)
            if resource == DEFINITIONS:
                await _established(client, name)


async def _established(client: KubeClient, name: str) -> None:
    async def established() -> bool:
        found = await client.get(DEFINITIONS, name, namespace=None)
        conditions = found.get("status", {}).get("conditions") or ()
        return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)

    await until(established, f"{name} is established")
