"""Images with shards, pushed to real registries, and read by the tools that others use."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
from contextlib import aclosing
from pathlib import Path

import pytest

from shashin.errors import CorruptShard, UnusableImage, UserError
from shashin.index_images.annotations import SHARDS, SOURCE_RANGES, image_tag
from shashin.index_images.garbage import delete_unused, stored_images
from shashin.index_images.publish import publish_image, pull_image
from shashin.index_images.shard_layer import ShardSource, in_folder, in_store
from shashin.objectstore.file import FileObjectStore
from shashin.oci.access import RegistryAccess
from shashin.oci.descriptor import read_descriptor
from shashin.oci.image import Platform
from shashin.oci.references import Reference, Repository
from shashin.oci.registry import RegistryClient
from shashin.repository.repository import ModelRepository, StoredShard
from shashin.shards.format.manifest import MANIFEST_FILE, Manifest
from shashin.shards.sealed_shard import SealedShard
from tests.support.made_images import push_base, push_index
from tests.support.made_shards import WatchedStore, commit, listings, object_key, open_shard
from tests.support.oci_registry import PASSWORD, USER, RegistryServer, needs_registry

pytestmark = needs_registry

CRANE_VARIABLE = "SHASHIN_TEST_CRANE"
"""Path of the program crane of github.com/google/go-containerregistry."""

needs_crane = pytest.mark.skipif(
    CRANE_VARIABLE not in os.environ,
    reason=f"{CRANE_VARIABLE} is not set: go install github.com/google/go-containerregistry/cmd/crane",
)
needs_skopeo = pytest.mark.skipif(
    shutil.which("skopeo") is None, reason="skopeo is not installed: apt-get install skopeo"
)


@pytest.fixture
def store(tmp_path: Path) -> WatchedStore:
    return WatchedStore(tmp_path / "store")


@pytest.fixture
async def stored(store: FileObjectStore, tmp_path: Path) -> list[StoredShard]:
    """Three shards in a model repository."""
    repository = ModelRepository(store)
    return [
        await commit(
            repository,
            open_shard(listings(first, first + 5), from_offset=first),
            tmp_path / "scratch",
        )
        for first in (0, 5, 10)
    ]


@pytest.fixture
def sources(store: FileObjectStore, stored: list[StoredShard]) -> list[ShardSource]:
    return [in_store(shard.manifest, store) for shard in stored]


@pytest.fixture
def target(repository: Repository) -> Repository:
    return Repository(repository.registry, f"{repository.path}-shards")


async def files_of(client: RegistryClient, repository: Repository, digest: str) -> dict[str, bytes]:
    """Return all files of an image, with later layers over earlier ones."""
    found = {}
    manifest = json.loads((await client.manifest(Reference(repository, digest=digest))).data)
    for layer in manifest["layers"]:
        data = await _blob(client, repository, layer)
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            for member in tar:
                if member.isfile():
                    content = tar.extractfile(member)
                    assert content is not None
                    found[member.name] = content.read()
    return found


async def test_an_image_has_its_base_and_every_shard_as_it_was_sealed(
    client: RegistryClient,
    repository: Repository,
    target: Repository,
    sources: list[ShardSource],
    tmp_path: Path,
) -> None:
    base = await push_base(client, repository)
    published = await publish_image(client, base, sources, target, "v1")
    assert published.reference.digest is not None
    found = await files_of(client, target, published.reference.digest)
    assert found["app/index-server"] == b"#!/bin/sh\n"
    for source in sources:
        prefix = f"indexes/{source.manifest.shard_id}/"
        folder = tmp_path / "out" / source.manifest.shard_id
        folder.mkdir(parents=True)
        for name, data in found.items():
            if name.startswith(prefix):
                (folder / name.removeprefix(prefix)).write_bytes(data)
        manifest = Manifest.from_json(
            (folder / MANIFEST_FILE).read_bytes(), key=source.manifest.key
        )
        assert manifest == source.manifest
        assert SealedShard(manifest, folder).rows == manifest.rows


async def test_the_same_shards_and_base_give_the_same_image(
    client: RegistryClient,
    repository: Repository,
    target: Repository,
    store: FileObjectStore,
    stored: list[StoredShard],
    tmp_path: Path,
) -> None:
    base = await push_base(client, repository)
    streamed = [in_store(shard.manifest, store) for shard in stored]
    models = ModelRepository(store)
    fetched = [
        in_folder(shard.manifest, await models.fetch(shard, tmp_path / "cache"))
        for shard in reversed(stored)
    ]
    first = await publish_image(client, base, streamed, target, "v1")
    second = await publish_image(client, base, fetched, target, "v2")
    elsewhere = Repository(target.registry, f"{target.path}-elsewhere")
    third = await publish_image(client, base, streamed, elsewhere, "v3")
    digests = {image.reference.digest for image in (first, second, third)}
    assert len(digests) == 1
    assert second.sent_bytes == 0


async def test_nothing_is_read_of_shards_that_the_previous_image_has(
    client: RegistryClient,
    repository: Repository,
    target: Repository,
    store: WatchedStore,
    stored: list[StoredShard],
) -> None:
    base = await push_base(client, repository)
    sources = [in_store(shard.manifest, store) for shard in stored]
    previous = await publish_image(client, base, sources[:2], target, "v1")
    store.streams.clear()
    new = await publish_image(client, base, sources, target, "v2", previous=previous.reference)
    assert {key.split("/")[-2] for key in store.streams} == {stored[2].manifest.shard_id}
    assert new.reused_layers == 2
    full = await publish_image(client, base, sources, target, "v3")
    assert full.reference.digest == new.reference.digest


async def test_blobs_of_the_base_are_mounted(
    client: RegistryClient, repository: Repository, target: Repository, sources: list[ShardSource]
) -> None:
    base = await push_base(client, repository)
    its_base = await pull_image(client, base)
    published = await publish_image(client, base, sources, target, "v1")
    image = await pull_image(client, published.reference)
    own = sum(layer.size for layer in image.layers[len(its_base.layers) :])
    assert published.sent_bytes == own + image.config.size


async def test_a_base_of_another_registry_is_copied(
    plain: RegistryServer, tmp_path: Path, sources: list[ShardSource]
) -> None:
    other = RegistryServer(tmp_path / "other")
    try:
        await other.start()
        both = RegistryAccess(plain_http=frozenset({plain.address, other.address}))
        async with RegistryClient(both) as client:
            base = await push_base(client, Repository(other.address, "base"))
            target = Repository(plain.address, "shop/a")
            published = await publish_image(client, base, sources, target, "v1")
            assert published.reference.digest is not None
            found = await files_of(client, target, published.reference.digest)
            assert found["app/index-server"] == b"#!/bin/sh\n"
    finally:
        await other.close()


@pytest.mark.parametrize("docker", [False, True])
async def test_of_an_index_the_platforms_image_is_the_base(
    client: RegistryClient,
    repository: Repository,
    target: Repository,
    sources: list[ShardSource],
    docker: bool,
) -> None:
    images = {
        architecture: await push_base(
            client, repository, tag=architecture, docker=docker, architecture=architecture
        )
        for architecture in ("arm64", "amd64")
    }
    index = await push_index(client, repository, images, docker=docker)
    arm = Platform("linux", "arm64")
    published = await publish_image(client, index, sources, target, "arm", platform=arm)
    image = await pull_image(client, published.reference)
    assert image.document["architecture"] == "arm64"
    assert image.annotations[SHARDS].split(",") == [s.manifest.shard_id for s in sources]
    assert image.annotations[SOURCE_RANGES] == "0:0-15"
    with pytest.raises(UnusableImage, match="only for linux/amd64, linux/arm64"):
        await publish_image(
            client, index, sources, target, "s390x", platform=Platform("linux", "s390x")
        )


async def test_a_base_for_another_platform_is_refused(
    client: RegistryClient, repository: Repository, target: Repository, sources: list[ShardSource]
) -> None:
    base = await push_base(client, repository, architecture="arm64")
    with pytest.raises(UnusableImage, match=r"is for linux/arm64: expected .* linux/amd64"):
        await publish_image(client, base, sources, target, "v1")


async def test_a_damaged_shard_is_never_tagged(
    client: RegistryClient,
    repository: Repository,
    target: Repository,
    store: WatchedStore,
    stored: list[StoredShard],
) -> None:
    base = await push_base(client, repository)
    key = object_key(stored[0], "rows.arrow")
    data, _ = await store.read(key)
    await store.write(key, data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(CorruptShard, match=f"rows.arrow of shard {stored[0].manifest.shard_id}"):
        await publish_image(
            client, base, [in_store(s.manifest, store) for s in stored], target, "v1"
        )
    await store.delete(key)
    with pytest.raises(CorruptShard, match=f"{key} is missing"):
        await publish_image(
            client, base, [in_store(s.manifest, store) for s in stored], target, "v1"
        )
    assert await client.tags(target) == []


async def test_an_image_needs_shards_of_one_tier(
    client: RegistryClient, repository: Repository, target: Repository, sources: list[ShardSource]
) -> None:
    base = await push_base(client, repository)
    with pytest.raises(UserError, match="without a shard"):
        await publish_image(client, base, [], target, "v1")
    with pytest.raises(UserError, match="the same shard twice"):
        await publish_image(client, base, [sources[0], sources[0]], target, "v1")


async def test_only_unused_old_images_are_deleted(
    client: RegistryClient, repository: Repository, target: Repository, sources: list[ShardSource]
) -> None:
    base = await push_base(client, repository)
    now, day = 1_800_000_000.0, 86_400.0
    ages = {"used": 9 * day, "old": 9 * day, "young": day / 2}
    published = {
        name: (
            await publish_image(
                client,
                base,
                [source],
                target,
                image_tag("hourly", number, "1" * 32, now - ages[name]),
            )
        ).reference.digest
        for number, (name, source) in enumerate(zip(ages, sources, strict=True))
    }
    kept = await publish_image(client, base, sources, target, "of-somebody-else")
    assert published["used"] is not None
    deleted = await delete_unused(client, target, {published["used"]}, now=now, grace_seconds=day)
    assert [image.digest for image in deleted] == [published["old"]]
    left = {image.digest for image in await stored_images(client, target)}
    assert left == {published["used"], published["young"], kept.reference.digest}


async def run(*command: str, server: RegistryServer) -> None:
    """Run a tool that takes its login from DOCKER_CONFIG."""
    folder = server.docker_config(server.address)
    done = await asyncio.to_thread(
        subprocess.run,
        command,
        env={
            **os.environ,
            "DOCKER_CONFIG": str(folder),
            "REGISTRY_AUTH_FILE": str(folder / "config.json"),
            "SSL_CERT_FILE": str(server.ca_file),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@needs_crane
@pytest.mark.parametrize("docker", [False, True])
async def test_crane_exports_every_shard_as_it_was_sealed(
    client: RegistryClient,
    registry: RegistryServer,
    repository: Repository,
    target: Repository,
    sources: list[ShardSource],
    tmp_path: Path,
    docker: bool,
) -> None:
    """crane validate reads layers as gzip only, so its content checks cannot be used here."""
    if registry.auth == "token":
        pytest.skip("crane refuses token servers at private addresses")
    base = await push_base(client, repository, docker=docker)
    published = await publish_image(client, base, sources, target, "v1")
    insecure = [] if registry.tls else ["--insecure"]
    crane, name, out = os.environ[CRANE_VARIABLE], str(published.reference), tmp_path / "out.tar"
    await run(crane, "validate", "--fast", *insecure, "--remote", name, server=registry)
    await run(crane, "export", *insecure, name, str(out), server=registry)
    with tarfile.open(out) as tar:
        for source in sources:
            for entry in source.manifest.files:
                path = f"indexes/{source.manifest.shard_id}/{entry.name}"
                content = tar.extractfile(path)
                assert content is not None
                assert hashlib.sha256(content.read()).hexdigest() == entry.sha256


@needs_skopeo
@pytest.mark.parametrize("docker", [False, True])
async def test_skopeo_reads_and_copies_the_image(
    client: RegistryClient,
    registry: RegistryServer,
    repository: Repository,
    target: Repository,
    sources: list[ShardSource],
    tmp_path: Path,
    docker: bool,
) -> None:
    base = await push_base(client, repository, docker=docker)
    published = await publish_image(client, base, sources, target, "v1")
    trusts = [f"--src-cert-dir={registry.folder}"] if registry.tls else ["--src-tls-verify=false"]
    (registry.folder / "ca.crt").write_bytes(registry.ca_file.read_bytes())
    name = f"docker://{target}@{published.reference.digest}"
    out = tmp_path / "copied"
    login = [] if registry.auth == "none" else [f"--src-creds={USER}:{PASSWORD}"]
    await run("skopeo", "copy", *trusts, *login, name, f"dir:{out}", server=registry)
    copied = json.loads((out / "manifest.json").read_bytes())
    assert len(copied["layers"]) == 1 + len(sources)
    assert (out / copied["config"]["digest"].removeprefix("sha256:")).exists()


async def _blob(client: RegistryClient, repository: Repository, layer: dict[str, object]) -> bytes:
    async with aclosing(client.blob(repository, read_descriptor(layer, "a layer"))) as chunks:
        return b"".join([chunk async for chunk in chunks])
