"""The plan of a local system: every process can be probed, discovered and started."""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shashin.errors import SettingsError
from shashin.local.given_settings import (
    DECIDED,
    OPTIONS,
    PHOTO_ROOTS,
    THUMBNAILS,
    settings_not_used,
    settings_passed_on,
)
from shashin.local.plan import RunningModel, SystemConfig, plan_processes
from shashin.local.ports import HOST
from shashin.local.processes import ProcessSpec, discovery_path, start_order
from shashin.runtime.settings import ServiceSettings, load_settings

STATE = Path("/srv/state")
CONFIG = SystemConfig(
    kafka=f"{HOST}:9092",
    repository="gs://bucket/folder",
    model="demo-v1",
    model_id="demo-v1",
    dimensions=128,
    bucket_seconds=60,
    grace_seconds=5.0,
    canary=True,
)


ALSO = replace(CONFIG, also=RunningModel("/models/second.pt", "second", 64))


def planned(
    first_port: int | None = None,
    environment: Mapping[str, str] | None = None,
    config: SystemConfig = CONFIG,
) -> list[ProcessSpec]:
    """Return the plan with the preferred ports, or with consecutive ports from a first one."""
    given_ports = iter(range(first_port or 0, 65536))
    return plan_processes(
        STATE,
        config,
        choose_port=(lambda preferred: preferred)
        if first_port is None
        else (lambda _: next(given_ports)),
        environment={} if environment is None else environment,
    )


SPECS = {spec.name: spec for spec in planned()}
every_process = pytest.mark.parametrize("name", SPECS)


def settings_class(spec: ProcessSpec) -> type[ServiceSettings]:
    module = importlib.import_module(f"{spec.argv[-1]}.settings")
    (found,) = (
        member
        for member in vars(module).values()
        if inspect.isclass(member)
        and issubclass(member, ServiceSettings)
        and member.__module__ == module.__name__
    )
    return found


def read_settings(spec: ProcessSpec) -> ServiceSettings:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in spec.env.items():
            patch.setenv(name, value)
        return load_settings(settings_class(spec))


@given(st.none() | st.integers(1024, 60_000))
def test_no_two_processes_listen_on_the_same_port(first_port: int | None) -> None:
    addresses = [address for spec in planned(first_port) for address in spec.addresses.values()]
    assert len(set(addresses)) == len(addresses)
    assert {address.rpartition(":")[0] for address in addresses} == {HOST}, "others cannot reach it"


def test_no_process_but_the_router_prefers_a_port_that_linux_gives_to_connections() -> None:
    by_default = range(32_768, 61_000)
    found = {
        name
        for name, spec in SPECS.items()
        for address in spec.addresses.values()
        if int(address.rpartition(":")[2]) in by_default
    }
    assert found == {"router"}


@every_process
def test_every_process_is_probed_where_it_listens(name: str) -> None:
    spec = SPECS[name]
    assert spec.ready_url is not None
    assert spec.live_url is not None
    assert urlsplit(spec.ready_url).path == "/readyz"
    assert urlsplit(spec.live_url).path == "/livez"
    assert {urlsplit(url).netloc for url in (spec.ready_url, spec.live_url)} == {
        spec.addresses["http"]
    }


@every_process
def test_every_process_accepts_its_settings(name: str) -> None:
    spec = SPECS[name]
    told = read_settings(spec)
    assert f"{told.http_host}:{told.http_port}" == spec.addresses["http"]
    assert told.kafka == CONFIG.kafka
    found = told.model_dump()
    if "grpc" in spec.addresses:
        assert f"{found['grpc_host']}:{found['grpc_port']}" == spec.addresses["grpc"]
    else:
        assert "grpc_port" not in found, "what answers gRPC needs an address"


def test_the_page_of_the_router_has_an_address() -> None:
    told = read_settings(SPECS["router"]).model_dump()
    assert SPECS["router"].addresses["rest"] == f"{told['rest_host']}:{told['rest_port']}"
    assert told["rest_port"] == 8080
    assert not any("rest" in spec.addresses for name, spec in SPECS.items() if name != "router")


