"""``shashin indexes``: the shards in the model repository, and whether they are whole."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from shashin.cli.options import DEFAULT_STATE, JsonOption, RepositoryOption, StateOption
from shashin.errors import ShashinError, UserError
from shashin.local.system import System
from shashin.repository.contents import Contents, arrangement_problems, read_contents
from shashin.repository.repository import ModelRepository, StoredShard
from shashin.shards.format.manifest import Manifest
from shashin.shards.sealed_shard import SealedShard
from shashin.terminal.console import Stages, megabytes, say, say_json, say_table
from shashin.terminal.run import run

app = typer.Typer(no_args_is_help=True, help="The shards in the model repository.")


@app.command(epilog="Example:  shashin indexes ls --json")
def ls(
    repository: RepositoryOption = None,
    state: StateOption = DEFAULT_STATE,
    as_json: JsonOption = False,
) -> None:
    """List the shards of every tier."""
    _, contents = run(read_contents(repository or System(state).repository))
    if as_json:
        say_json([_summary(stored, contents) for stored in contents.shards])
        return
    if not contents.shards:
        say("no shard is sealed yet")
    else:
        say_table(
            ["shard", "bucket", "offsets", ">rows", ">listings", ">size", ">recall@10", "served"],
            [_line(stored, contents) for stored in contents.shards],
        )
        say(
            f"{len(contents.shards)} shards, "
            f"{sum(s.manifest.rows for s in contents.shards):,} rows, "
            f"{megabytes(sum(_size(s.manifest) for s in contents.shards))}"
        )
    for error in contents.unreadable:
        say(f"unreadable: {error.message}", style="red")
    for folder in contents.without_manifest:
        say(f"without a manifest (an upload under way, or garbage): {folder}", style="yellow")


@app.command(
    epilog="Example:  shashin indexes inspect demo-v1.hourly.p0000.000000000000-000000000412"
)
def inspect(
    shard: Annotated[str, typer.Argument(help="The shard's id, or a part of it that is unique.")],
    repository: RepositoryOption = None,
    state: StateOption = DEFAULT_STATE,
    as_json: JsonOption = False,
) -> None:
    """Show a shard's manifest."""
    _, contents = run(read_contents(repository or System(state).repository))
    stored = find_shard(shard, contents.shards)
    manifest = stored.manifest
    if as_json:
        say_json({**asdict(manifest), "manifest_key": stored.manifest_key})
        return
    say_table(
        ["", manifest.shard_id],
        [
            ("tier", manifest.tier),
            ("bucket", f"{_time(manifest.bucket_start)}, {manifest.bucket_seconds} s"),
            ("model", f"{manifest.model_id}, {manifest.dimensions} dimensions"),
            ("offsets", "\n".join(map(str, manifest.source_ranges))),
            ("cut by", manifest.cut_reason),
            ("rows", f"{manifest.rows:,} of {manifest.listings:,} listings"),
            (
                "index",
                f"{manifest.index_kind}, {manifest.metric}, {manifest.stored_type}, "
                + ", ".join(f"{k} {v}" for k, v in manifest.index_parameters.items()),
            ),
            ("recall@10", _recall(manifest)),
            ("sealed at", _time(manifest.created_at)),
            ("served", "yes" if _is_pointed(stored, contents) else "no"),
            ("key", stored.manifest_key),
            *((f.name, f"{megabytes(f.size)}  SHA-256 {f.sha256}") for f in manifest.files),
        ],
    )


@app.command(epilog="Example:  shashin indexes verify && echo whole")
def verify(
    repository: RepositoryOption = None,
    state: StateOption = DEFAULT_STATE,
    as_json: JsonOption = False,
) -> None:
    """Read every file anew, and check hashes, rows, overlaps and gaps; exits with 1 on a problem."""
    checked, problems = run(_verify(repository or System(state).repository))
    if as_json:
        say_json({"shards": checked, "problems": problems})
    else:
        for problem in problems:
            say(problem, style="red")
        say(
            f"{checked} shards verified: {len(problems)} problems"
            if problems
            else f"{checked} shards verified: all whole",
            style="red" if problems else "green",
        )
    if problems:
        raise typer.Exit(1)


async def _verify(uri: str) -> tuple[int, list[str]]:
    repository, contents = await read_contents(uri)
    problems = [error.message for error in contents.unreadable]
    problems += arrangement_problems(contents)
    scratch = Path(tempfile.mkdtemp(prefix="shashin-verify-"))
    try:
        with Stages() as stages:
            for number, stored in enumerate(contents.shards):
                stages.set("shards verified", number, len(contents.shards))
                problems += await _shard_problems(repository, stored, scratch)
            stages.set("shards verified", len(contents.shards), len(contents.shards))
    finally:
        await asyncio.to_thread(shutil.rmtree, scratch, ignore_errors=True)
    return len(contents.shards), problems


async def _shard_problems(
    repository: ModelRepository, stored: StoredShard, scratch: Path
) -> list[str]:
    manifest = stored.manifest
    try:
        folder = await repository.fetch(stored, scratch)
        shard = await asyncio.to_thread(SealedShard, manifest, folder)
        rows = shard.rows
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
    except ShashinError as error:
        return [f"{manifest.shard_id}: {error.message}"]
    if rows != manifest.rows:
        return [
            f"{manifest.shard_id}: its files hold {rows} rows; its manifest says {manifest.rows}"
        ]
    return []


def find_shard(wanted: str, shards: Sequence[StoredShard]) -> StoredShard:
    """Return the one shard whose id is or contains ``wanted``.

    Raises:
        UserError: when there is none or more than one.
    """
    found = [s for s in shards if s.manifest.shard_id == wanted]
    found = found or [s for s in shards if wanted in s.manifest.shard_id]
    if len(found) != 1:
        raise UserError(
            f"{len(found)} shards have {wanted!r} in their id; expected one: "
            "`shashin indexes ls` lists them"
        )
    return found[0]


def _is_pointed(stored: StoredShard, contents: Contents) -> bool:
    manifest = stored.manifest
    return manifest.shard_id in contents.pointed.get((manifest.model_id, manifest.tier), ())


def _size(manifest: Manifest) -> int:
    return sum(entry.size for entry in manifest.files)


def _time(unix_seconds: float) -> str:
    return datetime.fromtimestamp(unix_seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _recall(manifest: Manifest) -> str:
    return "-" if manifest.recall_at_10 is None else f"{manifest.recall_at_10:.3f}"


def _line(stored: StoredShard, contents: Contents) -> tuple[object, ...]:
    manifest = stored.manifest
    return (
        manifest.shard_id,
        _time(manifest.bucket_start).removesuffix(" UTC"),
        " ".join(map(str, manifest.source_ranges)),
        f"{manifest.rows:,}",
        f"{manifest.listings:,}",
        megabytes(_size(manifest)),
        _recall(manifest),
        "yes" if _is_pointed(stored, contents) else "no",
    )


def _summary(stored: StoredShard, contents: Contents) -> dict[str, Any]:
    manifest = stored.manifest
    return {
        "shard_id": manifest.shard_id,
        "tier": manifest.tier,
        "model_id": manifest.model_id,
        "bucket_start": manifest.bucket_start,
        "bucket_seconds": manifest.bucket_seconds,
        "ranges": [asdict(r) for r in manifest.source_ranges],
        "rows": manifest.rows,
        "listings": manifest.listings,
        "bytes": _size(manifest),
        "recall_at_10": manifest.recall_at_10,
        "served": _is_pointed(stored, contents),
        "manifest_key": stored.manifest_key,
    }
