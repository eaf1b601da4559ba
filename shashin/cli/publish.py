"""``shashin publish``, ``sell`` and ``remove``: send events for the user's own listings."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from shashin.cli.options import (
    DEFAULT_STATE,
    JsonOption,
    KafkaOption,
    NoWaitOption,
    RouterOption,
    StateOption,
)
from shashin.client.listing_events import (
    LISTED,
    REMOVED,
    SOLD,
    listing_event,
    send_events,
    version_now,
)
from shashin.client.listing_sources import SourceListing, keep_photos, read_source
from shashin.client.router import RouterClient
from shashin.client.topic_tails import (
    CLIENT_ID,
    SeenDeadLetter,
    TopicTail,
    new_dead_letters,
    topic_tails,
)
from shashin.codecs.limits import MAX_LISTING_IDS
from shashin.errors import DeadlineExceeded
from shashin.kafka.producer import Producer
from shashin.kafka.topics import DEAD_LETTER_TOPICS
from shashin.local.system import System
from shashin.terminal.console import Stages, echo, echo_json
from shashin.terminal.run import run
from shashin.v1 import events_pb2

_SEND_AT_ONCE = 100
_POLL_SECONDS = 0.2
_STALL_SECONDS = 60.0
"""How long to wait without progress before failing."""


@dataclass
class Published:
    """Outcome of publishing the listings."""

    versions: dict[str, int] = field(default_factory=dict)
    searchable: set[str] = field(default_factory=set)
    dead_lettered: list[SeenDeadLetter] = field(default_factory=list)
    """Whole listings."""
    photos_dead_lettered: list[SeenDeadLetter] = field(default_factory=list)
    """Single photos; their listings are processed without them."""


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(epilog="Example:  shashin publish my-photos/      (each subfolder is a listing)")(
        publish
    )
    app.command(epilog="Example:  shashin sell listing-000012 listing-000013")(sell)
    app.command(epilog="Example:  shashin remove listing-000012")(remove)


def publish(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER|FILE.csv",
            help="A folder (each subfolder is one listing; each photo at the top level is a listing "
            "of its own), a single photo, or a CSV file with the columns listing_id and photos "
            "(paths or URIs, separated by semicolons) and, optionally, category, brand, "
            "price_minor, currency and version.",
        ),
    ],
    *,
    no_wait: NoWaitOption = False,
    kafka: KafkaOption = None,
    router: RouterOption = None,
    state: StateOption = DEFAULT_STATE,
    as_json: JsonOption = False,
) -> None:
    """Publish photos as listings, and wait until they are searchable.

    Publishing a listing again replaces it. Photo files are first copied into the state folder.
    """
    listings = read_source(source)
    system = System(state)
    outcome = run(
        _publish(
            listings,
            system.photos,
            kafka or system.kafka_address(),
            None if no_wait else router or system.router_address(),
        )
    )
    if as_json:
        echo_json(_document(outcome, waited=not no_wait))
    else:
        _print_outcome(outcome, waited=not no_wait)
    if outcome.dead_lettered:
        raise typer.Exit(1)


async def _publish(
    listings: Sequence[SourceListing], photos: Path, kafka: str, router: str | None
) -> Published:
    outcome = Published()
    async with (
        Producer(kafka, client_id=CLIENT_ID) as producer,
        topic_tails(kafka, DEAD_LETTER_TOPICS) as tails,
    ):
        for tail in tails.values():
            await tail.go_to_end()
        with Stages() as stages:
            await _send(listings, photos, producer, outcome, stages)
            if router is not None:
                async with RouterClient(router) as client:
                    await _wait_searchable(outcome, tails, client, stages)
    return outcome


async def _send(
    listings: Sequence[SourceListing],
    photos: Path,
    producer: Producer,
    outcome: Published,
    stages: Stages,
) -> None:
    waiting = iter(listings)
    while batch := list(islice(waiting, _SEND_AT_ONCE)):
        uris = await asyncio.to_thread(lambda: [list(keep_photos(li, photos)) for li in batch])
        events = [
            listing_event(
                listing.listing_id,
                listing.version or version_now(),
                LISTED,
                photo_uris=of_listing,
                attributes=listing.attributes,
            )
            for listing, of_listing in zip(batch, uris, strict=True)
        ]
        await send_events(producer, events)
        outcome.versions |= {event.listing_id: event.version for event in events}
        stages.set("published", len(outcome.versions), len(listings))


async def _wait_searchable(
    outcome: Published, tails: Mapping[str, TopicTail], router: RouterClient, stages: Stages
) -> None:
    outstanding = dict(outcome.versions)
    last_progress = time.monotonic()
    while outstanding:
        # Events are processed roughly in the order in which they were sent.
        found = await router.locate(islice(outstanding, MAX_LISTING_IDS))
        for listing_id, location in found.items():
            if location.version >= outstanding[listing_id]:
                del outstanding[listing_id]
                outcome.searchable.add(listing_id)
                last_progress = time.monotonic()
        # Read last: a listing's failed photos are dead-lettered before it becomes searchable.
        for dead_letter in await new_dead_letters(tails):
            if outcome.versions.get(dead_letter.listing_id) != dead_letter.version:
                continue
            if dead_letter.photo_number is not None:
                outcome.photos_dead_lettered.append(dead_letter)
            elif outstanding.pop(dead_letter.listing_id, None) is not None:
                outcome.dead_lettered.append(dead_letter)
                last_progress = time.monotonic()
        stages.set("searchable", len(outcome.searchable), len(outcome.versions))
        if outstanding:
            _check_stall(last_progress, f"{len(outstanding)} listings are not searchable yet")
            await asyncio.sleep(_POLL_SECONDS)


def _check_stall(last_progress: float, what: str) -> None:
    if time.monotonic() - last_progress > _STALL_SECONDS:
        raise DeadlineExceeded(
            f"{what} and there was no progress for {_STALL_SECONDS:.0f} s: Kafka has the events, so "
            "none is lost; `shashin status` shows which process is not healthy"
        )


def _print_outcome(outcome: Published, *, waited: bool) -> None:
    for dead_letter in outcome.photos_dead_lettered:
        echo(
            f"listing {dead_letter.listing_id}, photo {(dead_letter.photo_number or 0) + 1} skipped: "
            f"{dead_letter.message} ({dead_letter.reason})",
            style="yellow",
        )
    for dead_letter in outcome.dead_lettered:
        echo(
            f"listing {dead_letter.listing_id} dead-lettered: {dead_letter.message} ({dead_letter.reason})",
            style="red",
        )
    total = len(outcome.versions)
    if waited:
        echo(f"{len(outcome.searchable)} of {total} listings are searchable", style="green")
    else:
        echo(f"{total} listings sent: `shashin locate ID` shows whether one is searchable")


def _document(outcome: Published, *, waited: bool) -> dict[str, Any]:
    def dead_letters(dead_lettered: Sequence[SeenDeadLetter]) -> list[dict[str, Any]]:
        return [
            {
                "listing_id": dead_letter.listing_id,
                "photo_number": dead_letter.photo_number,
                "reason": dead_letter.reason,
                "message": dead_letter.message,
            }
            for dead_letter in dead_lettered
        ]

    return {
        "published": [
            {
                "listing_id": listing_id,
                "version": version,
                **({"searchable": listing_id in outcome.searchable} if waited else {}),
            }
            for listing_id, version in outcome.versions.items()
        ],
        "dead_lettered": dead_letters(outcome.dead_lettered),
        "photos_dead_lettered": dead_letters(outcome.photos_dead_lettered),
    }


def sell(
    listing_ids: Annotated[list[str], typer.Argument(help="IDs of the sold listings.")],
    *,
    no_wait: NoWaitOption = False,
    kafka: KafkaOption = None,
    router: RouterOption = None,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Mark listings as sold, and wait until they are no longer searchable."""
    _end(listing_ids, SOLD, "sold", System(state), kafka, router, no_wait=no_wait)


