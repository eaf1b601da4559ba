"""Manifests: the format stays readable, and invalid ones are rejected by name."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shashin.errors import CorruptShard, RepositoryError, UnknownFormat
from shashin.offsets.ranges import OffsetRange
from shashin.shards.format.file_entry import FileEntry
from shashin.shards.format.manifest import (
    FORMAT,
    PLAIN_NAMES,
    SEALED_ONLY,
    WITH_MODEL_FILES,
    Manifest,
    range_in_key,
)
from shashin.shards.format.shard_id import shard_id

GOLDEN = Path(__file__).parent / "golden" / "manifest-v3.json"
GOLDEN_V1 = GOLDEN.with_name("manifest-v1.json")
GOLDEN_V2 = GOLDEN.with_name("manifest-v2.json")
KEY = (
    "indexes/demo-v1/hourly/1699999200/demo-v1.hourly.p0000.000000000000-000000000240/manifest.json"
)

OPTIONAL = {"format", "hidden_offsets", "parents", "dropped_rows", "rewrites", "build"}

KNOWN = Manifest(
    shard_id="demo-v1.hourly.p0000.000000000000-000000000240",
    tier="hourly",
    bucket_start=1_699_999_200,
    bucket_seconds=3600,
    model_id="demo-v1",
    dimensions=128,
    metric="ip",
    stored_type="bf16",
    index_kind="usearch-hnsw",
    index_parameters={"connectivity": 16, "expansion_add": 128, "expansion_search": 64},
    rows=480,
    listings=200,
    files=(
        FileEntry(
            "index.usearch",
            123_456,
            "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        ),
        FileEntry(
            "rows.arrow", 7_890, "60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752"
        ),
    ),
    source_ranges=(OffsetRange(0, 0, 240),),
    cut_reason="time",
    recall_at_10=0.995,
    created_at=1_700_002_860.5,
    hidden_offsets={"0": 17},
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


def document(**changes: Any) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(GOLDEN.read_bytes())
    return {**read, **changes}


def test_a_manifest_of_the_first_format_stays_readable_and_names_its_objects_plainly() -> None:
    read = Manifest.from_json(GOLDEN_V1.read_bytes(), key=KEY)
    assert read == replace(KNOWN, format=PLAIN_NAMES)
    assert [read.object_key(entry) for entry in read.files] == [
        f"{read.folder}/index.usearch",
        f"{read.folder}/rows.arrow",
    ]


def test_a_manifest_of_the_second_format_names_its_objects_by_their_content() -> None:
    read = Manifest.from_json(GOLDEN_V2.read_bytes(), key=KEY)
    assert read == replace(KNOWN, format=SEALED_ONLY)
    assert [read.object_key(entry) for entry in read.files] == [
        f"{read.folder}/index.9f86d081884c7d65.usearch",
        f"{read.folder}/rows.60303ae22b998861.arrow",
    ]


def test_the_written_format_does_not_change() -> None:
    # Older readers reject unknown fields: a change needs a new format number.
    assert KNOWN.to_json() == GOLDEN.read_bytes()


@given(
    st.builds(
        replace,
        st.just(KNOWN),
        recall_at_10=st.none() | st.floats(0, 1),
        rows=st.integers(0, 2**63),
        files=st.lists(
            st.builds(
                FileEntry,
                st.from_regex(r"[a-z0-9][a-z0-9_-]{0,9}(\.[a-z0-9_-]{1,9}){0,2}", fullmatch=True),
                st.integers(0, 2**63),
                st.from_regex(r"[0-9a-f]{64}", fullmatch=True),
            ),
            max_size=3,
            unique_by=lambda entry: entry.name,
        ).map(tuple),
        hidden_offsets=st.dictionaries(st.text(), st.integers(0), max_size=3),
        created_at=st.floats(0, 1e12),
    )
)
def test_a_manifest_that_was_written_is_read_as_it_was(manifest: Manifest) -> None:
    assert Manifest.from_json(manifest.to_json(), key=KEY) == manifest


@given(
    st.text(st.sampled_from("abcXYZ019.-_:"), min_size=1, max_size=20).filter(
        lambda m: m[0].isalnum()
    ),
    st.lists(st.integers(1, 10**17), min_size=2, max_size=8, unique=True).map(sorted),
)
def test_a_built_shard_that_was_written_is_read_as_it_was(model_id: str, cuts: list[int]) -> None:
    sources = tuple(
        OffsetRange(number % 2, *ends)
        for number, ends in enumerate(zip(cuts[::2], cuts[1::2], strict=False))
    )
    sources = tuple(sorted(sources))
    built = replace(
        KNOWN,
        model_id=model_id,
        tier="daily",
        source_ranges=sources,
        shard_id=shard_id(model_id, "daily", sources),
    )
    assert Manifest.from_json(built.to_json(), key=built.key) == built
    assert range_in_key(built.key) == (sources[0] if len(sources) == 1 else None)


@pytest.mark.parametrize(
    "key",
    [
        "",
        KEY.removesuffix("/manifest.json"),
        KEY.replace("manifest.json", "rows.arrow"),
        KEY.replace("indexes", "serving"),
        KEY.replace("demo-v1/", "demo-v2/"),
        KEY.replace("/hourly/", "/daily/"),
        KEY.replace("p0000", "p000"),
        KEY.replace("p0000", "p00000"),
        KEY.replace("000000000240", "0000000000240"),
        KEY.replace("000000000240", "000000000000"),
        KEY.replace("000000000240", "9" * 5000),
        KEY.replace("000000000240", "\N{ARABIC-INDIC DIGIT ZERO}" * 12),
        KEY.replace("p0000.000000000000-000000000240", "p0000-p0003.2.7ec87b82141cd4fc"),
    ],
)
def test_a_key_that_derives_from_no_single_range_names_none(key: str) -> None:
    assert range_in_key(KEY) == OffsetRange(0, 0, 240)
    assert range_in_key(key) is None


def _described(
    *ranges: tuple[int, int, int], model_id: str = "demo-v1", tier: str = "hourly"
) -> dict[str, Any]:
    """Return the fields of a shard of these ranges, with the id that derives from them."""
    sources = [OffsetRange(*r) for r in ranges]
    return {
        "model_id": model_id,
        "tier": tier,
        "source_ranges": [asdict(r) for r in sources],
        "shard_id": shard_id(model_id, tier, sources) if sources else "none",
    }


@pytest.mark.parametrize(
    "changes",
    [
        {"bucket_start": 1_699_999_201},
        _described((0, 0, 241)),
        _described((1, 0, 240)),
        _described((0, 0, 240), model_id="demo-v2"),
        _described((0, 0, 240), tier="daily"),
    ],
    ids=str,
)
def test_the_manifest_of_another_shard_is_refused_by_the_key_under_which_it_is(
    changes: dict[str, Any],
) -> None:
    with pytest.raises(CorruptShard, match=r"manifest\.json contradicts itself: it describes the"):
        Manifest.from_json(json.dumps(document(**changes)).encode(), key=KEY)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"shard_id": "/home/someone"}, "its shard id is '/home/someone'"),
        ({"shard_id": "../../../home/someone"}, "its shard id is '../../../home/someone'"),
        ({"shard_id": "demo-v1.hourly.p0000.000000000000-000000000241"}, "its shard id is"),
        ({"source_ranges": [asdict(OffsetRange(0, 0, 241))]}, "its shard id is"),
        ({"model_id": "demo-v2"}, "its shard id is"),
        ({"tier": "daily"}, "its shard id is"),
        (_described((0, 0, 240), model_id="../demo-v1"), r"model id '\.\./demo-v1'"),
        (_described((0, 0, 240), model_id=""), "model id ''"),
        (_described((0, 0, 240), tier="../hourly"), r"\ntier\n"),
        (_described(), "its ranges are none"),
        (_described((0, 240, 0)), "its ranges are .* each with offsets"),
        (_described((0, -5, 240)), "its ranges are .* each with offsets"),
        (_described((-1, 0, 240)), "its ranges are .* each with offsets"),
        (_described((0, 0, 240), (0, 200, 300)), "its ranges are .* without an overlap"),
        (_described((0, 240, 300), (0, 0, 240)), "its ranges are .* expected them sorted"),
    ],
    ids=str,
)
def test_a_manifest_that_contradicts_itself_is_refused_also_under_the_key_that_it_describes(
    changes: dict[str, Any], named: str
) -> None:
    found = document(**changes)
    key = "/".join(
        ["indexes", *(str(found[k]) for k in ("model_id", "tier", "bucket_start", "shard_id"))]
    )
    with pytest.raises(CorruptShard, match=rf"(?s)manifest\.json .*{named}"):
        Manifest.from_json(json.dumps(found).encode(), key=f"{key}/manifest.json")


@pytest.mark.parametrize(
    "name",
    [
        "/home/someone/.ssh/authorized_keys",
        "../index.usearch",
        "sub/index.usearch",
        "..",
        ".",
        ".hidden",
        "",
        "index.usearch\n",
        "index\x00.usearch",
        "Index.usearch",
        "manifest.json",
        "rows.arrow",  # another file has it
        "a" * 101,
    ],
    ids=repr,
)
@pytest.mark.parametrize("written_as", [PLAIN_NAMES, SEALED_ONLY, FORMAT])
def test_a_file_name_that_is_no_plain_name_of_its_own_is_refused(
    name: str, written_as: str
) -> None:
    files = document()["files"]
    files[0]["name"] = name
    data = json.dumps(document(files=files, format=written_as)).encode()
    with pytest.raises(CorruptShard, match=r"(?s)manifest\.json .*name"):
        Manifest.from_json(data, key=KEY)


@pytest.mark.parametrize("changes", [{"sha256": "abc"}, {"sha256": "../" + "0" * 61}, {"size": -1}])
def test_a_hash_or_size_that_no_file_has_is_refused(changes: dict[str, Any]) -> None:
    files = document()["files"]
    files[1] |= changes
    with pytest.raises(CorruptShard, match=rf"(?s)files.1.{next(iter(changes))}"):
        Manifest.from_json(json.dumps(document(files=files)).encode(), key=KEY)


def test_a_file_of_the_model_has_a_key_that_its_shards_share() -> None:
    found = document(format=WITH_MODEL_FILES, model_files=["index.usearch"])
    manifest = Manifest.from_json(json.dumps(found).encode(), key=KEY)
    keys = {entry.name: manifest.object_key(entry) for entry in manifest.files}
    shared = next(entry for entry in manifest.files if entry.name == "index.usearch")
    assert keys["index.usearch"] == f"models/demo-v1/files/{shared.hashed_name}"
    assert keys["rows.arrow"].startswith(f"{manifest.folder}/rows.")
    assert Manifest.from_json(manifest.to_json(), key=KEY) == manifest
    assert b"model_files" not in replace(manifest, model_files=(), format=FORMAT).to_json()


@pytest.mark.parametrize(
    ("written_as", "shared"),
    [(FORMAT, ["index.usearch"]), (WITH_MODEL_FILES, []), (WITH_MODEL_FILES, ["other.npy"])],
)
def test_files_of_the_model_are_files_of_the_shard_and_in_their_format_alone(
    written_as: str, shared: list[str]
) -> None:
    data = json.dumps(document(format=written_as, model_files=shared)).encode()
    with pytest.raises(CorruptShard, match="files of the model"):
        Manifest.from_json(data, key=KEY)


@pytest.mark.parametrize("found", ["shashin.manifest/5", "shashin.pointer/1", "", None, 1, ["x"]])
def test_another_format_is_refused_by_name(found: object) -> None:
    data = json.dumps(document(format=found)).encode()
    with pytest.raises(UnknownFormat, match=r"manifest\.json has format .*; this version reads"):
        Manifest.from_json(data, key=KEY)


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b"[1]", b"null", b"7", b'"format"', b"{}", b"\xff\xfe", b"[" * 100_000],
    ids=lambda data: repr(data[:10]),
)
def test_an_invalid_manifest_is_rejected_by_name(data: bytes) -> None:
    with pytest.raises(CorruptShard, match=r"manifest\.json is not a manifest"):
        Manifest.from_json(data, key=KEY)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"rows": "many"}, "rows"),
        ({"dimensions": None}, "dimensions"),
        ({"files": 7}, "files"),
        ({"files": ["index.usearch"]}, "files"),
        ({"files": [{"name": "index.usearch", "size": 1}]}, "sha256"),
        ({"source_ranges": [{"partition": 0, "from_offset": 0}]}, "to_offset"),
        ({"source_ranges": [{"partition": 0, "from_offset": "a", "to_offset": 1}]}, "from_offset"),
        ({"from_the_future": 1}, "from_the_future"),
    ],
)
def test_a_wrong_field_is_refused_by_its_name(changes: dict[str, Any], named: str) -> None:
    data = json.dumps(document(**changes)).encode()
    with pytest.raises(
        CorruptShard, match=rf"(?s)manifest\.json is not a complete manifest.*{named}"
    ):
        Manifest.from_json(data, key=KEY)


@pytest.mark.parametrize("name", sorted(document().keys() - OPTIONAL))
def test_a_missing_field_is_refused_by_its_name(name: str) -> None:
    rest = {key: value for key, value in document().items() if key != name}
    with pytest.raises(CorruptShard, match=rf"(?s)not a complete manifest.*{name}"):
        Manifest.from_json(json.dumps(rest).encode(), key=KEY)


@given(st.data())
def test_a_manifest_that_is_cut_short_is_refused(data: st.DataObject) -> None:
    whole = GOLDEN.read_bytes().rstrip()
    with pytest.raises(CorruptShard):
        Manifest.from_json(whole[: data.draw(st.integers(0, len(whole) - 1))], key=KEY)


@settings(deadline=None)
@given(
    st.binary(max_size=200)
    | JSON.map(lambda value: json.dumps(value).encode())
    | st.builds(
        lambda name, value: json.dumps(document(**{name: value})).encode(),
        st.sampled_from(sorted(document())),
        JSON,
    )
)
def test_any_bytes_are_a_manifest_that_can_be_used_or_a_repository_error(data: bytes) -> None:
    with suppress(RepositoryError):
        manifest = Manifest.from_json(data, key=KEY)
        assert Manifest.from_json(manifest.to_json(), key=KEY) == manifest
        assert sorted([manifest.source_ranges, KNOWN.source_ranges])
