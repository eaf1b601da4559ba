"""The manifests of Kubernetes: they build, and every pod keeps to the same rules."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.router.settings import RouterSettings

ROOT = Path(__file__).parents[2] / "k8s"
OVERLAYS = sorted(path.parent.name for path in ROOT.glob("overlays/*/kustomization.yaml"))


@pytest.fixture(scope="module", params=OVERLAYS)
def objects(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    """All objects of an overlay."""
    if shutil.which("kubectl") is None:
        pytest.skip("needs kubectl")
    built = subprocess.run(
        ["kubectl", "kustomize", str(ROOT / "overlays" / request.param)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert not built.returncode, built.stderr
    return list(yaml.safe_load_all(built.stdout))


def pods(objects: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    for one in objects:
        name = f"{one['kind']} {one['metadata']['name']}"
        if one["kind"] in {"Deployment", "StatefulSet"}:
            yield name, one["spec"]["template"]["spec"]
        elif one["kind"] == "CronJob":
            yield name, one["spec"]["jobTemplate"]["spec"]["template"]["spec"]


def test_no_pod_has_rights_that_it_does_not_need(objects: list[dict[str, Any]]) -> None:
    found = dict(pods(objects))
    assert {"Deployment controller", "Deployment router", "StatefulSet indexer"} <= found.keys()
    for name, pod in found.items():
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert pod["serviceAccountName"] != "default", name
        for container in [*pod.get("initContainers", ()), *pod["containers"]]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False, name
            assert context["readOnlyRootFilesystem"] is True, name
            assert context["capabilities"] == {"drop": ["ALL"]}, name
            assert container["resources"]["requests"].keys() >= {"cpu", "memory"}, name


def test_only_pods_that_speak_to_the_api_server_have_a_token(objects: list[dict[str, Any]]) -> None:
    bound = {
        subject["name"]
        for one in objects
        if one["kind"] == "RoleBinding"
        for subject in one["subjects"]
    }
    for name, pod in pods(objects):
        has_token = pod["automountServiceAccountToken"]
        assert has_token == (pod["serviceAccountName"] in bound), name


def test_no_role_may_do_anything(objects: list[dict[str, Any]]) -> None:
    for one in objects:
        assert one["kind"] not in {"ClusterRole", "ClusterRoleBinding"}
        for rule in one["rules"] if one["kind"] == "Role" else ():
            assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
            assert "secrets" not in rule["resources"]


def test_what_callers_are_told_of_goes_on_until_they_have_heard(
    objects: list[dict[str, Any]],
) -> None:
    for name, pod in pods(objects):
        for container in pod["containers"]:
            if any(port.get("name") == "grpc" for port in container.get("ports", ())):
                assert container["lifecycle"]["preStop"]["sleep"]["seconds"] >= 1, name


def test_all_service_accounts_exist(objects: list[dict[str, Any]]) -> None:
    accounts = {one["metadata"]["name"] for one in objects if one["kind"] == "ServiceAccount"}
    assert {pod["serviceAccountName"] for _, pod in pods(objects)} <= accounts
    assert "index-server" in accounts


def test_variables_are_defined_before_they_are_used(objects: list[dict[str, Any]]) -> None:
    used = 0
    for name, pod in pods(objects):
        for container in [*pod.get("initContainers", ()), *pod["containers"]]:
            defined: set[str] = set()
            for one in container.get("env", ()):
                names = re.findall(r"\$\((\w+)\)", one.get("value", ""))
                # Kubernetes leaves a reference to a later variable as it is.
                assert set(names) <= defined, f"{name}: {one}"
                used += len(names)
                defined.add(one["name"])
    assert used


def test_the_router_finds_its_certificates_and_keys_where_the_components_mount_them(
    tmp_path: Path,
) -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("needs kubectl")
    root = os.path.relpath(ROOT, tmp_path.resolve())
    (tmp_path / "kustomization.yaml").write_text(
        yaml.safe_dump(
            {
                "resources": [f"{root}/overlays/lab"],
                "components": [f"{root}/components/{name}" for name in ("tls", "api-keys")],
            }
        )
    )
    built = subprocess.run(
        ["kubectl", "kustomize", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert not built.returncode, built.stderr
    made = list(yaml.safe_load_all(built.stdout))
    pod = dict(pods(made))["Deployment router"]
    (container,) = pod["containers"]
    environment = {one["name"]: one.get("value") for one in container["env"]}
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    files = {
        "SHASHIN_TLS_CERTIFICATE_FILE": ("router-tls", "tls.crt"),
        "SHASHIN_TLS_KEY_FILE": ("router-tls", "tls.key"),
        "SHASHIN_ACCEPTED_KEYS_FILE": ("router-keys", "keys.json"),
    }
    for variable, (secret, file) in files.items():
        path = Path(environment[variable] or "")
        mount = mounts[str(path.parent)]
        assert path.name == file
        # A file that is mounted alone would never change.
        assert "subPath" not in mount
        assert volumes[mount["name"]]["secret"]["secretName"] == secret
        assert variable.removeprefix("SHASHIN_").lower() in RouterSettings.model_fields
    for one in made:
        if one["kind"] == "Service" and one["metadata"]["name"].startswith("router"):
            assert "appProtocol" not in one["spec"]["ports"][0]
