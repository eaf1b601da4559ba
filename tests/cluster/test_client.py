"""The client against a real API server: every verb, and every refusal by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from shashin.errors import (
    KubernetesConflict,
    KubernetesForbidden,
    KubernetesInvalid,
    KubernetesNotFound,
    KubernetesUnauthenticated,
    KubernetesUnavailable,
)
from shashin.kube.client import KubeClient
from shashin.kube.credentials import KubeconfigCredentials, PodCredentials
from shashin.kube.resource import Resource, key_of, version_of
from shashin.kube.resources import CONFIG_MAPS, SERVICES
from tests.support.api_proxy import ApiProxy
from tests.support.kube_objects import ROLE_BINDINGS, ROLES, SERVICE_ACCOUNTS, config_map
from tests.support.waiting import until


async def test_an_object_is_created_read_and_deleted(client: KubeClient, namespace: str) -> None:
    created = await client.create(CONFIG_MAPS, config_map("one", a="1"), namespace=namespace)
    assert created["data"] == {"a": "1"}
    read = await client.get(CONFIG_MAPS, "one", namespace=namespace)
    assert (read["metadata"]["uid"], version_of(read)) == (
        created["metadata"]["uid"],
        version_of(created),
    )
    await client.delete(CONFIG_MAPS, "one", namespace=namespace)
    with pytest.raises(KubernetesNotFound, match="get configmaps 'one' in namespace"):
        await client.get(CONFIG_MAPS, "one", namespace=namespace)


async def test_a_second_create_of_a_name_is_a_conflict(client: KubeClient, namespace: str) -> None:
    await client.create(CONFIG_MAPS, config_map("one"), namespace=namespace)
    with pytest.raises(KubernetesConflict, match=r"create configmaps 'one'.*already exists"):
        await client.create(CONFIG_MAPS, config_map("one"), namespace=namespace)


async def test_a_list_has_every_page(client: KubeClient, namespace: str) -> None:
    names = {f"map-{number}" for number in range(7)}
    for name in names:
        await client.create(
            CONFIG_MAPS, config_map(name, labels={"of": "test"}), namespace=namespace
        )
    listed = await client.list(
        CONFIG_MAPS, namespace=namespace, label_selector="of=test", page_objects=3
    )
    assert {key_of(found) for found in listed.items} == {(namespace, name) for name in names}
    one = await client.list(CONFIG_MAPS, namespace=namespace, field_selector="metadata.name=map-3")
    assert [found["metadata"]["name"] for found in one.items] == ["map-3"]


async def test_a_replace_of_an_old_version_is_a_conflict(
    client: KubeClient, namespace: str
) -> None:
    old = await client.create(CONFIG_MAPS, config_map("one", a="1"), namespace=namespace)
    await client.replace(CONFIG_MAPS, {**old, "data": {"a": "2"}}, namespace=namespace)
    with pytest.raises(KubernetesConflict, match="the object has been modified"):
        await client.replace(CONFIG_MAPS, {**old, "data": {"a": "3"}}, namespace=namespace)


async def test_an_apply_twice_changes_nothing_and_a_field_left_out_is_removed(
    client: KubeClient, namespace: str
) -> None:
    first = await client.apply(
        CONFIG_MAPS, config_map("one", a="1", b="2"), manager="shashin", namespace=namespace
    )
    again = await client.apply(
        CONFIG_MAPS, config_map("one", a="1", b="2"), manager="shashin", namespace=namespace
    )
    assert version_of(again) == version_of(first)
    less = await client.apply(
        CONFIG_MAPS, config_map("one", a="1"), manager="shashin", namespace=namespace
    )
    assert less["data"] == {"a": "1"}


async def test_an_apply_of_another_managers_field_is_a_conflict_unless_it_is_forced(
    client: KubeClient, namespace: str
) -> None:
    await client.apply(CONFIG_MAPS, config_map("one", a="1"), manager="one", namespace=namespace)
    with pytest.raises(KubernetesConflict, match='conflicts with "one"'):
        await client.apply(
            CONFIG_MAPS,
            config_map("one", a="2"),
            manager="two",
            force=False,
            namespace=namespace,
        )
    taken = await client.apply(
        CONFIG_MAPS, config_map("one", a="2"), manager="two", namespace=namespace
    )
    assert taken["data"] == {"a": "2"}


async def test_a_status_is_patched_without_the_spec(client: KubeClient, namespace: str) -> None:
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "one"},
        "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]},
    }
    await client.create(SERVICES, service, namespace=namespace)
    condition = {
        "type": "Tested",
        "status": "True",
        "reason": "Test",
        "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    patched = await client.merge_patch(
        SERVICES,
        "one",
        {"status": {"conditions": [condition]}, "spec": {"ports": [{"port": 81}]}},
        namespace=namespace,
        subresource="status",
    )
    assert patched["status"]["conditions"] == [condition]
    assert [port["port"] for port in patched["spec"]["ports"]] == [80]


async def test_a_delete_is_refused_for_another_uid_or_version(
    client: KubeClient, namespace: str
) -> None:
    old = await client.create(CONFIG_MAPS, config_map("one", a="1"), namespace=namespace)
    new = await client.replace(CONFIG_MAPS, {**old, "data": {"a": "2"}}, namespace=namespace)
    with pytest.raises(KubernetesConflict, match="the UID in the precondition"):
        await client.delete(CONFIG_MAPS, "one", namespace=namespace, uid="another")
    with pytest.raises(KubernetesConflict, match="the ResourceVersion in the precondition"):
        await client.delete(
            CONFIG_MAPS, "one", namespace=namespace, resource_version=version_of(old)
        )
    await client.delete(
        CONFIG_MAPS,
        "one",
        namespace=namespace,
        uid=new["metadata"]["uid"],
        resource_version=version_of(new),
    )


async def test_an_invalid_object_is_refused_with_every_cause(
    client: KubeClient, namespace: str
) -> None:
    wrong = config_map("Not_A_Name")
    wrong["data"] = {"no key": "1"}
    with pytest.raises(KubernetesInvalid) as refused:
        await client.create(CONFIG_MAPS, wrong, namespace=namespace)
    assert "metadata.name: " in refused.value.message
    assert "data[no key]: " in refused.value.message


async def test_an_unknown_resource_is_not_found(client: KubeClient, namespace: str) -> None:
    with pytest.raises(KubernetesNotFound, match=r"list things\.shashin\.test"):
        await client.list(Resource("shashin.test", "v1", "things"), namespace=namespace)


async def test_a_watch_has_every_change_in_order(client: KubeClient, namespace: str) -> None:
    listed = await client.list(CONFIG_MAPS, namespace=namespace)
    async with client.watch(
        CONFIG_MAPS,
        listed.resource_version,
        namespace=namespace,
        field_selector="metadata.name=one",
        server_seconds=60,
        silence_seconds=60,
        total_seconds=60,
    ) as watched:
        created = await client.create(CONFIG_MAPS, config_map("one", a="1"), namespace=namespace)
        await client.create(CONFIG_MAPS, config_map("another"), namespace=namespace)
        await client.replace(CONFIG_MAPS, {**created, "data": {"a": "2"}}, namespace=namespace)
        await client.delete(CONFIG_MAPS, "one", namespace=namespace)
        seen = []
        async for event in watched:
            if event.kind != "BOOKMARK":
                seen.append((event.kind, event.object["data"]))
            if event.kind == "DELETED":
                break
    assert seen == [("ADDED", {"a": "1"}), ("MODIFIED", {"a": "2"}), ("DELETED", {"a": "2"})]


async def test_the_server_ends_a_watch_after_the_asked_time(
    client: KubeClient, namespace: str
) -> None:
    listed = await client.list(CONFIG_MAPS, namespace=namespace)
    async with client.watch(
        CONFIG_MAPS,
        listed.resource_version,
        namespace=namespace,
        label_selector="of=nothing",
        server_seconds=1,
        silence_seconds=60,
        total_seconds=60,
    ) as watched:
        assert [event async for event in watched if event.kind != "BOOKMARK"] == []


async def test_a_watch_from_a_version_that_never_was_is_refused(
    client: KubeClient, namespace: str
) -> None:
    watching = client.watch(
        CONFIG_MAPS,
        "not-a-version",
        namespace=namespace,
        server_seconds=5,
        silence_seconds=5,
        total_seconds=5,
    )
    # The server answers 500 instead of 400.
    with pytest.raises(KubernetesUnavailable, match="not-a-version"):
        await watching.__aenter__()


async def test_a_watch_that_hangs_is_noticed(
    through: KubeClient, proxy: ApiProxy, namespace: str
) -> None:
    listed = await through.list(CONFIG_MAPS, namespace=namespace)
    async with through.watch(
        CONFIG_MAPS,
        listed.resource_version,
        namespace=namespace,
        label_selector="of=nothing",
        server_seconds=240,
        silence_seconds=1,
        total_seconds=270,
    ) as watched:
        proxy.hang()
        with pytest.raises(KubernetesUnavailable, match="watch configmaps in namespace"):
            async for _ in watched:
                pass


async def test_a_connection_that_is_refused_or_cut_is_unavailable(
    through: KubeClient, proxy: ApiProxy, namespace: str
) -> None:
    await through.list(CONFIG_MAPS, namespace=namespace)
    proxy.refuse()
    with pytest.raises(KubernetesUnavailable, match="list configmaps in namespace"):
        await through.list(CONFIG_MAPS, namespace=namespace)
    proxy.come_back()
    await through.list(CONFIG_MAPS, namespace=namespace)


# --- as a pod -------------------------------------------------------------------------------------


class Pod:
    """The files and variables of a pod's service account, with a token of the real cluster."""

    def __init__(self, kubeconfig: Path, namespace: str, folder: Path, authority: str) -> None:
        config = yaml.safe_load(kubeconfig.read_text())
        (cluster,) = [entry["cluster"] for entry in config["clusters"]]
        self.folder = folder
        folder.mkdir()
        (folder / "namespace").write_text(namespace)
        (folder / "ca.crt").write_text(authority)
        host, _, port = cluster["server"].removeprefix("https://").rpartition(":")
        self.environment = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}

    def write_token(self, token: str) -> None:
        """Replace the token as the kubelet does: by a rename."""
        new = self.folder / "token.new"
        new.write_text(token)
        new.rename(self.folder / "token")

    def client(self) -> KubeClient:
        """Return a client in this pod."""
        return KubeClient(PodCredentials(self.folder, self.environment))


