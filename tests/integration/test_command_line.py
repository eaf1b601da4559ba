"""The command line against the whole system: output, exit codes and state."""

from __future__ import annotations

import json
import os
import re
import shlex
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shashin.client.listing_events import SOLD
from shashin.local.identity import ProcessIdentity
from shashin.local.system import System
from shashin.tiers import LIVE, SEALED_TIERS
from tests.support.rendered_listings import photo_of
from tests.support.running_system import SERVICES, ConnectedSystem, listing_ids_of
from tests.support.shashin_command import shashin, until_searched
from tests.support.waiting import until


def photo_file(folder: Path, name: str, number: int) -> Path:
    """Write a rendered photo; returns its path."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(photo_of(number))
    return path


def ids(answer: dict[str, Any]) -> list[str]:
    return [hit["listing_id"] for hit in answer["hits"]]


# --- publishing and searching -------------------------------------------------------------------


async def test_a_folder_is_published_with_its_subfolders_and_failures_are_reported(
    system: ConnectedSystem, tmp_path: Path
) -> None:
    state, folder = system.system.folder, tmp_path / "mine"
    first = photo_file(folder, "cli-lamp/1.jpg", 300)
    photo_file(folder, "cli-lamp/2.jpg", 301)
    photo_file(folder, "cli-chair/1.jpg", 302)
    (folder / "cli-chair" / "2.jpg").write_bytes(b"this is not a photo")
    photo_file(folder, "cli-single.jpg", 303)
    (folder / "cli-broken").mkdir()
    (folder / "cli-broken" / "1.jpg").write_bytes(b"")
    (folder / "notes.txt").write_text("no photo, and none of its business")

    published = await shashin("publish", folder, state=state, ends_with=1)
    assert "3 of 4 listings are searchable" in published.out
    assert "listing cli-chair, photo 2 skipped: " in published.out
    assert "(PhotoUndecodable)" in published.out
    assert "listing cli-broken dead-lettered: " in published.out
    assert "(NoUsablePhoto)" in published.out
    assert ids(await until_searched(first, state=state))[0] == "cli-lamp"
    located = await shashin("locate", "cli-chair", "cli-broken", "--json", state=state, ends_with=1)
    chair, broken = located.document
    assert (chair["searchable"], chair["photo_numbers"]) == (True, [0])
    assert not broken["searchable"]


async def test_a_csv_file_is_published_with_attributes_and_searched_by_them(
    system: ConnectedSystem, tmp_path: Path
) -> None:
    state = system.system.folder
    photo = photo_file(tmp_path, "photos/bag.jpg", 310)
    photo_file(tmp_path, "photos/side view.jpg", 311)
    (tmp_path / "photos" / "broken.jpg").write_bytes(photo.read_bytes()[:900])
    table = tmp_path / "listings.csv"
    table.write_text(
        "listing_id,photos,category,brand,price_minor,currency\n"
        'csv-bag,photos/bag.jpg;photos/side view.jpg,csv bags,"Aoyama, Ltd.",12000,jpy\n'
        "csv-bag-2,photos/bag.jpg;photos/broken.jpg,csv bags,,48000,JPY\n"
        "csv-hat,photos/bag.jpg,csv hats,,,\n",
        encoding="utf-8",
    )
    published = (await shashin("publish", table, "--json", state=state)).document
    assert [(p["listing_id"], p["searchable"]) for p in published["published"]] == [
        ("csv-bag", True),
        ("csv-bag-2", True),
        ("csv-hat", True),
    ]
    assert published["dead_lettered"] == []
    (left_out,) = published["photos_dead_lettered"]
    assert (left_out["listing_id"], left_out["photo_number"]) == ("csv-bag-2", 1)
    assert left_out["reason"] == "PhotoUndecodable"

    found = await until_searched(photo, "--category", "csv bags", state=state)
    assert sorted(ids(found)) == ["csv-bag", "csv-bag-2"]
    cheap = await until_searched(
        photo,
        "--price",
        "JPY:..20000",
        "--category",
        "csv bags",
        "--category",
        "csv hats",
        state=state,
    )
    in_yen = await until_searched(photo, "--price", "jpy", "--category", "csv bags", state=state)
    assert sorted(ids(in_yen)) == ["csv-bag", "csv-bag-2"], "written as in the file"
    (hit,) = cheap["hits"]
    assert (hit["listing_id"], hit["brand"]) == ("csv-bag", "Aoyama, Ltd.")
    assert (hit["price_minor"], hit["currency"]) == (12_000, "JPY")
    assert hit["score"] > 0.95


async def test_publishing_again_replaces_the_listing(
    system: ConnectedSystem, tmp_path: Path
) -> None:
    state = system.system.folder
    photo = photo_file(tmp_path, "cli-again.jpg", 312)
    first = (await shashin("publish", photo, "--json", state=state)).document["published"][0]
    photo.write_bytes(photo_of(313))
    second = (await shashin("publish", photo, "--json", state=state)).document["published"][0]
    assert second["version"] > first["version"]
    await system.until_versions({"cli-again": second["version"]})
    answer = await system.complete_answer(photo=photo.read_bytes())
    assert (answer.hits[0].listing_id, answer.hits[0].version) == ("cli-again", second["version"])


async def test_a_search_by_listing_or_by_vector_is_as_one_by_photo(
    system: ConnectedSystem, tmp_path: Path
) -> None:
    state, listing = system.system.folder, system.corpus[20]
    by_listing = await until_searched("--listing", listing.listing_id, "-k", 5, state=state)
    assert len(by_listing["hits"]) == 5
    assert listing.listing_id not in ids(by_listing)
    vector = await system.vector_of(listing.photos[0])
    np.save(tmp_path / "query.npy", vector)
    found = await until_searched("--vector", tmp_path / "query.npy", "-k", 1, state=state)
    assert ids(found) == [listing.listing_id]


async def test_an_opened_search_shows_the_pictures_of_its_hits_in_the_browser(
    system: ConnectedSystem, tmp_path: Path
) -> None:
    state = system.system.folder
    photo = photo_file(tmp_path, "query.jpg", 320)
    await system.publish("cli-shown", [photo.read_bytes()])
    await system.until_versions({"cli-shown": 1})
    browser, opened = tmp_path / "browser", tmp_path / "opened"
    browser.write_text(f'#!/bin/sh\nprintf %s "$1" > "{opened}"\n')
    browser.chmod(browser.stat().st_mode | stat.S_IXUSR)

    async def shown() -> bool:
        finished = await shashin(
            *("search", photo, "-k", 3, "--open"),
            state=state,
            env={"BROWSER": str(browser)},
            ends_with=None,
        )
        return finished.code == 0 and "coverage complete" in finished.out

    await until(shown, "a complete search was opened")
    sheet = state / "search.html"
    assert opened.read_text() == sheet.as_uri()
    page = sheet.read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert "cli-shown" in page
    # The query and its three hits, none of which needs a file or a network.
    assert page.count('src="data:image/jpeg;base64,') == 4
    assert "photo not available on this machine" not in page


async def test_what_is_sold_or_removed_by_command_is_gone_when_the_command_ends(
    system: ConnectedSystem,
) -> None:
    state, photo = system.system.folder, photo_of(330)
    for name in ("cli-sold", "cli-removed", "cli-stays"):
        await system.publish(name, [photo])
    await system.until_versions({"cli-sold": 1, "cli-removed": 1, "cli-stays": 1})
    sold = await shashin("sell", "cli-sold", state=state)
    assert "1 listings sold: no longer searchable" in sold.out
    removed = await shashin("remove", "cli-removed", "cli-never-was", state=state)
    assert "cli-never-was was not searchable" in removed.out
    assert "2 listings removed" in removed.out
    found = listing_ids_of(await system.complete_answer(photo=photo))
    assert found[0] == "cli-stays"
    assert not {"cli-sold", "cli-removed"} & set(found)
    located = await shashin("locate", "cli-sold", "cli-stays", state=state, ends_with=1)
    assert re.search(r"cli-sold .*not searchable", located.out)


async def test_an_event_that_is_dead_lettered_ends_the_command_with_the_reason(
    system: ConnectedSystem, tmp_path: Path
) -> None:
    state, newer = system.system.folder, 9_000_000_000_000_000
    photo = photo_file(tmp_path, "a.jpg", 331)
    await system.publish("cli-ahead", [photo.read_bytes()], version=newer)
    await system.until_versions({"cli-ahead": newer})
    published = await shashin(
        "publish", csv_of(tmp_path, "cli-ahead", 7), "--json", state=state, ends_with=1
    )
    (entry,) = published.document["published"]
    assert (entry["version"], entry["searchable"]) == (7, False)
    (dead_letter,) = published.document["dead_lettered"]
    assert (dead_letter["listing_id"], dead_letter["reason"]) == ("cli-ahead", "StaleVersion")
    sold = await shashin("sell", "cli-ahead", state=state, ends_with=1)
    assert "listing cli-ahead dead-lettered: " in sold.out
    assert "(StaleVersion)" in sold.out
    assert "no longer searchable" not in sold.out
    await system.until_versions({"cli-ahead": newer})
    sold = await shashin("sell", "cli-ahead", "--version", newer + 1, state=state)
    assert "1 listings sold: no longer searchable" in sold.out


async def test_an_older_version_that_the_downloader_no_longer_knows_is_said_to_have_no_effect(
    system: ConnectedSystem, tmp_path: Path
) -> None:
    state, photo = system.system.folder, photo_file(tmp_path, "a.jpg", 332).read_bytes()
    newer = 9_000_000_000_000_000
    await system.publish("cli-gone", version=9, kind=SOLD)
    await system.publish("cli-newer", [photo], version=newer)
    await system.until_versions({"cli-newer": newer, "cli-gone": None})
    await system.running.kill("downloader")
    published = await shashin("publish", csv_of(tmp_path, "cli-gone", 7), state=state, ends_with=1)
    assert (
        "listing cli-gone: version 7 is not searchable: version 9 of it was sold" in published.out
    )
    assert "0 of 1 listings are searchable" in published.out
    sold = await shashin("sell", "cli-newer", state=state, ends_with=1)
    assert f"listing cli-newer: version {newer} is still searchable" in sold.out
    await system.until_versions({"cli-newer": newer, "cli-gone": None})


async def test_nothing_is_published_if_one_listing_cannot_be_and_the_rest_on_request(
    system: ConnectedSystem, tmp_path: Path
) -> None:
    state, folder = system.system.folder, tmp_path / "mine"
    photo_file(folder, "cli-planned/1.jpg", 333)
    photo_file(folder, "cli-planned/deeper/1.jpg", 334)
    (folder / "cli-planned" / "2.jxl").write_bytes(b"jxl")
    (folder / os.fsdecode(b"caf\xe9.jpg")).write_bytes(photo_of(335))
    (folder / "cli-pipe").mkdir()
    os.mkfifo(folder / "cli-pipe" / "1.jpg")
    refused = await shashin("publish", folder, state=state, ends_with=2)
    assert "nothing was published: there are 2 problems" in refused.err.splitlines()[-1]
    located = await shashin("locate", "cli-planned", state=state, ends_with=1)
    assert "not searchable" in located.out
    published = await shashin("publish", folder, "--skip-bad", "--json", state=state)
    assert [entry["listing_id"] for entry in published.document["published"]] == ["cli-planned"]
    assert len(published.document["skipped"]) == 2
    assert {Path(entry["path"]).name for entry in published.document["left_out"]} == {
        "deeper",
        "2.jxl",
    }


async def test_ids_from_outside_reach_the_terminal_as_text(
    system: ConnectedSystem, tmp_path: Path
) -> None:
    state, photo = system.system.folder, photo_file(tmp_path, "odd.jpg", 336)
    odd = [
        "cli-[red]x[/red]",
        "cli-back\\[slash]",
        "cli-\x1b]0;x\x07y",
        "cli-line\n0 listings sold",
    ]
    for listing_id in odd:
        await system.publish(listing_id, [photo.read_bytes()])
    await system.until_versions(dict.fromkeys(odd, 1))
    for command in (("search", photo, "-k", 20), ("locate", *odd)):
        shown = (await shashin(*command, state=state)).out
        assert "cli-[red]x[/red]" in shown
        assert "cli-back\\[slash]" in shown
        assert r"cli-\x1b]0;x\x07y" in shown
        assert "\x1b" not in shown
        assert not [line for line in shown.splitlines() if line.startswith("0 listings")]


def csv_of(folder: Path, listing_id: str, version: int) -> Path:
    """Write a CSV file with one listing of ``a.jpg``; returns its path."""
    table = folder / f"{listing_id}-{version}.csv"
    table.write_text(f"listing_id,photos,version\n{listing_id},a.jpg,{version}\n", encoding="utf-8")
    return table


# --- looking at it ------------------------------------------------------------------------------


async def test_the_status_of_a_system_that_is_well_names_every_process_and_exits_with_0(
    system: ConnectedSystem,
) -> None:
    state = system.system.folder
    status = (await shashin("status", "--json", state=state)).document
    assert (status["running"], status["well"]) == (True, True)
    assert {p["name"] for p in status["processes"]} == {"kafka", "supervisor", *SERVICES}
    for process in status["processes"]:
        assert process["status"] == "ready"
        assert ProcessIdentity.of(process["pid"])
        assert process["rss_bytes"] > 0
    assert status["router"]["model_id"] == "demo-v1"
    assert {e["tier"] for e in status["router"]["endpoints"]} == {
        LIVE,
        *SEALED_TIERS,
    }
    assert status["router"]["coverage"]["complete"]
    table = await shashin("status", state=state)
    assert "coverage complete" in table.out
    assert all(name in table.out for name in SERVICES)


async def test_sealed_shards_are_listed_shown_and_verified_and_a_changed_byte_is_found(
    system: ConnectedSystem, tmp_path: Path
) -> None:
    state = system.system.folder
    await system.until_sealed(system.corpus[0].listing_id)
    photos = sum(len(li.photos) for li in system.corpus)

    async def all_served() -> list[dict[str, Any]] | None:
        # Partitions are sealed one after the other, and served a moment after that.
        found: list[dict[str, Any]] = (
            await shashin("indexes", "ls", "--json", state=state)
        ).document
        served = all(shard["served"] for shard in found)
        return found if served and sum(shard["rows"] for shard in found) >= photos else None

    listed = await until(all_served, "every photo is in a shard that is served")
    assert {shard["tier"] for shard in listed} == {"hourly"}
    largest = max(listed, key=lambda shard: int(shard["rows"]))
    assert largest["served"]
    assert largest["recall_at_10"] > 0.9
    shown = await shashin("indexes", "inspect", largest["shard_id"], "--json", state=state)
    manifest = shown.document
    assert manifest["rows"] == largest["rows"]
    assert {file["name"] for file in manifest["files"]} >= {"codes.npy", "rows.arrow"}
    assert all(re.fullmatch(r"[0-9a-f]{64}", file["sha256"]) for file in manifest["files"])
    verified = (await shashin("indexes", "verify", "--json", state=state)).document
    assert verified["problems"] == []
    assert verified["shards"] >= len(listed)

    # A copy of the repository, of which one byte is changed.
    damaged = tmp_path / "repository"
    source = state / "repository" / Path(manifest["manifest_key"]).parent
    for path in source.iterdir():
        copy = damaged / source.relative_to(state / "repository") / path.name
        copy.parent.mkdir(parents=True, exist_ok=True)
        data = bytearray(path.read_bytes())
        if path.name.startswith("rows."):
            data[len(data) // 2] ^= 1
        copy.write_bytes(data)
    found = await shashin(
        *("indexes", "verify", "--json", "--repository", damaged.as_uri()),
        state=state,
        ends_with=1,
    )
    (problem,) = found.document["problems"]
    assert largest["shard_id"] in problem
    assert "/rows." in problem


# --- errors -------------------------------------------------------------------------------------

USER_ERRORS: dict[str, tuple[list[str], str]] = {
    "nothing to search for": (["search"], "0 queries were given"),
    "a system that never ran": (["search", "--listing", "a"], "`shashin up` starts everything"),
    "a folder that is not there": (["publish", "nowhere"], "nowhere does not exist"),
    "two sources of photos": (["demo", "--real", "--photos", "."], "expected one of them"),
    "shares over one": (["demo", "--sold", "0.9", "--updated", "0.2"], "add up to more than 1"),
}


@pytest.mark.parametrize("mistake", USER_ERRORS)
async def test_a_mistake_is_one_line_and_exit_code_2(tmp_path: Path, mistake: str) -> None:
    arguments, words = USER_ERRORS[mistake]
    finished = await shashin(*arguments, state=tmp_path / "state", ends_with=2)
    assert words in finished.error
    assert finished.out == ""


async def test_an_option_that_does_not_exist_is_exit_code_2_and_starts_nothing(
    tmp_path: Path,
) -> None:
    finished = await shashin("up", "--no-such-option", state=tmp_path / "state", ends_with=2)
    assert "Usage: shashin up" in finished.err
    assert not (tmp_path / "state").exists()


async def test_a_kafka_that_does_not_answer_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    finished = await shashin("up", "--kafka", "127.0.0.1:1", state=tmp_path / "state", ends_with=1)
    assert "127.0.0.1:1 does not respond" in finished.err.splitlines()[-1]


async def test_dead_letters_of_a_kafka_that_does_not_answer_are_one_line(tmp_path: Path) -> None:
    finished = await shashin(
        *("dlq", "ls", "--kafka", "127.0.0.1:1"), state=tmp_path / "state", ends_with=1
    )
    assert "127.0.0.1:1 does not respond" in finished.error


# --- from nothing to stopped, and again ---------------------------------------------------------


async def test_everything_starts_from_nothing_stops_and_starts_again_with_what_was_published(
    tmp_path: Path,
) -> None:
    state = tmp_path / "my state: 1"
    photo = photo_file(tmp_path, "mine/cli-kept/1.jpg", 340)
    app = photo_file(tmp_path, "app: photos/a.jpg", 341)
    given = {"SHASHIN_PHOTO_ROOTS": json.dumps([str(app.parent)]), "SHASHIN_HTTP_PORT": "9"}
    try:
        started = await shashin("up", state=state, env=given)
        assert "everything is running" in started.out
        assert "settings from the environment: SHASHIN_PHOTO_ROOTS (added to" in started.out
        assert "sets them itself: SHASHIN_HTTP_PORT" in started.err
        assert shlex.join(["--state", str(state)]) in started.out
        pids = System(state).pids()
        assert pids.keys() == {"kafka", "supervisor", "canary", *SERVICES}
        kafka = await shashin("kafka", "up", "--json", state=state)
        assert kafka.document["kafka"] in started.out
        again = await shashin("up", state=state, env=given)
        assert "everything was already running" in again.out
        other = await shashin("up", state=state, ends_with=2)
        assert "SHASHIN_PHOTO_ROOTS is [" in other.err.splitlines()[-1]
        other = await shashin("up", "--bucket-seconds", 60, state=state, env=given, ends_with=2)
        assert "bucket_seconds is 3600, not 60" in other.err.splitlines()[-1]
        needed = await shashin("kafka", "down", state=state, ends_with=2)
        assert "`shashin down` stops everything" in needed.error
        assert System(state).pids() == pids
        await shashin("publish", tmp_path / "mine", state=state)
        table = tmp_path / "app.csv"
        table.write_text(f"listing_id,photos\ncli-app,{app.as_uri()}\n", encoding="utf-8")
        of_app = await shashin("publish", table, state=state)
        assert "1 of 1 listings are searchable" in of_app.out

        assert "everything stopped" in (await shashin("down", state=state)).out
        assert not [name for name, pid in pids.items() if ProcessIdentity.of(pid)]
        stopped = await shashin("status", "--json", state=state, ends_with=1)
        assert (stopped.document["running"], stopped.document["processes"]) == (False, [])
        unanswered = await shashin("search", photo, state=state, ends_with=1)
        assert "`shashin up` starts it" in unanswered.error

        await shashin("up", state=state)
        found = ids(await until_searched(photo, state=state))
        # The canary's listings are on sale for moments.
        assert [one for one in found if not one.startswith("shashin-canary-")] == [
            "cli-kept",
            "cli-app",
        ]
    finally:
        await System(state).stop()


async def test_the_demo_runs_from_nothing_and_its_figures_are_right(tmp_path: Path) -> None:
    state, figures = tmp_path / "state", tmp_path / "figures.json"
    try:
        finished = await shashin(
            "demo",
            *("--listings", 60, "--queries", 20, "--bucket-seconds", 5, "--bad", 9),
            *("--json", figures),
            state=state,
        )
    finally:
        await System(state / "demo").stop()
    found = json.loads(figures.read_text(encoding="utf-8"))
    assert (found["listings"], found["photos"], found["queries"]) == (60, 180, 20)
    assert found["events"] == 60 + found["sold"] + found["updated"] + 9
    assert found["sold"] == 3
    assert found["ghosts"] == 0
    assert found["recall_at_10"] >= 0.95
    assert found["recall_at_1"] >= 0.75
    assert found["coverage_complete"] is True
    assert found["shards_sealed"] == found["shards_served"] > 0
    assert found["problems"] == []
    assert 0 < found["freshness_p50_s"] <= found["freshness_p99_s"] < found["wall_s"]
    # Of nine bad events, one is searchable with one of its three photos.
    assert (found["dead_lettered"], found["photos_dead_lettered"]) == (8, 2)
    assert found["events"] == found["searchable"] + found["hidden"] + found["dead_lettered"]
    balance = (
        f"{found['events']} events in = {found['searchable']} searchable + "
        f"{found['hidden']} hidden + {found['dead_lettered']} dead-lettered"
    )
    assert balance in " ".join(finished.out.replace("│", " ").split())
    assert not (state / "demo").exists()
