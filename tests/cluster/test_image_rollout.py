"""The image builder against a real API server and a real registry: IndexServings follow the pointer."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

from services.image_builder.image_garbage import ImageGarbage
from services.image_builder.image_rollout import ImageRollout
from services.image_builder.image_servings import FORCE_DELETE_ANNOTATION, RELIED_ON_ANNOTATION
from services.image_builder.images import Images
from services.image_builder.settings import ImageBuilderSettings
from shashin.errors import KubernetesNotFound
from shashin.index_images.annotations import image_tag
from shashin.index_images.garbage import stored_images
from shashin.kube.client import KubeClient
from shashin.kube.resource import KubeObject
from shashin.kube.resources import INDEX_SERVINGS
from shashin.kube.server_clock import ServerClock
from shashin.oci.access import RegistryAccess
from shashin.oci.credentials import DockerConfig
from shashin.oci.references import Reference, Repository, parse_reference
from shashin.oci.registry import RegistryClient
from shashin.repository.pointer import PointedShard, Pointer
from shashin.repository.repository import ModelRepository, StoredShard
from shashin.runtime.health import Health
from shashin.serving.index_servers import HeldShard
from shashin.shards.format.manifest import ROWS_FILE
from shashin.tiers import HOURLY
from tests.support.definitions import apply_definitions
from tests.support.loops import running
from tests.support.made_images import push_base
from tests.support.made_shards import (
    MODEL,
    WatchedStore,
    commit,
    listings,
    object_key,
    open_shard,
)
from tests.support.oci_registry import RegistryServer, needs_registry
from tests.support.running_service import RunningService
from tests.support.small_disk import mounted_disk
from tests.support.waiting import until

pytestmark = needs_registry

NAME = f"{MODEL}-hourly-0"
TARGET = "shop/shards"


class Servers:
    """Index servers that hold what a test says."""

    def __init__(self) -> None:
        self.holding: list[HeldShard] = []
        self.after_look: Callable[[], Awaitable[None]] | None = None

    async def held(self) -> list[HeldShard]:
        held = list(self.holding)
        if self.after_look is not None:
            await self.after_look()
        return held


class World:
    """A model repository, a registry with a base image, and a namespace."""

    def __init__(
        self, folder: Path, kube: KubeClient, namespace: str, registry: RegistryServer
    ) -> None:
        self.folder = folder
        self.kube = kube
        self.namespace = namespace
        self.registry = registry
        self.store = WatchedStore(folder / "store")
        self.repository = ModelRepository(self.store)
        self.target = Repository(registry.address, TARGET)
        self.base = Repository(registry.address, "shop/index-server")
        self.servers = Servers()

    def settings(self, **changes: Any) -> ImageBuilderSettings:
        own: dict[str, Any] = {
            "model_id": MODEL,
            "repository": (self.folder / "store").as_uri(),
            "discovery": "static:index-server/hourly=127.0.0.1:1",
            "rollout": "images",
            "namespace": self.namespace,
            "index_server_image": f"{self.base}:base",
            "image_repository": str(self.target),
            "registry_plain_http": self.registry.address,
            "resync_seconds": 0.2,
            "image_max_layers": 4,
        }
        return ImageBuilderSettings(**{**own, **changes})

    @asynccontextmanager
    async def builder(
        self,
        *,
        kube: KubeClient | None = None,
        access: RegistryAccess | None = None,
        **changes: Any,
    ) -> AsyncIterator[Health]:
        """Run what rolls out images."""
        async with AsyncExitStack() as stack:
            settings = self.settings(**changes)
            client = await stack.enter_async_context(
                RegistryClient(access or self.registry.access(), retry_seconds=0.2)
            )
            kube = kube or self.kube
            images = Images(
                settings,
                ModelRepository(self.store),
                self.store,
                client,
                kube,
                self.servers,
            )
            rollout = ImageRollout(images, ImageGarbage(settings, client, kube))
            health = Health()
            health.ready_when_degraded = True
            async with running(*rollout.loops(), health=health):
                yield health

    async def sealed(self, begin: int, end: int) -> StoredShard:
        shard = open_shard(listings(begin, end), from_offset=begin)
        return await commit(self.repository, shard, self.folder / "scratch")

    async def point_to(self, *shards: StoredShard) -> None:
        _, version = await self.repository.read_pointer(MODEL, HOURLY)
        named = tuple(sorted(PointedShard.of(s.manifest) for s in shards))
        await self.repository.move_pointer(Pointer(MODEL, HOURLY, named), over=version)

    async def serving(self, name: str = NAME) -> KubeObject | None:
        try:
            return await self.kube.get(INDEX_SERVINGS, name, namespace=self.namespace)
        except KubernetesNotFound:
            return None

    async def contents(self) -> dict[str, list[str]]:
        """Return the shards of each serving."""
        listed = await self.kube.list(INDEX_SERVINGS, namespace=self.namespace)
        return {
            one["metadata"]["name"]: [shard["id"] for shard in one["spec"]["shards"]]
            for one in listed.items
        }

    async def until_served(self, *shards: StoredShard, name: str = NAME) -> KubeObject:
        """Wait until exactly these shards are in a serving."""
        expected = sorted(shard.manifest.shard_id for shard in shards)

        async def served() -> bool:
            return (await self.contents()).get(name) == expected

        await until(served, f"{name} has {expected}")
        found = await self.serving(name)
        assert found is not None
        return found

    def holds(self, name: str, *shards: StoredShard) -> None:
        """Have every replica of a serving hold shards."""
        self.servers.holding += [
            HeldShard(HOURLY, s.manifest.shard_id, s.manifest.source_ranges, name) for s in shards
        ]

    async def layers(self, serving: KubeObject) -> list[str]:
        """Return the digests of an image's layers, each of which the registry has."""
        reference = parse_reference(serving["spec"]["image"])
        async with RegistryClient(self.registry.access()) as client:
            manifest = json.loads((await client.manifest(reference)).data)
            digests = [layer["digest"] for layer in manifest["layers"]]
            for digest in digests:
                assert await client.has_blob(reference.repository, digest)
        return digests

    async def images(self) -> set[str]:
        async with RegistryClient(self.registry.access()) as client:
            return {image.digest for image in await stored_images(client, self.target)}


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[RegistryServer]:
    server = RegistryServer(tmp_path / "registry")
    try:
        await server.start()
        yield server
    finally:
        await server.close()


