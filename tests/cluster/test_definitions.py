"""The API server accepts the definitions and the manifests, and refuses what a reader refuses."""

from __future__ import annotations

import copy
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from shashin.errors import KubernetesInvalid
from shashin.kube.client import KubeClient
from shashin.kube.resources import INDEX_BUILDS, INDEX_SERVINGS
from tests.support.definitions import apply_definitions
from tests.support.kube_objects import NAMESPACES
from tests.support.serving_documents import DOCUMENT, WRONG, changed

K8S = Path(__file__).parents[2] / "k8s"

BUILD: dict[str, Any] = {
    "apiVersion": "shashin.dev/v1alpha1",
    "kind": "IndexBuild",
    "metadata": {"name": "demo"},
    "spec": {
        "model": "demo-v1",
        "dimensions": 128,
        "tier": "daily",
        "window": {"start": "2026-11-26T00:00:00Z", "end": "2026-11-27T00:00:00Z"},
        "source": {"shards": ["demo-v1.hourly.p0000.000000000000-000000000005"]},
    },
}


@pytest.fixture
async def defined(client: KubeClient) -> KubeClient:
    """A cluster that has the definitions; they stay, since other tests may use them."""
    await apply_definitions(client)
    return client


async def test_a_serving_is_stored_with_its_defaults(defined: KubeClient, namespace: str) -> None:
    stored = await defined.create(INDEX_SERVINGS, DOCUMENT, namespace=namespace)
    assert stored["spec"]["replicas"] == 2
    assert stored["spec"]["shards"] == DOCUMENT["spec"]["shards"]


@pytest.mark.parametrize(("path", "value"), [(path, value) for path, value, _ in WRONG])
async def test_what_a_reader_refuses_is_refused(
    defined: KubeClient, namespace: str, path: str, value: object
) -> None:
    with pytest.raises(KubernetesInvalid):
        await defined.create(INDEX_SERVINGS, changed(path, value), namespace=namespace)


async def test_what_a_serving_is_of_cannot_be_changed(defined: KubeClient, namespace: str) -> None:
    stored = await defined.create(INDEX_SERVINGS, DOCUMENT, namespace=namespace)
    stored["spec"]["tier"] = "monthly"
    with pytest.raises(KubernetesInvalid, match="tier cannot be changed: create another object"):
        await defined.replace(INDEX_SERVINGS, stored, namespace=namespace)
    stored["spec"] |= {"tier": "daily", "replicas": 3}
    await defined.replace(INDEX_SERVINGS, stored, namespace=namespace)


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("window", {"start": "2026-11-27T00:00:00Z", "end": "2026-11-27T00:00:00Z"}, "end must be"),
        ("source", {"shards": ["s"], "reindex": {"fromModel": "m"}}, "exactly one of shards and"),
        ("source", {}, "exactly one of shards and"),
        ("pipeline", [{"name": "select"}], "every pipeline has select, fetch"),
        ("pipeline", [{"name": "mine"}], "every other step needs one"),
        ("minimumRecall", 1.5, "minimumRecall"),
        ("index", {"kind": "faiss"}, "spec.index.kind"),
    ],
)
async def test_a_build_that_makes_no_sense_is_refused(
    defined: KubeClient, namespace: str, key: str, value: object, problem: str
) -> None:
    build = copy.deepcopy(BUILD)
    build["spec"][key] = value
    with pytest.raises(KubernetesInvalid, match=problem):
        await defined.create(INDEX_BUILDS, build, namespace=namespace)


async def test_a_build_is_stored(defined: KubeClient, namespace: str) -> None:
    stored = await defined.create(INDEX_BUILDS, BUILD, namespace=namespace)
    assert stored["spec"]["minimumRecall"] == 0.98


async def test_the_manifests_are_accepted_without_a_warning(
    kubeconfig: Path, defined: KubeClient, namespace: str, tmp_path: Path
) -> None:
    restricted = {"pod-security.kubernetes.io/warn": "restricted"}
    labels = {"metadata": {"labels": restricted}}
    await defined.merge_patch(NAMESPACES, namespace, labels, namespace=None)
    manifests = [
        manifest
        for manifest in yaml.safe_load_all(kubectl("kustomize", K8S / "overlays" / "lab").stdout)
        # Those of the whole cluster are defined already.
        if manifest["kind"] not in {"Namespace", "CustomResourceDefinition"}
        and not manifest["kind"].startswith("ValidatingAdmissionPolicy")
    ]
    for manifest in manifests:
        manifest["metadata"]["namespace"] = namespace
    path = tmp_path / "manifests.yaml"
    path.write_text(yaml.safe_dump_all(manifests), encoding="utf-8")
    applied = kubectl(
        *("--kubeconfig", kubeconfig, "apply", "--server-side", "--dry-run=server"),
        *("--validate=strict", "-f", path),
    )
    assert applied.stderr == ""
    assert len(applied.stdout.splitlines()) == len(manifests) > 20


def kubectl(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["kubectl", *map(str, arguments)], capture_output=True, text=True, check=False
    )
