"""Reading the contents of a repository that a running system writes to."""

from __future__ import annotations

from pathlib import Path

from shashin.objectstore.protocol import ObjectInfo
from shashin.repository.contents import arrangement_problems, read_contents
from shashin.repository.pointer import PointedShard, Pointer
from shashin.repository.repository import ModelRepository, StoredShard
from shashin.tiers import HOURLY
from tests.support.made_shards import MODEL, WatchedStore, commit, listings, open_shard


class WrittenMeanwhile(WatchedStore):
    """A store to which a shard is committed and served after each listing."""

    def __init__(self, root: Path, scratch: Path) -> None:
        super().__init__(root)
        self.scratch = scratch
        self.served: list[StoredShard] = []

    async def list_objects(self, prefix: str) -> list[ObjectInfo]:
        found = await super().list_objects(prefix)
        await self.commit_and_serve()
        return found

    async def commit_and_serve(self) -> None:
        """Commit the next shard of the log, then move the pointer, as a live system does."""
        repository = ModelRepository(WatchedStore(self.root))
        start = 5 * len(self.served)
        shard = open_shard(listings(start, start + 5), from_offset=start)
        self.served.append(await commit(repository, shard, self.scratch))
        named = tuple(PointedShard.of(s.manifest) for s in self.served)
        _, version = await repository.read_pointer(MODEL, HOURLY)
        await repository.move_pointer(Pointer(MODEL, HOURLY, named), over=version)


async def test_a_shard_served_while_the_contents_are_read_is_no_problem(tmp_path: Path) -> None:
    store = WrittenMeanwhile(tmp_path / "store", tmp_path / "scratch")
    await store.commit_and_serve()
    _, contents = await read_contents(store)
    assert len(store.served) > 2
    assert arrangement_problems(contents) == []