@pytest.fixture
async def world(
    tmp_path: Path, client: KubeClient, namespace: str, registry: RegistryServer
) -> World:
    await apply_definitions(client)
    return await made_world(tmp_path, client, namespace, registry)


async def made_world(
    folder: Path, client: KubeClient, namespace: str, registry: RegistryServer
) -> World:
    """Return a world whose registry has the base image."""
    world = World(folder, client, namespace, registry)
    async with RegistryClient(registry.access()) as pusher:
        await push_base(pusher, world.base)
    return world


def counted(metric: str) -> float:
    name = f"shashin_image_builder_{metric}"
    return REGISTRY.get_sample_value(name, {"tier": HOURLY}) or 0.0


def digest_of_image(serving: KubeObject) -> str:
    return str(serving["spec"]["image"]).partition("@")[2]


async def test_a_sealed_shard_becomes_a_serving_and_the_next_one_is_one_more_layer(
    world: World,
) -> None:
    first, second = await world.sealed(0, 5), await world.sealed(5, 9)
    await world.point_to(first)
    published, sent = counted("published_images_total"), counted("sent_bytes_total")
    async with world.builder() as health:
        created = await world.until_served(first)
        assert created["metadata"]["labels"] == {
            "shashin.dev/model": MODEL,
            "shashin.dev/tier": HOURLY,
            "shashin.dev/number": "0",
        }
        assert created["spec"]["image"].startswith(f"{world.target}@sha256:")
        (shard,) = created["spec"]["shards"]
        assert (shard["id"], shard["rows"]) == (first.manifest.shard_id, 5)
        assert shard["ranges"] == [{"partition": 0, "fromOffset": 0, "toOffset": 5}]
        assert created["spec"]["replicas"] == 2
        before = await world.layers(created)
        world.store.streams.clear()
        await world.point_to(first, second)
        after = await world.layers(await world.until_served(first, second))
        assert after[:-1] == before, "what was there is not another layer"
        read = set(world.store.streams)
        assert read == {second.manifest.object_key(entry) for entry in second.manifest.files}
        assert health.problems() == []
        await until(lambda: counted("servings") == 1, "it is measured")
    assert counted("published_images_total") == published + 2
    assert counted("sent_bytes_total") > sent


