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

from services.canary.settings import CanarySettings
from services.router.settings import RouterSettings
from shashin.rpc.router_address import RouterAddress
from shashin.runtime.settings import load_settings

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


def built(folder: Path, *components: str) -> list[dict[str, Any]]:
    """Return all objects of the smallest overlay with some components."""
    if shutil.which("kubectl") is None:
        pytest.skip("needs kubectl")
    root = os.path.relpath(ROOT, folder.resolve())
    (folder / "kustomization.yaml").write_text(
        yaml.safe_dump(
            {
                "resources": [f"{root}/overlays/lab"],
                "components": [f"{root}/components/{name}" for name in components],
            }
        )
    )
    made = subprocess.run(
        ["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=False
    )
    assert not made.returncode, made.stderr
    return list(yaml.safe_load_all(made.stdout))


def test_the_router_finds_its_certificates_and_keys_where_the_components_mount_them(
    tmp_path: Path,
) -> None:
    made = built(tmp_path, "tls", "api-keys")
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


@pytest.mark.parametrize("components", [(), ("tls",), ("api-keys",), ("tls", "api-keys")])
def test_the_canary_calls_routers_as_they_want_to_be_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, components: tuple[str, ...]
) -> None:
    pod = dict(pods(built(tmp_path, "canary", *components)))["Deployment canary"]
    (container,) = pod["containers"]
    for name in [name for name in os.environ if name.startswith("SHASHIN_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SHASHIN_PHOTOS", "gs://bucket/canary")
    for one in container["env"]:
        monkeypatch.setenv(one["name"], one["value"])
    settings = load_settings(CanarySettings)
    address = RouterAddress.parsed(settings.router)
    assert address.with_tls == ("tls" in components)
    assert "router-pods" in address.target, "all routers, by the Service without an address"
    # What it reads of Secrets, by the path that the setting names.
    read = {}
    for mount in container["volumeMounts"]:
        (volume,) = (one for one in pod["volumes"] if one["name"] == mount["name"])
        if "secret" not in volume:
            continue
        # A file that is mounted alone would never change.
        assert "subPath" not in mount
        secret = volume["secret"]
        assert pod["securityContext"]["fsGroup"] == pod["securityContext"]["runAsUser"]
        for path in filter(None, (settings.router_ca_file, settings.api_key_file)):
            if path.parent == Path(mount["mountPath"]):
                read[path] = secret["secretName"], [i["key"] for i in secret.get("items", ())]
    expected = {}
    if "tls" in components:
        # Of the routers' Secret, not their private key.
        expected[settings.router_ca_file] = "router-tls", ["ca.crt"]
    if "api-keys" in components:
        expected[settings.api_key_file] = "canary-key", []
    assert read == expected
    assert (settings.router_ca_file is None) == ("tls" not in components)
    assert (settings.api_key_file is None) == ("api-keys" not in components)


def test_a_name_of_the_certificate_is_the_one_that_the_canary_calls(tmp_path: Path) -> None:
    made = built(tmp_path, "canary", "tls")
    (container,) = dict(pods(made))["Deployment canary"]["containers"]
    (router,) = (one["value"] for one in container["env"] if one["name"] == "SHASHIN_ROUTER")
    (service,) = (
        one for one in made if one["kind"] == "Service" and one["metadata"]["name"] == "router-pods"
    )
    names = service["metadata"]
    (port,) = (one["port"] for one in service["spec"]["ports"] if one["name"] == "grpc")
    assert router == f"grpcs://{names['name']}.{names['namespace']}.svc:{port}"