async def authority_of(client: KubeClient, namespace: str) -> str | None:
    """Return the certificates that the kubelet mounts into pods, once they are there."""
    try:
        found = await client.get(CONFIG_MAPS, "kube-root-ca.crt", namespace=namespace)
    except KubernetesNotFound:
        return None
    return str(found["data"]["ca.crt"])


async def token_of(client: KubeClient, namespace: str, account: str) -> str:
    """Return a token as the kubelet asks for it."""
    request = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "metadata": {"name": account},
        "spec": {"expirationSeconds": 600},
    }
    made = await client._send(  # the only subresource that is created
        "POST",
        (await client._request("get", SERVICE_ACCOUNTS, namespace, account, "token")),
        body=request,
    )
    return str(made["status"]["token"])


@pytest.fixture
async def pod(client: KubeClient, namespace: str, kubeconfig: Path, tmp_path: Path) -> Pod:
    """A pod whose service account may only read ConfigMaps."""
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "reader"}}
    await client.create(SERVICE_ACCOUNTS, account, namespace=namespace)
    role = {
        "apiVersion": ROLES.api_version,
        "kind": "Role",
        "metadata": {"name": "reader"},
        "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list"]}],
    }
    await client.create(ROLES, role, namespace=namespace)
    binding = {
        "apiVersion": ROLE_BINDINGS.api_version,
        "kind": "RoleBinding",
        "metadata": {"name": "reader"},
        "roleRef": {"apiGroup": ROLES.group, "kind": "Role", "name": "reader"},
        "subjects": [{"kind": "ServiceAccount", "name": "reader", "namespace": namespace}],
    }
    await client.create(ROLE_BINDINGS, binding, namespace=namespace)
    authority = await until(lambda: authority_of(client, namespace), "the namespace has its files")
    pod = Pod(kubeconfig, namespace, tmp_path / "serviceaccount", authority)
    pod.write_token(await token_of(client, namespace, "reader"))
    return pod


