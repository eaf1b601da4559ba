"""``shashin load`` against the whole system."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from datetime import UTC, datetime
from pathlib import Path

import pytest

from shashin.access.api_key import new_key
from shashin.access.key_file import KeyFile
from tests.support.certificates import NAME, Certificates
from tests.support.running_service import RunningService
from tests.support.running_system import ConnectedSystem
from tests.support.shashin_command import COMMAND, shashin
from tests.support.waiting import until


@pytest.fixture
def photos(system: ConnectedSystem, tmp_path: Path) -> Path:
    """A folder of listings."""
    for number, listing in enumerate(system.corpus[:3]):
        folder = tmp_path / "photos" / f"own-{number}"
        folder.mkdir(parents=True)
        (folder / "1.jpg").write_bytes(listing.photos[0])
    return tmp_path / "photos"


async def test_it_reports_what_it_sent_and_sells_what_it_published(
    system: ConnectedSystem, photos: Path, tmp_path: Path
) -> None:
    report, page = tmp_path / "load.json", tmp_path / "load.html"
    ran = await shashin(
        *("load", "--photos", photos, "--listings", 3, "--for", "4s", "--arrivals", "even"),
        *("--events", "2/s", "--sales", "0..1/s over 4s", "--queries", "3/s"),
        *("--query-by", "photo", "--query-by", "vector", "--query-by", "listing"),
        *("--json", report, "--html", page),
        state=system.system.folder,
    )
    document = json.loads(report.read_text())
    kinds = document["kinds"]
    assert {kind: kinds[kind]["requests"] for kind in kinds} == {
        "events": 8,
        "sales": 2,
        "queries": 12,
    }
    assert kinds["events"]["ok"] == 8
    assert sum(kinds["queries"]["outcomes"].values()) == 12
    assert set(kinds["queries"]["outcomes"]) <= {"ok", "incomplete", "DeadlineExceeded"}
    assert kinds["queries"]["outcomes"]["ok"]
    assert page.read_text().startswith("<!doctype html>")
    assert "9 listings of the run were sold" in ran.out
    ids = [f"load-{document['run']}-{number:06d}" for number in range(11)]
    await system.until_versions(dict.fromkeys(ids))


async def test_ctrl_c_reports_what_was_done_until_then_and_sells_it(
    system: ConnectedSystem, photos: Path, tmp_path: Path
) -> None:
    report = tmp_path / "load.json"
    own = {key: value for key, value in os.environ.items() if not key.startswith("SHASHIN_")}
    process = await asyncio.create_subprocess_exec(
        *(str(COMMAND), "load", "--photos", str(photos), "--events", "5/s", "--for", "1h"),
        *("--listings", "0", "--json", str(report)),
        env={**own, "SHASHIN_STATE": str(system.system.folder)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    shown = b""

    async def some_done() -> bool:
        nonlocal shown
        assert process.stderr is not None
        shown += await process.stderr.readline()
        return b"events done 0" not in shown.splitlines()[-1] and b"events done" in shown

    try:
        await until(some_done, "some events are done")
        process.send_signal(signal.SIGINT)
        out, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 130
    assert b"interrupted after" in out
    document = json.loads(report.read_text())
    assert document["interrupted"]
    sent = document["kinds"]["events"]["requests"]
    assert sent > 0
    ids = [f"load-{document['run']}-{number:06d}" for number in range(sent + 5)]
    await system.until_versions(dict.fromkeys(ids))


async def test_it_searches_through_a_router_with_tls_that_asks_for_a_key(
    system: ConnectedSystem, photos: Path, tmp_path: Path
) -> None:
    certificates = Certificates(tmp_path / "certificates")
    chain, private = certificates.issue("router")
    key, stored = new_key("load", created=datetime.now(UTC))
    accepted, key_file = KeyFile(tmp_path / "keys.json"), tmp_path / "load.key"
    accepted.add(stored)
    key_file.write_text(key)
    router = RunningService(
        "router",
        system.system.kafka_address(),
        {
            "discovery": system.system.discovery,
            "tls_certificate_file": chain,
            "tls_key_file": private,
            "accepted_keys_file": accepted.path,
        },
        log=tmp_path / "logs",
    )
    try:
        await router.start()
        await router.until_ready()
        report = tmp_path / "load.json"
        arguments = (
            *("load", "--photos", photos, "--listings", 2, "--queries", "3/s", "--for", "2s"),
            *("--arrivals", "even", "--json", report),
            *("--router", f"grpcs://{NAME}:{router.grpc.rpartition(':')[2]}"),
        )
        trusted = ("--router-ca", certificates.authority)
        state = system.system.folder
        for given, code, named in (
            ((), 1, "unavail"),
            (trusted, 2, "SHASHIN_API_KEY or SHASHIN_API_KEY_FILE has the key"),
        ):
            refused = await shashin(*arguments, *given, state=state, ends_with=code)
            assert named in refused.err
        ran = await shashin(*arguments, *trusted, "--api-key-file", key_file, state=state)
    finally:
        await router.close()
    queries = json.loads(report.read_text())["kinds"]["queries"]
    assert sum(queries["outcomes"].values()) == 6
    assert set(queries["outcomes"]) <= {"ok", "incomplete", "DeadlineExceeded"}
    assert queries["outcomes"]["ok"]
    assert "2 listings of the run were sold" in ran.out
    assert key not in ran.out + ran.err + report.read_text() + router.log()


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        (("--events", "fast"), 2, "'fast' is not a rate: expected `20/s`"),
        (("--sales", "1/s"), 2, "--sales sells what --events publishes"),
        ((), 2, "nothing to do"),
        (("--queries", "1/s", "--users", "2"), 2, "--queries and --users both search"),
        (
            ("--queries", "1/s", "--router", "127.0.0.1:1"),
            1,
            "the router at 127.0.0.1:1 is unavail",
        ),
        (("--events", "1/s", "--kafka", "127.0.0.1:1"), 1, "kafka at 127.0.0.1:1 does not respond"),
    ],
)
async def test_what_is_wrong_is_named(
    system: ConnectedSystem, arguments: tuple[str, ...], code: int, named: str
) -> None:
    ended = await shashin("load", *arguments, state=system.system.folder, ends_with=code)
    assert named in ended.error