def remove(
    listing_ids: Annotated[list[str], typer.Argument(help="IDs of the listings to remove.")],
    *,
    no_wait: NoWaitOption = False,
    kafka: KafkaOption = None,
    router: RouterOption = None,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Remove listings, and wait until they are no longer searchable."""
    _end(listing_ids, REMOVED, "removed", System(state), kafka, router, no_wait=no_wait)


def _end(
    listing_ids: Sequence[str],
    kind: events_pb2.ListingKind.ValueType,
    word: str,
    system: System,
    kafka: str | None,
    router: str | None,
    *,
    no_wait: bool,
) -> None:
    unknown = run(
        _send_end(
            list(dict.fromkeys(listing_ids)),
            kind,
            kafka or system.kafka_address(),
            None if no_wait else router or system.router_address(),
            word,
        )
    )
    for listing_id in unknown:
        echo(f"{listing_id} was not searchable; marked as {word} anyway", style="yellow")
    hidden = "" if no_wait else ": no longer searchable"
    echo(f"{len(set(listing_ids))} listings {word}{hidden}", style="green")


async def _send_end(
    listing_ids: Sequence[str],
    kind: events_pb2.ListingKind.ValueType,
    kafka: str,
    router: str | None,
    word: str,
) -> list[str]:
    """Send the events and wait; returns the listings that were not searchable beforehand."""
    async with Producer(kafka, client_id=CLIENT_ID) as producer:
        events = [listing_event(listing_id, version_now(), kind) for listing_id in listing_ids]
        if router is None:
            await send_events(producer, events)
            return []
        async with RouterClient(router) as client:
            before = await client.locate(listing_ids)
            await send_events(producer, events)
            with Stages() as stages:
                await _wait_hidden(listing_ids, client, lambda n: stages.set(word, n, len(events)))
    return [listing_id for listing_id in listing_ids if listing_id not in before]


async def _wait_hidden(
    listing_ids: Collection[str], router: RouterClient, progress: Callable[[int], None]
) -> None:
    last_progress, left = time.monotonic(), len(listing_ids)
    while True:
        found = await router.locate(listing_ids)
        progress(len(listing_ids) - len(found))
        if not found:
            return
        if len(found) < left:
            last_progress, left = time.monotonic(), len(found)
        _check_stall(last_progress, f"{len(found)} listings are still searchable")
        await asyncio.sleep(_POLL_SECONDS)