async def allowed(client: KubeClient) -> bool:
    # A new role takes a moment to reach the authorizer.
    try:
        await client.list(CONFIG_MAPS)
    except KubernetesForbidden:
        return False
    return True


async def test_a_pod_reads_its_own_namespace_with_its_token(pod: Pod, namespace: str) -> None:
    inside = pod.client()
    await until(lambda: allowed(inside), "the role is known")
    assert await inside.namespace() == namespace
    listed = await inside.list(CONFIG_MAPS)
    assert {key_of(found)[0] for found in listed.items} <= {namespace}
    await inside.close()


async def test_what_rbac_does_not_allow_is_named(pod: Pod, namespace: str) -> None:
    inside = pod.client()
    await until(lambda: allowed(inside), "the role is known")
    with pytest.raises(KubernetesForbidden) as refused:
        await inside.delete(CONFIG_MAPS, "one")
    assert (
        f"grant the verb 'delete' on 'configmaps' of API group '' in a Role of namespace "
        f"{namespace!r}" in refused.value.message
    )
    await inside.close()


async def test_a_token_that_the_kubelet_replaced_is_used_at_once(
    pod: Pod, client: KubeClient, namespace: str
) -> None:
    good = (pod.folder / "token").read_text()
    inside = pod.client()
    await until(lambda: allowed(inside), "the role is known")
    pod.write_token("expired")
    with pytest.raises(KubernetesUnauthenticated, match="does not accept the credentials"):
        await inside.list(CONFIG_MAPS)
    pod.write_token(good)
    await inside.list(CONFIG_MAPS)
    await inside.close()