async def test_nothing_is_written_while_nothing_changes(world: World) -> None:
    shard = await world.sealed(0, 5)
    await world.point_to(shard)
    async with world.builder():
        created = await world.until_served(shard)
    looked = len(world.store.stats)
    async with world.builder():
        await until(lambda: len(world.store.stats) > looked + 20, "another builder looks")
    found = await world.serving()
    assert found is not None
    assert found["metadata"]["resourceVersion"] == created["metadata"]["resourceVersion"]


async def test_replicas_that_somebody_chose_stay(world: World) -> None:
    first, second = await world.sealed(0, 5), await world.sealed(5, 9)
    await world.point_to(first)
    async with world.builder(serving_replicas=3):
        assert (await world.until_served(first))["spec"]["replicas"] == 3
        patch = {"spec": {"replicas": 7}}
        await world.kube.merge_patch(INDEX_SERVINGS, NAME, patch, namespace=world.namespace)
        await world.point_to(first, second)
        assert (await world.until_served(first, second))["spec"]["replicas"] == 7
        third = await world.sealed(9, 12)
        await world.point_to(first, second, third)
        assert (await world.until_served(first, second, third))["spec"]["replicas"] == 7


async def test_an_edited_image_is_corrected(world: World) -> None:
    shard = await world.sealed(0, 5)
    await world.point_to(shard)
    async with world.builder():
        created = await world.until_served(shard)
        other = f"{world.target}@sha256:{'0' * 64}"
        patch = {"spec": {"image": other}}
        await world.kube.merge_patch(INDEX_SERVINGS, NAME, patch, namespace=world.namespace)

        async def corrected() -> bool:
            found = await world.serving()
            return found is not None and found["spec"]["image"] == created["spec"]["image"]

        await until(corrected, "the image is what it was")


async def test_a_new_release_of_the_index_server_is_rolled_out(world: World) -> None:
    shard = await world.sealed(0, 5)
    await world.point_to(shard)
    async with world.builder():
        created = await world.until_served(shard)
        async with RegistryClient(world.registry.access()) as client:
            await push_base(client, world.base, docker=True)

        async def rolled_out() -> bool:
            found = await world.serving()
            return found is not None and digest_of_image(found) != digest_of_image(created)

        await until(rolled_out, "the image has the new release")
    found = await world.serving()
    assert found is not None
    assert (await world.layers(found))[-1] == (await world.layers(created))[-1]


async def test_a_tier_without_shards_has_no_serving(world: World) -> None:
    shard = await world.sealed(0, 5)
    await world.point_to(shard)
    async with world.builder():
        await world.until_served(shard)
        await world.point_to()

        async def gone() -> bool:
            return await world.contents() == {}

        await until(gone, "the serving is deleted")


async def test_a_serving_that_has_to_go_says_so_before_it_is_deleted(world: World) -> None:
    shard = await world.sealed(0, 5)
    await world.point_to(shard)
    async with world.builder():
        await world.until_served(shard)
    # A finalizer keeps what was deleted, so that it can be looked at.
    patch = {"metadata": {"finalizers": ["shashin.dev/test"]}}
    await world.kube.merge_patch(INDEX_SERVINGS, NAME, patch, namespace=world.namespace)
    await world.point_to()
    try:
        async with world.builder():

            async def deleted() -> bool:
                found = await world.serving()
                return found is not None and "deletionTimestamp" in found["metadata"]

            await until(deleted, "it is deleted")
        found = await world.serving()
        assert found is not None
        assert found["metadata"]["annotations"][FORCE_DELETE_ANNOTATION] == "true"
    finally:
        patch = {"metadata": {"finalizers": []}}
        await world.kube.merge_patch(INDEX_SERVINGS, NAME, patch, namespace=world.namespace)


async def test_a_shard_moves_only_once_the_other_serving_is_held_by_every_replica(
    world: World,
) -> None:
    shards = [await world.sealed(5 * n, 5 * n + 5) for n in range(6)]
    await world.point_to(*shards)
    other = f"{MODEL}-hourly-1"
    async with world.builder():
        await world.until_served(*shards[:3])
        await world.until_served(*shards[3:], name=other)
        # One of the first image and two of the second one remain: they fit in one.
        await world.point_to(shards[0], shards[3], shards[4])
        await world.until_served(*shards[3:5], shards[0], name=other)
        await world.until_served(shards[0])
        looked = len(world.store.stats)
        await until(lambda: len(world.store.stats) > looked + 30, "it looks again and again")
        assert len(await world.contents()) == 2, "nobody holds the shard yet"
        world.holds(NAME, shards[0])
        world.holds(other, *shards[3:5], shards[0])

        async def moved() -> bool:
            return list(await world.contents()) == [other]

        await until(moved, "the image that the shard left is gone")
        kept = await world.serving(other)
        assert kept is not None
        assert kept["metadata"]["annotations"][RELIED_ON_ANNOTATION].startswith("0 ")


