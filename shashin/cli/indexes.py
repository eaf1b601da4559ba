"""``shashin indexes``: list, inspect, verify and snapshot the shards in the model repository."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from shashin.cli.index_upkeep import find_shard
from shashin.cli.options import (
    DEFAULT_STATE,
    JsonOption,
    RepositoryOption,
    StateOption,
)
from shashin.errors import ShashinError
from shashin.local.system import System
from shashin.objectstore.open import opened_object_store
from shashin.objectstore.protocol import ObjectStore
from shashin.repository.contents import Contents, arrangement_problems, overlaps, read_contents
from shashin.repository.hidden_snapshots import HiddenSnapshots
from shashin.repository.repository import ModelRepository, StoredShard
from shashin.shards.format.manifest import Manifest
from shashin.shards.sealed_shard import SealedShard
from shashin.terminal.console import Stages, echo, echo_json, echo_table, megabytes
from shashin.terminal.run import run

app = typer.Typer(
    no_args_is_help=True,
    help="List, inspect, verify, copy, roll back and prune the shards in the model repository.",
)


@app.command(epilog="Example:  shashin indexes ls --json")
def ls(
    repository: RepositoryOption = None,
    state: StateOption = DEFAULT_STATE,
    as_json: JsonOption = False,
) -> None:
    """List the shards of every tier."""
    contents = run(_contents(repository or System(state).repository))
    if as_json:
        echo_json([_summary(stored, contents) for stored in contents.shards])
        return
    if not contents.shards:
        echo("no shards sealed yet")
    else:
        echo_table(
            ["shard", "bucket", "offsets", ">rows", ">listings", ">size", ">recall@10", "served"],
            [_line(stored, contents) for stored in contents.shards],
        )
        echo(
            f"{len(contents.shards)} shards, "
            f"{sum(s.manifest.rows for s in contents.shards):,} rows, "
            f"{megabytes(sum(_size(s.manifest) for s in contents.shards))}"
        )
    for error in contents.unreadable:
        echo(f"unreadable: {error.message}", style="red")
    for folder in contents.without_manifest:
        echo(f"no manifest (upload in progress, or leftovers): {folder}", style="yellow")
    _echo_unreferenced(contents.unreferenced)


def _echo_unreferenced(keys: Sequence[str]) -> None:
    for key in keys:
        echo(f"unreferenced (another replica committed first): {key}", style="yellow")


@app.command(
    epilog="Example:  shashin indexes inspect demo-v1.hourly.p0000.000000000000-000000000412"
)
def inspect(
    shard: Annotated[str, typer.Argument(help="Shard ID, or a unique part of it.")],
    repository: RepositoryOption = None,
    state: StateOption = DEFAULT_STATE,
    as_json: JsonOption = False,
) -> None:
    """Show a shard's manifest."""
    contents = run(_contents(repository or System(state).repository))
    stored = find_shard(shard, contents.shards)
    manifest = stored.manifest
    if as_json:
        echo_json({**asdict(manifest), "manifest_key": stored.manifest_key})
        return
    echo_table(
        ["", manifest.shard_id],
        [
            ("tier", manifest.tier),
            ("bucket", f"{_time(manifest.bucket_start)}, {manifest.bucket_seconds} s"),
            ("model", f"{manifest.model_id}, {manifest.dimensions} dimensions"),
            ("offsets", tuple(manifest.source_ranges)),
            ("cut reason", manifest.cut_reason),
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
            ("format", manifest.format),
            *((f.name, f"{megabytes(f.size)}  SHA-256 {f.sha256}") for f in manifest.files),
        ],
    )


@app.command(epilog="Example:  shashin indexes verify && echo intact")
def verify(
    repository: RepositoryOption = None,
    state: StateOption = DEFAULT_STATE,
    as_json: JsonOption = False,
) -> None:
    """Re-read every file and check hashes, row counts, overlaps and gaps; exits with 1 on a problem."""
    contents, problems = run(_verify(repository or System(state).repository))
    checked = len(contents.shards)
    if as_json:
        echo_json(
            {
                "shards": checked,
                "problems": problems,
                "overlaps": overlaps(contents),
                "unreferenced": contents.unreferenced,
            }
        )
    else:
        _echo_unreferenced(contents.unreferenced)
        for overlap in overlaps(contents):
            echo(overlap, style="yellow")
        for problem in problems:
            echo(problem, style="red")
        echo(
            f"{checked} shards verified: {len(problems)} problems found"
            if problems
            else f"{checked} shards verified: no problems",
            style="red" if problems else "green",
        )
    if problems:
        raise typer.Exit(1)


async def _contents(uri: str) -> Contents:
    async with opened_object_store(uri) as store:
        _, contents = await read_contents(store)
    return contents


async def _verify(uri: str) -> tuple[Contents, list[str]]:
    async with opened_object_store(uri) as store:
        repository, contents = await read_contents(store)
        problems = [error.message for error in contents.unreadable]
        problems += arrangement_problems(contents)
        with Stages() as stages:
            for number, stored in enumerate(contents.shards):
                stages.set("shards verified", number, len(contents.shards))
                problems += await _shard_problems(repository, store, stored)
            stages.set("shards verified", len(contents.shards), len(contents.shards))
    return contents, problems


async def _shard_problems(
    repository: ModelRepository, store: ObjectStore, stored: StoredShard
) -> list[str]:
    manifest = stored.manifest
    # A folder of its own for each shard: all that is deleted again.
    with tempfile.TemporaryDirectory(prefix="shashin-verify-") as scratch:
        try:
            folder = await repository.fetch(stored, Path(scratch))
            rows = (await asyncio.to_thread(SealedShard, manifest, folder)).rows
            snapshots = await HiddenSnapshots(store).read(manifest)
        except ShashinError as error:
            return [f"{manifest.shard_id}: {error.message}"]
    if rows != manifest.rows:
        return [
            f"{manifest.shard_id}: its files contain {rows} rows, but its manifest lists {manifest.rows}"
        ]
    return [error.message for error in snapshots.unreadable.values()]


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