async def test_a_pod_whose_token_is_missing_is_told_so(pod: Pod) -> None:
    (pod.folder / "token").unlink()
    inside = pod.client()
    with pytest.raises(KubernetesUnavailable, match="cannot read the pod's service account"):
        await inside.list(CONFIG_MAPS)
    await inside.close()


async def test_a_credential_plugin_is_run_again_when_its_token_is_refused(
    client: KubeClient, namespace: str, kubeconfig: Path, tmp_path: Path, pod: Pod
) -> None:
    config = yaml.safe_load(kubeconfig.read_text())  # noqa: ASYNC240  (nothing else runs)
    plugin = tmp_path / "plugin"
    plugin.write_text(
        '#!/bin/sh\necho run >> "$0.runs"\n'
        'printf \'{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential",'
        '"status":{"token":"%s"}}\' "$(cat "$0.token")"\n'
    )
    plugin.chmod(0o700)
    config["users"][0]["user"] = {
        "exec": {
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": str(plugin),
            "interactiveMode": "Never",
        }
    }
    config["contexts"][0]["context"]["namespace"] = namespace
    written = tmp_path / "exec.yaml"
    written.write_text(json.dumps(config))
    (tmp_path / "plugin.token").write_text("expired")
    user = KubeClient(KubeconfigCredentials(str(written)))
    with pytest.raises(KubernetesUnauthenticated):
        await user.list(CONFIG_MAPS)
    (tmp_path / "plugin.token").write_text((pod.folder / "token").read_text())
    await until(lambda: allowed(user), "the role is known")
    assert len((tmp_path / "plugin.runs").read_text().splitlines()) == 3
    assert await user.namespace() == namespace
    await user.close()