async def test_a_parent_stays_until_every_replica_of_another_serving_has_its_child(
    world: World,
) -> None:
    parent, *others = [await world.sealed(5 * n, 5 * n + 5) for n in range(5)]
    new = await world.sealed(25, 30)
    limits: dict[str, Any] = {"image_max_layers": 5, "image_max_rows": 15}
    await world.point_to(parent, *others)
    async with world.builder(**limits):
        await world.until_served(parent, *others[:2])
        await world.until_served(*others[2:], name=f"{MODEL}-hourly-1")
        child = await world.sealed(0, 11)
        await world.point_to(child, *others)
        await world.until_served(child, name=f"{MODEL}-hourly-2")
        assert parent.manifest.shard_id in (await world.contents())[NAME]
    # Another builder does not know the parent, which no pointer names any more.
    async with world.builder(**limits):
        await world.point_to(child, *others, new)
        await world.until_served(parent, *others[:2], new)
        world.holds(f"{MODEL}-hourly-2", child)
        await world.until_served(*others[:2], new)


async def test_two_builders_at_once_make_the_same_servings(world: World) -> None:
    shards = [await world.sealed(5 * n, 5 * n + 5) for n in range(8)]
    async with world.builder() as one, world.builder() as other:
        for count in range(1, 9):
            await world.point_to(*shards[:count])
            await asyncio.sleep(0)

        async def settled() -> bool:
            contents = await world.contents()
            return sorted(i for ids in contents.values() for i in ids) == sorted(
                shard.manifest.shard_id for shard in shards
            )

        await until(settled, "every shard is in exactly one serving")
        assert sorted(map(len, (await world.contents()).values())) == [2, 3, 3]
        await until(lambda: not one.problems() + other.problems(), "neither reports a problem")


async def test_a_shard_stays_if_the_image_that_was_relied_on_lost_it_meanwhile(
    world: World,
) -> None:
    shards = [await world.sealed(5 * n, 5 * n + 5) for n in range(6)]
    await world.point_to(*shards)
    other = f"{MODEL}-hourly-1"
    async with world.builder():
        await world.until_served(*shards[:3])
        await world.until_served(*shards[3:], name=other)
        await world.point_to(shards[0], shards[3], shards[4])
        await world.until_served(*shards[3:5], shards[0], name=other)
        await world.until_served(shards[0])
    world.holds(NAME, shards[0])
    world.holds(other, *shards[3:5], shards[0])

    async def take_it_away() -> None:
        """Between what a builder reads and what it writes, another one drops the shard there."""
        world.servers.after_look = None
        found = await world.serving(other)
        assert found is not None
        kept = [s for s in found["spec"]["shards"] if s["id"] != shards[0].manifest.shard_id]
        patch = {"spec": {"shards": kept}}
        await world.kube.merge_patch(INDEX_SERVINGS, other, patch, namespace=world.namespace)
        world.servers.holding = []

    world.servers.after_look = take_it_away
    async with world.builder():
        await until(lambda: world.servers.after_look is None, "a builder relies on the other image")
        looked = len(world.store.stats)
        await until(lambda: len(world.store.stats) > looked + 20, "it plans again")
        assert await world.contents() == {
            NAME: [shards[0].manifest.shard_id],
            other: [shard.manifest.shard_id for shard in shards[3:5]],
        }


def builder_process(world: World, kubeconfig: Path, **changes: Any) -> RunningService:
    own = world.settings()
    return RunningService(
        "image_builder",
        "127.0.0.1:1",
        {
            "model_id": MODEL,
            "repository": own.repository,
            "discovery": own.discovery,
            "rollout": "images",
            "namespace": world.namespace,
            "index_server_image": own.index_server_image,
            "image_repository": own.image_repository,
            "registry_plain_http": own.registry_plain_http,
            "resync_seconds": 0.2,
            **changes,
        },
        log=world.folder / "logs",
    )


