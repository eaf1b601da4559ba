from __future__ import annotations

import errno
import json
import os
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from typer.testing import CliRunner, Result

from shashin.cli.app import app
from shashin.cli.up import _print_status
from shashin.local.ports import free_port
from shashin.terminal.console import command
from shashin.tiers import HOURLY
from shashin.v1 import index_pb2, search_pb2
from tests.unit.cli.fake_router import FakeRouter, fake_router

GROUPS = ["", "builds", "cache", "dlq", "indexes", "kafka", "model"]
COMMANDS = [
    "up",
    "down",
    "status",
    "publish",
    "sell",
    "remove",
    "search",
    "coverage",
    "locate",
    "demo",
    "builds run",
    "builds ls",
    "builds show",
    "builds logs",
    "builds retry",
    "builds cancel",
    "builds rm",
    "cache stats",
    "cache prune",
    "dlq ls",
    "dlq show",
    "dlq replay",
    "dlq drop",
    "indexes ls",
    "indexes inspect",
    "indexes verify",
    "kafka up",
    "kafka down",
    "model train",
    "model eval",
]


@pytest.fixture
def router() -> Iterator[FakeRouter]:
    with fake_router() as running:
        yield running


def shashin(*args: str, state: Path | None = None) -> Result:
    env = {"SHASHIN_STATE": str(state)} if state is not None else {}
    return CliRunner().invoke(app, list(args), env=env)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_every_command_has_an_example(command: str) -> None:
    result = shashin(*command.split(), "--help")
    assert result.exit_code == 0
    assert f"Example:  shashin {command}" in result.stdout


@pytest.mark.parametrize("group", GROUPS)
def test_a_group_without_a_command_shows_its_help(group: str) -> None:
    assert "Commands" in shashin(*group.split()).output


def test_hits_are_a_table(router: FakeRouter, tmp_path: Path) -> None:
    photo = tmp_path / "a.jpg"
    photo.write_bytes(b"bytes of a photo")
    router.hits = [search_pb2.Hit(listing_id="listing-7", score=0.75, tier=HOURLY)]
    result = shashin("search", str(photo), "--router", router.address, "--category", "shoes")
    assert result.exit_code == 0
    assert "listing-7" in result.stdout
    assert router.requests[0].photo == b"bytes of a photo"
    assert list(router.requests[0].filter.categories) == ["shoes"]
    assert router.requests[0].filter == index_pb2.Filter(categories=["shoes"])


def test_hits_are_json_for_a_script(router: FakeRouter) -> None:
    router.hits = [search_pb2.Hit(listing_id="listing-7", score=0.75)]
    result = shashin("search", "--listing", "x", "-k", "3", "--router", router.address, "--json")
    assert json.loads(result.stdout)["hits"][0]["listing_id"] == "listing-7"
    assert (router.requests[0].listing_id, router.requests[0].k) == ("x", 3)


def test_a_query_that_the_router_rejects_is_one_line_and_exit_code_2(router: FakeRouter) -> None:
    router.refusal = (grpc.StatusCode.NOT_FOUND, "ListingNotFound: listing x is not searchable")
    result = shashin("search", "--listing", "x", "--router", router.address)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr == "error: listing x is not searchable\n"


def test_an_unavailable_router_is_one_line_and_exit_code_1() -> None:
    result = shashin("search", "--listing", "x", "--router", "127.0.0.1:1")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: the router at 127.0.0.1:1 is unavailable")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "args",
    [
        ["search", "nowhere.jpg"],
        ["search"],
        ["publish", "nowhere"],
        ["sell", "a"],
        ["locate", "a"],
        ["coverage"],
        ["indexes", "inspect", "none"],
        ["demo", "--sold", "0.9", "--updated", "0.5"],
        ["model", "train", "--model-id", "../mine"],
    ],
)
def test_a_user_error_is_one_line_without_a_traceback(args: list[str], tmp_path: Path) -> None:
    result = shashin(*args, state=tmp_path)
    assert result.exit_code in {1, 2}
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert result.exception is None or isinstance(result.exception, SystemExit)


