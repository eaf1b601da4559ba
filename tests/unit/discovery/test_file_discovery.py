"""Discovery from a file: changes are seen at once, and an invalid file loses nothing."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shashin.discovery.file import FileDiscovery
from shashin.discovery.protocol import Endpoint
from shashin.local.processes import EndpointSpec, ProcessSpec, discovery_path, write_discovery
from shashin.model_space import ModelSpace

INDEXER = Endpoint("indexer", "indexer", "127.0.0.1:50053", "live")
SERVER = Endpoint("index-server-hourly", "index-server", "127.0.0.1:50054", "hourly")
EMBEDDER = Endpoint("embedder", "embedder", "127.0.0.1:50052", model_id="demo-v1")

ENDPOINTS = st.lists(
    st.builds(
        Endpoint,
        name=st.text(min_size=1, max_size=5),
        role=st.sampled_from(["indexer", "index-server", "embedder"]),
        address=st.text(max_size=8),
        tier=st.sampled_from(["", "live", "hourly", "daily"]),
        model_id=st.sampled_from(["", "demo-v1", "another/model"]),
    ),
    max_size=5,
    unique_by=lambda endpoint: endpoint.name,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return discovery_path(tmp_path)


@pytest.fixture
def discovery(path: Path) -> FileDiscovery:
    return FileDiscovery(path)


def put(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def remove(path: Path) -> None:
    path.unlink()


def serving(*endpoints: Endpoint, name: str = "") -> ProcessSpec:
    """Return a process that serves these endpoints, named after the first one by default."""
    specs = tuple(
        EndpointSpec(e.role, e.address, e.tier or None, e.model_id or None) for e in endpoints
    )
    return ProcessSpec(name or endpoints[0].name, (), endpoints=specs)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])  # each replaces the last
@given(ENDPOINTS)
async def test_the_supervisors_file_is_read_sorted_by_name(
    path: Path, discovery: FileDiscovery, endpoints: list[Endpoint]
) -> None:
    write_discovery(path.parent, [serving(endpoint) for endpoint in endpoints])
    assert await discovery.endpoints() == sorted(endpoints)


async def test_endpoints_of_one_process_have_names_of_their_own(
    path: Path, discovery: FileDiscovery
) -> None:
    write_discovery(path.parent, [serving(INDEXER, SERVER, name="both"), serving(EMBEDDER)])
    assert [endpoint.name for endpoint in await discovery.endpoints()] == [
        "both-0",
        "both-1",
        "embedder",
    ]


async def test_the_active_model_is_read_and_may_be_missing(
    path: Path, discovery: FileDiscovery
) -> None:
    assert await discovery.active_model() is None
    for active in (ModelSpace("demo-v1", 128), None, ModelSpace("other", 64)):
        write_discovery(path.parent, [serving(SERVER)], active)
        assert await discovery.active_model() == active
        assert await discovery.endpoints() == [SERVER]
    remove(path)
    assert await discovery.active_model() is None


@pytest.mark.parametrize(
    "active",
    [
        7,
        {},
        {"model_id": "m"},
        {"model_id": 7, "dimensions": 8},
        {"model_id": "../m", "dimensions": 8},
    ]
    + [{"model_id": "m", "dimensions": wrong} for wrong in (0, "8", None, True)],
)
async def test_an_invalid_active_model_keeps_the_last_good_one(
    path: Path, discovery: FileDiscovery, active: object
) -> None:
    write_discovery(path.parent, [serving(SERVER)], ModelSpace("demo-v1", 128))
    assert await discovery.active_model() == ModelSpace("demo-v1", 128)
    put(path, json.dumps({"endpoints": [], "active_model": active}).encode())
    assert await discovery.active_model() == ModelSpace("demo-v1", 128)
    assert await discovery.endpoints() == [SERVER]


async def test_a_missing_file_has_no_endpoints_and_is_read_once_it_exists(
    path: Path, discovery: FileDiscovery
) -> None:
    assert await discovery.endpoints() == []
    write_discovery(path.parent, [serving(SERVER)])
    assert await discovery.endpoints() == [SERVER]


async def test_a_removed_file_has_no_endpoints(path: Path, discovery: FileDiscovery) -> None:
    write_discovery(path.parent, [serving(SERVER)])
    assert await discovery.endpoints() == [SERVER]
    remove(path)
    assert await discovery.endpoints() == []


async def test_every_change_is_seen_on_the_next_read(path: Path, discovery: FileDiscovery) -> None:
    states = [[SERVER], [INDEXER, SERVER], [], [INDEXER], [EMBEDDER, INDEXER]]
    for ready in states * 5:
        write_discovery(path.parent, [serving(endpoint) for endpoint in ready])
        assert await discovery.endpoints() == sorted(ready)
        assert await discovery.endpoints() == sorted(ready)


async def test_a_change_of_the_same_length_is_seen(path: Path, discovery: FileDiscovery) -> None:
    for port in range(50_000, 50_050):
        moved = Endpoint("indexer", "indexer", f"127.0.0.1:{port}", "live")
        write_discovery(path.parent, [serving(moved)])
        assert await discovery.endpoints() == [moved]


def entry(**changes: Any) -> dict[str, Any]:
    return {"name": "a", "role": "embedder", "tier": None, "address": "127.0.0.1:1", **changes}


BROKEN = [
    b"",
    b'{"endpoints": [{"name": "index',
    b"\xff\xfe\x00",
    b"null",
    b"[]",
    b"{}",
    b'{"endpoints": null}',
    b'{"endpoints": 7}',
    b'{"endpoints": ["indexer"]}',
    b'{"endpoints": [{"name": "indexer", "role": "indexer"}]}',
    json.dumps({"endpoints": [entry(), entry(name=7)]}).encode(),
    json.dumps({"endpoints": [entry(name=7)]}).encode(),
    json.dumps({"endpoints": [entry(address=None)]}).encode(),
    json.dumps({"endpoints": [entry(tier=3)]}).encode(),
    json.dumps({"endpoints": [entry(role=3)]}).encode(),
    json.dumps({"endpoints": [entry(model_id=["demo-v1"])]}).encode(),
]


@pytest.mark.parametrize("content", BROKEN)
async def test_an_invalid_file_keeps_the_last_good_endpoints_and_is_logged_once(
    path: Path, discovery: FileDiscovery, content: bytes
) -> None:
    write_discovery(path.parent, [serving(SERVER), serving(INDEXER)])
    known = await discovery.endpoints()
    put(path, content)
    with structlog.testing.capture_logs() as logged:
        assert await discovery.endpoints() == known == [SERVER, INDEXER]
        assert await discovery.endpoints() == known
    assert [line["path"] for line in logged] == [str(path)]
    assert logged[0]["log_level"] == "warning"
    assert f"discovery file {path} is invalid: " in str(discovery.problem)
    write_discovery(path.parent, [serving(EMBEDDER)])
    assert await discovery.endpoints() == [EMBEDDER], "the next valid file is read"
    assert discovery.problem is None


@pytest.mark.parametrize("content", BROKEN)
async def test_a_file_that_was_never_valid_has_no_endpoints(
    path: Path, discovery: FileDiscovery, content: bytes
) -> None:
    put(path, content)
    assert await discovery.endpoints() == []


async def test_an_endpoint_of_a_role_that_is_not_known_hides_no_other(
    path: Path, discovery: FileDiscovery
) -> None:
    # A newer supervisor may list endpoints that an older router does not use.
    entries = [entry(name="z", role="another"), entry(name="a")]
    put(path, json.dumps({"endpoints": entries, "more": 1}).encode())
    assert [endpoint.name for endpoint in await discovery.endpoints()] == ["a", "z"]


async def test_the_tier_and_model_of_an_entry_are_optional(
    path: Path, discovery: FileDiscovery
) -> None:
    put(path, b'{"endpoints": [{"name": "a", "role": "indexer", "address": "127.0.0.1:1"}]}')
    assert await discovery.endpoints() == [Endpoint("a", "indexer", "127.0.0.1:1")]


async def test_a_folder_in_place_of_the_file_keeps_the_last_good_endpoints(
    path: Path, discovery: FileDiscovery
) -> None:
    write_discovery(path.parent, [serving(SERVER)])
    await discovery.endpoints()
    remove(path)
    (path / "in the way").mkdir(parents=True)
    assert await discovery.endpoints() == [SERVER]


async def test_a_path_below_a_file_has_no_endpoints(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    assert await FileDiscovery(tmp_path / "state" / "discovery.json").endpoints() == []


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])  # each replaces the last
@given(st.binary(max_size=60))
async def test_no_file_content_crashes_the_reader(path: Path, content: bytes) -> None:
    put(path, content)
    assert await FileDiscovery(path).endpoints() == []


async def test_a_reader_never_sees_a_mixture_of_two_files(
    path: Path, discovery: FileDiscovery
) -> None:
    def ready(generation: int) -> list[Endpoint]:
        return [
            Endpoint(f"server-{number}", "index-server", f"127.0.0.1:{generation}", "hourly")
            for number in range(9)
        ]

    def overwrite() -> None:
        for generation in range(1000, 1150):
            write_discovery(path.parent, [serving(endpoint) for endpoint in ready(generation)])

    seen = []
    with structlog.testing.capture_logs() as logged:
        writing = asyncio.ensure_future(asyncio.to_thread(overwrite))
        while not writing.done():
            seen.append(await discovery.endpoints())
            await asyncio.sleep(0)
        await writing
    assert logged == [], "half a file would be invalid"
    assert await discovery.endpoints() == ready(1149)
    for endpoints in seen:
        assert len({endpoint.address for endpoint in endpoints}) == bool(endpoints)
        assert len(endpoints) in {0, 9}


async def test_an_endpoint_may_have_a_group_and_a_zone(
    path: Path, discovery: FileDiscovery
) -> None:
    entry = {"name": "a", "role": "index-server", "address": "h:1", "group": "g", "zone": "z"}
    put(path, json.dumps({"endpoints": [entry]}).encode())
    (found,) = await discovery.endpoints()
    assert (found.group, found.zone) == ("g", "z")


@pytest.mark.parametrize("name", ["group", "zone"])
async def test_a_group_or_zone_that_is_no_string_is_refused_by_name(
    path: Path, discovery: FileDiscovery, name: str
) -> None:
    entry = {"name": "a", "role": "index-server", "address": "h:1", name: 7}
    put(path, json.dumps({"endpoints": [entry]}).encode())
    with structlog.testing.capture_logs() as logs:
        assert await discovery.endpoints() == []
    assert f"{name} must be a string, found 7" in logs[0]["error"]