@every_process
def test_no_process_gets_an_unknown_setting(name: str) -> None:
    # A misspelt variable would be silently ignored.
    spec = SPECS[name]
    known = {f"SHASHIN_{field.upper()}" for field in settings_class(spec).model_fields}
    assert {name for name in spec.env if name.startswith("SHASHIN_")} <= known


def test_all_processes_share_model_repository_and_discovery() -> None:
    told = {name: read_settings(spec).model_dump() for name, spec in SPECS.items()}
    for setting, expected in (
        ("model_id", CONFIG.model_id),
        ("dimensions", CONFIG.dimensions),
        ("repository", CONFIG.repository),
        ("discovery", discovery_path(STATE).as_uri()),
        ("bucket_seconds", CONFIG.bucket_seconds),
        ("grace_seconds", CONFIG.grace_seconds),
    ):
        values = [found[setting] for found in told.values() if setting in found]
        assert values
        assert set(values) == {expected}, setting


def test_what_others_search_is_in_discovery_under_its_address() -> None:
    listed = {
        (endpoint.role, endpoint.tier): endpoint.address == spec.addresses["grpc"]
        for spec in SPECS.values()
        for endpoint in spec.endpoints
    }
    assert listed == {
        ("embedder", None): True,
        ("indexer", "live"): True,
        ("index-server", "hourly"): True,
        ("index-server", "daily"): True,
        ("index-server", "monthly"): True,
    }


def test_what_others_search_is_in_discovery_with_its_model() -> None:
    models = {endpoint.model_id for spec in SPECS.values() for endpoint in spec.endpoints}
    assert models == {CONFIG.model_id}


def test_no_two_processes_share_a_folder_to_work_in() -> None:
    folders = [
        found["work_folder"]
        for found in (read_settings(spec).model_dump() for spec in SPECS.values())
        if "work_folder" in found
    ]
    assert len(set(folders)) == len(folders) > 1
    assert all(folder.is_relative_to(STATE) for folder in folders)


def test_the_plan_can_be_started() -> None:
    assert len(start_order(planned())) == len(SPECS) == 9


# --- a second model ------------------------------------------------------------------------------


def test_a_second_model_has_processes_folders_and_ports_of_its_own() -> None:
    specs = {spec.name: spec for spec in planned(config=ALSO)}
    beside = {name: spec for name, spec in specs.items() if name.endswith("@second")}
    assert {name.removesuffix("@second") for name in beside} == {
        *("embedder", "indexer", "image-builder"),
        *("index-server-hourly", "index-server-daily", "index-server-monthly"),
    }
    assert specs.keys() - beside.keys() == SPECS.keys()
    addresses = [a for spec in specs.values() for a in spec.addresses.values()]
    folders = [
        s.env["SHASHIN_WORK_FOLDER"] for s in specs.values() if "SHASHIN_WORK_FOLDER" in s.env
    ]
    assert len(set(addresses)) == len(addresses)
    assert len(set(folders)) == len(folders) == 8
    for name, spec in beside.items():
        told = read_settings(spec).model_dump()
        assert told.get("model_id", "second") == "second"
        assert told.get("dimensions", 64) == 64
        assert told.get("model", "/models/second.pt") == "/models/second.pt"
        assert {endpoint.model_id for endpoint in spec.endpoints} <= {"second"}, name
    assert specs["router"].env == SPECS["router"].env | {
        name: specs["router"].env[name] for name in ("SHASHIN_HTTP_PORT",)
    }, "it searches the first model until the other one is active"


def test_the_second_models_indexer_begins_before_its_embedder() -> None:
    names = [spec.name for spec in start_order(planned(config=ALSO))]
    assert names.index("indexer@second") < names.index("embedder@second")


def test_two_indexers_never_share_a_folder_of_hidden_listings() -> None:
    folders = [s.env.get("SHASHIN_HIDDEN_FOLDER") for s in planned(config=ALSO)]
    given = [folder for folder in folders if folder]
    assert len(set(given)) == len(given) == 2