def test_incomplete_coverage_is_exit_code_1(router: FakeRouter) -> None:
    assert shashin("coverage", "--router", router.address).exit_code == 0
    router.coverage = search_pb2.Coverage(unknown_partitions=[2])
    result = shashin("coverage", "--router", router.address, "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["coverage"]["unknown_partitions"] == [2]


def test_a_stage_that_is_behind_is_shown_and_does_not_change_the_exit_code(
    router: FakeRouter,
) -> None:
    lag = index_pb2.StageLag(stage="downloader", records=7, seconds=3)
    router.coverage = search_pb2.Coverage(complete=True, stages=[lag])
    result = shashin("coverage", "--router", router.address)
    assert result.exit_code == 0
    shown = " ".join(result.stdout.split())
    assert "coverage complete, but perhaps not every event so far was searched" in shown
    assert "the downloader is 7 records (3 s) behind" in shown


def mixed_endpoints() -> list[search_pb2.EndpointStatus]:
    """Return a searched endpoint, an unavailable one, and one of another model."""
    return [
        search_pb2.EndpointStatus(
            name="indexer", tier="live", address="h:1", ready=True, model_id="demo-v1"
        ),
        search_pb2.EndpointStatus(name="dead", tier="hourly", address="h:2", error="UNAVAILABLE"),
        search_pb2.EndpointStatus(name="next", tier="hourly", address="h:3", model_id="demo-v2"),
    ]


def test_coverage_shows_an_endpoint_of_another_model_as_such_and_not_as_failed(
    router: FakeRouter,
) -> None:
    router.endpoints = mixed_endpoints()
    result = shashin("coverage", "--router", router.address)
    assert result.exit_code == 0
    cells = [list(map(str.strip, line.split("│"))) for line in result.stdout.splitlines()]
    shown = {row[1]: (row[4], row[5]) for row in cells if len(row) > 5}
    assert shown == {
        "indexer": ("demo-v1", "yes"),
        "dead": ("-", "no"),
        "next": ("demo-v2", "other model"),
    }
    as_json = shashin("coverage", "--router", router.address, "--json")
    assert [e["model_id"] for e in json.loads(as_json.stdout)["endpoints"]] == [
        "demo-v1",
        "",
        "demo-v2",
    ]


def test_status_shows_the_model_of_an_endpoint_that_is_not_searched(
    capsys: pytest.CaptureFixture[str],
) -> None:
    status = search_pb2.StatusResponse(model_id="demo-v1", endpoints=mixed_endpoints())
    _print_status([], status, "")
    shown = capsys.readouterr().out
    assert (
        "next at h:3 holds model 'demo-v2' and is not searched: the router searches 'demo-v1'"
        in shown.splitlines()
    )
    assert "dead" not in shown, "the table of processes shows what is down"


def test_locate_shows_which_listings_are_not_searchable(router: FakeRouter) -> None:
    router.locations = {
        "a": search_pb2.Location(
            listing_id="a", version=5, photo_numbers=[0, 1], tiers=["live", "hourly"]
        )
    }
    assert shashin("locate", "a", "--router", router.address).exit_code == 0
    result = shashin("locate", "a", "b", "--router", router.address, "--json")
    assert result.exit_code == 1
    assert [entry["searchable"] for entry in json.loads(result.stdout)] == [True, False]


def test_without_shards_nothing_is_listed_and_verify_succeeds(tmp_path: Path) -> None:
    result = shashin("indexes", "ls", state=tmp_path)
    assert (result.exit_code, result.stdout) == (0, "no shards sealed yet\n")
    assert shashin("indexes", "verify", state=tmp_path).exit_code == 0


def test_down_and_status_without_anything_running(tmp_path: Path) -> None:
    assert "nothing was running" in shashin("down", state=tmp_path).stdout
    result = shashin("status", state=tmp_path)
    assert result.exit_code == 1
    assert "`shashin up` starts everything" in result.stdout
    assert json.loads(shashin("status", "--json", state=tmp_path).stdout)["running"] is False


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["sell", ""], "'' is not a listing id: it has 0 bytes; expected 1 to 256"),
        (["remove", "a", "x" * 257], "it has 257 bytes; expected 1 to 256"),
        (["locate", "caf\udce9"], r"'caf\udce9' is not a listing id: it has bytes that are not"),
        (["search", "--listing", ""], "'' is not a listing id"),
        (["search", "--listing", "a", "--brand", "\udce9"], r"'\udce9' is not UTF-8 text"),
        (["search", "--listing", "a", "--under", "bags/"], "--under is 'bags/'; expected a path"),
        (["search", "--listing", "a", "--price", "1000"], "--price '1000' is not a price range"),
    ],
)
def test_an_argument_that_no_listing_can_have_is_one_line_and_sends_nothing(
    args: list[str], words: str, tmp_path: Path
) -> None:
    result = shashin(*args, state=tmp_path)
    assert result.exit_code == 2
    assert words in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


