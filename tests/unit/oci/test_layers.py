from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import AsyncGenerator
from contextlib import aclosing
from itertools import repeat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shashin.errors import CorruptBlob, UserError
from shashin.oci.layers import Layer, LayerFile, hash_layer

names = st.from_regex(r"[a-z0-9_][a-z0-9._-]{0,12}", fullmatch=True)
contents = st.dictionaries(
    st.lists(names, min_size=2, max_size=4).map("/".join), st.binary(max_size=2000), max_size=6
)


def file(path: str, data: bytes) -> LayerFile:
    async def read() -> AsyncGenerator[bytes]:
        for start in range(0, len(data), 700):
            yield data[start : start + 700]

    return LayerFile(path, len(data), read)


async def tar_of(layer: Layer) -> bytes:
    async with aclosing(layer.chunks()) as chunks:
        return b"".join([chunk async for chunk in chunks])


def layer_of(files: dict[str, bytes]) -> Layer | None:
    try:
        return Layer(tuple(file(path, data) for path, data in files.items()))
    except UserError:  # a file where another one has a folder
        return None


@given(contents)
async def test_a_layer_has_every_file_once_below_its_folders(files: dict[str, bytes]) -> None:
    layer = layer_of(files)
    if layer is None:
        return
    seen: list[str] = []
    with tarfile.open(fileobj=io.BytesIO(await tar_of(layer))) as tar:
        for member in tar:
            parent = member.name.rpartition("/")[0]
            assert not parent or parent in seen
            seen.append(member.name)
            assert (member.uid, member.gid, member.uname, member.gname) == (0, 0, "", "")
            assert member.mtime == 0
            assert member.mode == (0o555 if member.isdir() else 0o444)
            if member.isfile():
                content = tar.extractfile(member)
                assert content is not None
                assert content.read() == files[member.name]
    assert len(set(seen)) == len(seen)
    assert set(files) <= set(seen)


@given(contents, st.randoms(use_true_random=False))
async def test_the_order_of_files_changes_nothing(files: dict[str, bytes], random: object) -> None:
    layer = layer_of(files)
    if layer is None:
        return
    reordered = layer_of(dict(sorted(files.items(), key=lambda item: hash((item[0], str(random))))))
    assert reordered is not None
    assert await tar_of(reordered) == await tar_of(layer)


@given(contents)
async def test_size_and_digest_are_those_of_the_tar(files: dict[str, bytes]) -> None:
    layer = layer_of(files)
    if layer is None:
        return
    tar = await tar_of(layer)
    hashed = await hash_layer(layer)
    assert hashed.size == layer.size == len(tar)
    assert hashed.digest == f"sha256:{hashlib.sha256(tar).hexdigest()}"


async def test_the_bytes_of_a_layer_never_change() -> None:
    """A golden value: another one sends every shard of every installation again."""
    long = f"indexes/{'m' * 150}.hourly.p0000/{'rows' * 20}.arrow"
    layer = Layer((file("indexes/a/rows.arrow", b"rows"), file(long, b"more rows")))
    assert (await hash_layer(layer)).digest == GOLDEN


GOLDEN = "sha256:d7585ea227fdb595e4aedef03fb71715632500d6a264a7f8c31d6a68cfde80c5"


async def test_a_file_of_more_than_8_gib_can_be_read_back() -> None:
    size = 8 * 1024**3 + 5
    chunk = bytes(1024 * 1024)

    async def read() -> AsyncGenerator[bytes]:
        for _ in repeat(None, 8 * 1024):
            yield chunk
        yield b"after"

    layer = Layer((LayerFile("indexes/a/vectors", size, read), file("indexes/a/z", b"last")))
    head = b""
    async with aclosing(layer.chunks()) as chunks:
        async for piece in chunks:
            if len(piece) == len(chunk):
                break
            head += piece
    info = tarfile.TarInfo.frombuf(head[-512:], "utf-8", "strict")
    records = head[-1024:-512].rstrip(b"\0")
    assert info.name == "indexes/a/vectors"
    assert records == b"19 size=%d\n" % size
    folders, pax_header, pax_record, own = 2, 1, 1, 1
    z_header, z_data, end = 1, 1, 2
    blocks = folders + pax_header + pax_record + own + z_header + z_data + end
    assert layer.size == 512 * blocks + size + (-size % 512)


@pytest.mark.parametrize("states", [3, 5])
async def test_a_file_of_another_size_is_an_error(states: int) -> None:
    wrong = LayerFile("a/b", states, file("a/b", b"four").read)
    with pytest.raises(CorruptBlob, match=r"a/b has .* than the"):
        await hash_layer(Layer((wrong,)))


@pytest.mark.parametrize(
    "path", ["/a", "../a", "a/../b", "a//b", ".wh.a", "a/.wh..wh..opq", "", "a/", "a\n", "ä"]
)
def test_a_path_that_could_do_harm_is_refused(path: str) -> None:
    with pytest.raises(UserError, match="cannot be a path in a layer"):
        Layer((file(path, b""),))


def test_two_entries_for_one_path_are_refused() -> None:
    with pytest.raises(UserError, match="two entries"):
        Layer((file("a/b", b""), file("a/b", b"")))
    with pytest.raises(UserError, match="two entries"):
        Layer((file("a/b", b""), file("a", b"")))