# --- settings in the user's environment ----------------------------------------------------------


def roots(given: str | None) -> list[str]:
    environment = {} if given is None else {PHOTO_ROOTS: given}
    (downloader,) = (spec for spec in planned(None, environment) if spec.name == "downloader")
    return [str(root) for root in read_settings(downloader).roots()]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("given", "added"),
    [
        (None, []),
        ("", []),
        ("/mnt/app photos", ["/mnt/app photos"]),
        ('["/a:b", "/c,/d", "/e f"]', ["/a:b", "/c,/d", "/e f"]),
        (json.dumps([str(STATE / "photos")]), []),
    ],
)
def test_the_users_photo_folders_are_added_to_the_one_of_published_photos(
    given: str | None, added: list[str]
) -> None:
    assert roots(given) == [str(STATE / "photos"), *added]


def test_published_photos_can_be_read_from_a_state_folder_with_any_path() -> None:
    for state in ("/srv/a:b", "/srv/a,/b", "/srv/[x]"):
        (downloader, *_) = plan_processes(
            Path(state), CONFIG, choose_port=lambda port: port, environment={}
        )
        settings = read_settings(downloader)
        assert settings.roots() == (Path(state) / "photos",)  # type: ignore[attr-defined]


@pytest.mark.parametrize("given", ["/a:/b", "/a, /b", "photos", '["photos"]', "[/a]", "[1]"])
def test_photo_folders_that_are_ambiguous_or_relative_are_refused_by_name(given: str) -> None:
    with pytest.raises(SettingsError, match="SHASHIN_PHOTO_ROOTS="):
        planned(None, {PHOTO_ROOTS: given})


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, (STATE / "thumbnails").as_uri()),
        ("gs://bucket/web", "gs://bucket/web"),
        ("", ""),
    ],
)
def test_the_router_reads_thumbnails_where_the_downloader_writes_them(
    given: str | None, expected: str
) -> None:
    environment = {} if given is None else {THUMBNAILS: given}
    told = {spec.name: read_settings(spec).model_dump() for spec in planned(None, environment)}
    found = {name: values["thumbnails"] for name, values in told.items() if "thumbnails" in values}
    assert found == {"downloader": expected, "router": expected}


def test_a_number_of_threads_that_the_user_sets_is_not_overridden() -> None:
    for spec in planned(None, {"OMP_NUM_THREADS": "4"}):
        assert "OMP_NUM_THREADS" not in spec.env
        assert spec.env["OPENBLAS_NUM_THREADS"] == "1"


def test_every_setting_of_the_plan_is_an_option_or_combined_or_named_as_not_used() -> None:
    own = {name for spec in SPECS.values() for name in spec.env if name.startswith("SHASHIN_")}
    own.remove("SHASHIN_ROUTER")  # the command has a variable of this name, which is not passed on
    assert own == OPTIONS | DECIDED | {PHOTO_ROOTS, THUMBNAILS}
    environment = dict.fromkeys(own, "x") | {"SHASHIN_CONCURRENCY": "4", "SHASHIN_STATE": "s"}
    assert settings_not_used(environment) == sorted(DECIDED)
    passed_on = {PHOTO_ROOTS: "x", THUMBNAILS: "x", "SHASHIN_CONCURRENCY": "4"}
    assert settings_passed_on(environment) == passed_on


def test_a_system_without_a_canary_has_the_same_processes_but_it() -> None:
    without = [spec.name for spec in planned(config=replace(CONFIG, canary=False))]
    assert [*without, "canary"] == list(SPECS)


def test_the_canary_searches_through_the_router_and_its_photos_may_be_read() -> None:
    canary, downloader = SPECS["canary"], SPECS["downloader"]
    assert canary.env["SHASHIN_ROUTER"] == SPECS["router"].addresses["grpc"]
    photos = Path(urlsplit(canary.env["SHASHIN_PHOTOS"]).path)
    roots = [Path(root) for root in json.loads(downloader.env[PHOTO_ROOTS])]
    assert any(photos.is_relative_to(root) for root in roots)