def test_notes_on_the_query_are_printed(router: FakeRouter) -> None:
    router.notes = ['no listing has category "shose": check its spelling']
    args = ("search", "--listing", "a", "--category", "shose", "--router", router.address)
    assert 'no listing has category "shose": check its spelling\n' in shashin(*args).stdout
    assert json.loads(shashin(*args, "--json").stdout)["notes"] == router.notes


# --- what publish says before it publishes -------------------------------------------------------


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    folder = tmp_path / "mixed"
    for name in ("sofa/1.jpg", "sofa/2.jxl", "2024/chair/1.jpg", "lamp.jpg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"photo")
    return folder


def test_publish_names_what_it_leaves_out(mixed: Path, tmp_path: Path) -> None:
    result = shashin("publish", str(mixed), state=tmp_path / "state")
    left_out = [line for line in result.stderr.splitlines() if line.startswith("left out: ")]
    assert len(left_out) == 2
    assert f"{mixed / 'sofa' / '2.jxl'}" in result.stderr
    assert f"{mixed / '2024' / 'chair'}" in result.stderr
    assert "nothing has been started" in result.stderr.splitlines()[-1]


def test_publish_stops_before_anything_is_sent_if_a_listing_is_wrong(
    mixed: Path, tmp_path: Path
) -> None:
    (mixed / "broken").mkdir()
    (mixed / "broken" / "1.jpg").symlink_to(mixed / "nowhere")
    one = shashin("publish", str(mixed), state=tmp_path / "state")
    assert one.exit_code == 2
    assert one.stderr.splitlines()[-1] == (
        f"error: {mixed / 'broken'} has 1.jpg, which is a link to nothing; nothing was published; "
        "--skip-bad publishes the other 2"
    )
    (mixed / "gone.jpg").symlink_to(mixed / "nowhere")
    two = shashin("publish", str(mixed), state=tmp_path / "state")
    assert two.exit_code == 2
    assert two.stderr.splitlines()[-3:] == [
        f"error: {mixed / 'broken'} has 1.jpg, which is a link to nothing",
        f"error: {mixed / 'gone.jpg'} is a link to nothing",
        "error: nothing was published: there are 2 problems; --skip-bad publishes the other 2",
    ]
    skipping = shashin("publish", str(mixed), "--skip-bad", state=tmp_path / "state")
    assert f"skipped: {mixed / 'gone.jpg'} is a link to nothing" in skipping.stderr
    assert "nothing has been started" in skipping.stderr.splitlines()[-1]


def test_no_event_is_sent_if_a_later_photo_cannot_be_copied(
    mixed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy, copied = shutil.copyfileobj, 0

    def full_at_the_second(*args: Any) -> None:
        nonlocal copied
        copied += 1
        if copied > 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        copy(*args)

    monkeypatch.setattr("shutil.copyfileobj", full_at_the_second)
    (mixed / "lamp.jpg").write_bytes(b"another photo")
    # Nothing listens there: whoever sent the first listing would fail at that instead.
    nobody = f"127.0.0.1:{free_port()}"
    result = shashin(
        "publish", str(mixed), "--kafka", nobody, "--no-wait", state=tmp_path / "state"
    )
    assert copied == 2
    assert result.exit_code == 2
    assert "cannot be copied (no space left on device)" in result.stderr.splitlines()[-1]


def test_a_command_that_needs_kafka_says_that_nothing_was_ever_started(tmp_path: Path) -> None:
    for args in (["dlq", "ls"], ["sell", "a", "--no-wait"], ["dlq", "drop", "--all-open"]):
        result = shashin(*args, state=tmp_path / "state")
        assert result.exit_code == 2
        assert result.stderr == (
            f"error: nothing has been started in {tmp_path / 'state'}: `shashin up` starts everything\n"
        )
    assert not (tmp_path / "state").exists()


def test_a_full_disk_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async def full(*_args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("shashin.local.system.System.start_kafka", full)
    result = shashin("kafka", "up", state=tmp_path / "state")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == "error: no space left on device"


def test_hints_are_quoted_for_a_shell() -> None:
    hint = command("search", "a photo.jpg", "--state", Path("my state;reboot"))
    assert shlex.split(hint)[1:] == ["search", "a photo.jpg", "--state", "my state;reboot"]
