"""``shashin indexes``: the shards in the model repository, and whether they are whole."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from shashin.cli.console import Stages, megabytes, say, say_json, say_table
from shashin.cli.options import DEFAULT_STATE, JsonOption, StateOption, run
from shashin.cli.system import System
from shashin.errors import RepositoryError, ShashinError, UserError
from shashin.index.coverage import OffsetRange, Position, coverage
from shashin.index.manifest import MANIFEST_FILE, Manifest
from shashin.index.repository import ModelRepository, StoredShard
from shashin.index.shard import SealedShard
from shashin.objectstore.open import open_object_store

app = typer.Typer(no_args_is_help=True, help="The shards in the model repository.")

RepositoryOption = Annotated[
    str | None,
    typer.Option(
        envvar="SHASHIN_REPOSITORY",
        metavar="URI",
        help="Another model repository than the one in the state folder: file:///FOLDER.",
    ),
]


@dataclass
class Contents:
    """What the repository holds."""

    shards: list[StoredShard] = field(default_factory=list)
    unreadable: list[RepositoryError] = field(default_factory=list)
    pointed: dict[tuple[str, str], set[str]] = field(default_factory=dict)
    """(model, tier) to the ids of the shards that its pointer names."""
    without_manifest: list[str] = field(default_factory=list)
    """Folders that no manifest vouches for: garbage, or an upload under way."""


async def read_contents(uri: str) -> tuple[ModelRepository, Contents]:
    """Return the repository and everything in it."""
    store = open_object_store(uri)
    repository = ModelRepository(store)
    contents = Contents()
    folders: dict[str, set[str]] = defaultdict(set)
    tiers: set[tuple[str, str]] = set()
    for info in await store.list_objects("indexes/"):
        parts = info.key.split("/")
        if len(parts) == 6:
            tiers.add((parts[1], parts[2]))
            folders["/".join(parts[:5])].add(parts[5])
    for info in await store.list_objects("serving/"):
        parts = info.key.split("/")
        if len(parts) == 3 and parts[2].endswith(".json"):
            tiers.add((parts[1], parts[2].removesuffix(".json")))
    for model_id, tier in sorted(tiers):
        shards, unreadable = await repository.shards(model_id, tier)
        contents.shards += shards
        contents.unreadable += unreadable
        try:
            pointer, _ = await repository.read_pointer(model_id, tier)
        except RepositoryError as error:
            contents.unreadable.append(error)
        else:
            contents.pointed[model_id, tier] = (
                {shard.shard_id for shard in pointer.shards} if pointer else set()
            )
    contents.without_manifest = sorted(
        folder for folder, names in folders.items() if MANIFEST_FILE not in names
    )
    return repository, contents


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


def arrangement_problems(contents: Contents) -> list[str]:
    """Return what is wrong with how the shards lie to each other and to the pointers."""
    problems = []
    by_tier: dict[tuple[str, str], list[Manifest]] = defaultdict(list)
    by_model: dict[str, list[OffsetRange]] = defaultdict(list)
    for stored in contents.shards:
        manifest = stored.manifest
        by_tier[manifest.model_id, manifest.tier].append(manifest)
        by_model[manifest.model_id] += manifest.source_ranges
    for (model_id, tier), manifests in by_tier.items():
        problems += [
            f"{model_id} {tier}: {one} and {other} claim the same offsets"
            for one, other in overlapping(manifests)
        ]
    for model_id, ranges in by_model.items():
        problems += [f"{model_id}: no shard holds offsets {gap}" for gap in gaps(ranges)]
    there = {stored.manifest.shard_id for stored in contents.shards}
    for (model_id, tier), pointed in contents.pointed.items():
        problems += [
            f"the pointer of {model_id} {tier} names shard {shard_id}, which is not there"
            for shard_id in sorted(pointed - there)
        ]
    return problems


def overlapping(manifests: Iterable[Manifest]) -> list[tuple[str, str]]:
    """Return the pairs of shards that claim the same offsets of a partition."""
    spans = sorted((r, manifest.shard_id) for manifest in manifests for r in manifest.source_ranges)
    found = []
    furthest: tuple[OffsetRange, str] | None = None
    for current in spans:
        if furthest is not None and furthest[0].partition == current[0].partition:
            if current[0].from_offset < furthest[0].to_offset:
                found.append((furthest[1], current[1]))
            if current[0].to_offset <= furthest[0].to_offset:
                continue
        furthest = current
    return found


def gaps(ranges: Sequence[OffsetRange]) -> list[OffsetRange]:
    """Return the offsets between the first and the last of each partition that no range holds."""
    positions = {}
    for partition in {r.partition for r in ranges}:
        of_partition = [r for r in ranges if r.partition == partition]
        positions[partition] = Position(
            min(r.from_offset for r in of_partition), max(r.to_offset for r in of_partition)
        )
    return list(coverage(ranges, positions).missing)


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