@pytest.mark.parametrize("point", ["after-image", "after-serving"])
async def test_a_builder_that_is_killed_on_the_way_is_succeeded_by_one_that_goes_on(
    world: World, kubeconfig: Path, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    failpoints = world.folder / "failpoints"
    failpoints.mkdir()
    (failpoints / f"image-builder.{point}").touch()
    shard = await world.sealed(0, 5)
    await world.repository.announce(shard.manifest_key)
    process = builder_process(world, kubeconfig, failpoints=failpoints)
    try:
        await process.start()
        assert await asyncio.to_thread(process.process.wait, 60) != 0
        assert not any(failpoints.iterdir()), "it was killed there"
        assert len(await world.images()) == 1
        assert (await world.contents() != {}) == (point == "after-serving")
        await process.start()
        found = await world.until_served(shard)
        assert await world.images() == {digest_of_image(found)}, "it is the same image"
        await process.until_ready()
        assert await process.stop() == 0
    finally:
        await process.close()


async def test_a_registry_that_is_away_is_reported_and_then_used(world: World) -> None:
    first, second = await world.sealed(0, 5), await world.sealed(5, 9)
    await world.point_to(first)
    async with world.builder() as health:
        created = await world.until_served(first)
        await world.registry.kill()
        await world.point_to(first, second)
        await until(
            lambda: any(p.startswith("images of hourly: ") for p in health.problems()),
            "it is reported",
        )
        assert health.readiness_problems() == []
        found = await world.serving()
        assert found is not None
        assert found["spec"] == created["spec"], "what is served stays"
        await world.registry.start()
        await world.until_served(first, second)
        await until(lambda: not health.problems(), "the problem is cleared")


async def test_a_refused_login_is_named_and_what_is_served_stays(
    world: World, tmp_path: Path
) -> None:
    shard = await world.sealed(0, 5)
    await world.point_to(shard)
    async with world.builder():
        created = await world.until_served(shard)
    locked = RegistryServer(tmp_path / "locked", auth="basic")
    try:
        await locked.start()
        plain = frozenset({world.registry.address, locked.address})
        async with world.builder(
            access=RegistryAccess(DockerConfig({}, {}), None, plain),
            image_repository=f"{locked.address}/{TARGET}",
        ) as health:
            await until(lambda: f"{locked.address}/{TARGET}" in str(health.problems()), "named")
            found = await world.serving()
            assert found is not None
            assert found["spec"] == created["spec"]
        user = locked.access().config
        async with world.builder(
            access=RegistryAccess(user, None, plain), image_repository=f"{locked.address}/{TARGET}"
        ):

            async def moved() -> bool:
                found = await world.serving()
                return found is not None and found["spec"]["image"].startswith(locked.address)

            await until(moved, "with the right credentials it is pushed there")
    finally:
        await locked.close()


async def test_a_registry_that_is_full_is_named_and_what_is_served_stays(
    world: World, tmp_path: Path
) -> None:
    with mounted_disk(tmp_path / "small", kibibytes=8 * 1024) as disk:
        full = RegistryServer(tmp_path / "full")
        full.storage = disk / "storage"
        try:
            await full.start()
            world = await made_world(tmp_path / "on-it", world.kube, world.namespace, full)
            first, second = await world.sealed(0, 5), await world.sealed(5, 9)
            await world.point_to(first)
            async with world.builder() as health:
                created = await world.until_served(first)
                filling = disk / "filling"
                filled = await asyncio.to_thread(fill, filling)
                assert filled
                await world.point_to(first, second)
                await until(lambda: "has no space left" in str(health.problems()), "it is named")
                assert health.readiness_problems() == []
                found = await world.serving()
                assert found is not None
                assert found["spec"] == created["spec"]
                filling.unlink()
                await world.until_served(first, second)
                await until(lambda: not health.problems(), "the problem is cleared")
        finally:
            await full.close()


def fill(path: Path) -> int:
    """Write zeros until the disk is full; returns their number."""
    written = 0
    with path.open("wb", buffering=0) as file:
        for size in (64 * 1024, 512):
            with suppress(OSError):
                while True:
                    written += file.write(bytes(size))
    return written


async def test_a_layer_that_the_registry_has_lost_is_pushed_again(world: World) -> None:
    first, second = await world.sealed(0, 5), await world.sealed(5, 9)
    await world.point_to(first)
    async with world.builder() as health:
        lost = (await world.layers(await world.until_served(first)))[-1]
        async with RegistryClient(world.registry.access()) as client:
            world.registry.blob_path(lost).unlink()
            assert not await client.has_blob(world.target, lost)
        await world.point_to(first, second)
        assert lost in await world.layers(await world.until_served(first, second))
        await until(lambda: not health.problems(), "nothing is left to report")


async def test_a_missing_base_image_is_named(world: World) -> None:
    await world.point_to(await world.sealed(0, 5))
    async with world.builder(index_server_image=f"{world.base}:none") as health:
        named = f"SHASHIN_INDEX_SERVER_IMAGE={world.base}:none: "
        await until(lambda: named in str(health.problems()), "it is named")
        assert await world.contents() == {}


async def test_a_shard_that_was_deleted_before_the_push_keeps_no_other_out(world: World) -> None:
    first, second, third = [await world.sealed(5 * n, 5 * n + 5) for n in range(3)]
    await world.point_to(first)
    async with world.builder() as health:
        await world.until_served(first)
        await world.store.delete(object_key(second, ROWS_FILE))
        await world.point_to(first, second, third)
        await world.until_served(first, third)
        name = second.manifest.shard_id
        await until(lambda: name in str(health.problems()), "the shard is named")
        await world.store.delete(second.manifest_key)
        await world.point_to(first, third)
        await until(lambda: not health.problems(), "it is not wanted any more")


async def test_a_shard_whose_manifest_cannot_be_read_stays_served_and_others_go_on(
    world: World,
) -> None:
    first, second = await world.sealed(0, 5), await world.sealed(5, 9)
    await world.point_to(first)
    async with world.builder() as health:
        created = await world.until_served(first)
        await world.store.write(first.manifest_key, b"damaged")
        await world.point_to(first, second)
        await world.until_served(second, name=f"{MODEL}-hourly-1")
        found = await world.serving()
        assert found is not None
        assert found["spec"] == created["spec"]
        await until(lambda: first.manifest.shard_id in str(health.problems()), "it is named")


async def test_an_api_server_that_is_away_is_reported_and_then_used(
    world: World, through: KubeClient, proxy: Any
) -> None:
    shard = await world.sealed(0, 5)
    await world.point_to(shard)
    proxy.refuse()
    async with world.builder(kube=through) as health:
        await until(
            lambda: any(p.startswith("images of hourly: cannot list") for p in health.problems()),
            "it is reported",
        )
        proxy.come_back()
        await world.until_served(shard)
        await until(lambda: not health.problems(), "every problem is cleared")


async def test_a_write_that_never_succeeds_is_reported(world: World) -> None:
    await world.point_to(await world.sealed(0, 5))
    async with world.builder(namespace=f"{world.namespace}-none") as health:
        await until(
            lambda: "attempts in a row failed: cannot create" in str(health.problems()),
            "the namespace is named",
        )
        assert f"{world.namespace}-none" in str(health.problems())


async def test_a_clock_that_is_wrong_makes_no_image_old(world: World) -> None:
    world.kube.clock = ServerClock(lambda: time.time() + 365 * 86400)
    first, second = await world.sealed(0, 5), await world.sealed(5, 9)
    await world.point_to(first)
    async with world.builder(image_grace_days=7) as health:
        await world.until_served(first)
        await world.point_to(first, second)
        await world.until_served(first, second)
        await until(lambda: "seconds ahead of" in str(health.problems()), "the clock is named")
    async with RegistryClient(world.registry.access()) as client:
        garbage = ImageGarbage(world.settings(image_grace_days=7), client, world.kube)
        assert await garbage.delete_unused() == []
    assert len(await world.images()) == 2


async def test_images_that_nothing_uses_are_deleted_after_the_grace(world: World) -> None:
    first, second = await world.sealed(0, 5), await world.sealed(5, 9)
    await world.point_to(first)
    async with world.builder(image_grace_days=0):
        old = digest_of_image(await world.until_served(first))
        await world.point_to(first, second)
        used = digest_of_image(await world.until_served(first, second))
    settings = world.settings()
    async with RegistryClient(world.registry.access()) as client:
        garbage = ImageGarbage(settings, client, world.kube)
        assert await garbage.delete_unused() == [], "both were just pushed"
        long_ago = time.time() - 8 * 86400
        for digest in (old, used):
            fetched = await client.manifest(Reference(world.target, digest=digest))
            await client.delete_manifest(world.target, digest)
            await client.put_manifest(
                world.target,
                fetched.data,
                fetched.media_type,
                tag=image_tag(HOURLY, 0, digest.removeprefix("sha256:"), long_ago),
            )
        assert await world.images() == {old, used}
        assert await garbage.delete_unused() == [old]
    assert await world.images() == {used}
