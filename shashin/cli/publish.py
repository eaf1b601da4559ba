"""``shashin publish``, ``sell`` and ``remove``: the user's own listings as events."""

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
from shashin.terminal.console import Stages, say, say_json
from shashin.terminal.run import run
from shashin.v1 import events_pb2

_SEND_AT_ONCE = 100
_POLL_SECONDS = 0.2
_STALL_SECONDS = 60.0
"""How long nothing may become searchable before the wait is given up."""


@dataclass
class Published:
    """What became of the listings."""

    versions: dict[str, int] = field(default_factory=dict)
    searchable: set[str] = field(default_factory=set)
    dead_lettered: list[SeenDeadLetter] = field(default_factory=list)
    """Whole listings."""
    photos_dead_lettered: list[SeenDeadLetter] = field(default_factory=list)
    """Single photos; the rest of their listings goes on."""


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
            help="A folder (each subfolder is a listing with its photos, each photo beside them "
            "is a listing of its own), a photo, or a CSV file with the columns listing_id, photos "
            "(paths or URIs, separated by semicolons) and, if wanted, category, brand, "
            "price_minor, currency, version.",
        ),
    ],
    *,
    no_wait: NoWaitOption = False,
    kafka: KafkaOption = None,
    router: RouterOption = None,
    state: StateOption = DEFAULT_STATE,
    as_json: JsonOption = False,
) -> None:
    """Publish photos as listings, and wait until they can be found.

    Publishing a listing again replaces it. Files are copied into the state folder first.
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
        say_json(_document(outcome, waited=not no_wait))
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
    last_news = time.monotonic()
    while outstanding:
        # Events are worked on roughly in the order in which they were sent.
        found = await router.locate(islice(outstanding, MAX_LISTING_IDS))
        for listing_id, location in found.items():
            if location.version >= outstanding[listing_id]:
                del outstanding[listing_id]
                outcome.searchable.add(listing_id)
                last_news = time.monotonic()
        # Read after that: a listing's lost photos are dead letters before it is searchable.
        for dead_letter in await new_dead_letters(tails):
            if outcome.versions.get(dead_letter.listing_id) != dead_letter.version:
                continue
            if dead_letter.photo_number is not None:
                outcome.photos_dead_lettered.append(dead_letter)
            elif outstanding.pop(dead_letter.listing_id, None) is not None:
                outcome.dead_lettered.append(dead_letter)
                last_news = time.monotonic()
        stages.set("searchable", len(outcome.searchable), len(outcome.versions))
        if outstanding:
            _check_stall(last_news, f"{len(outstanding)} listings are not searchable yet")
            await asyncio.sleep(_POLL_SECONDS)


def _check_stall(last_news: float, what: str) -> None:
    if time.monotonic() - last_news > _STALL_SECONDS:
        raise DeadlineExceeded(
            f"{what} and nothing moved for {_STALL_SECONDS:.0f} s: Kafka has the events, so they "
            "are not lost; `shashin status` shows which process does not work"
        )


def _print_outcome(outcome: Published, *, waited: bool) -> None:
    for dead_letter in outcome.photos_dead_lettered:
        say(
            f"listing {dead_letter.listing_id}, photo {(dead_letter.photo_number or 0) + 1} left out: "
            f"{dead_letter.message} ({dead_letter.reason})",
            style="yellow",
        )
    for dead_letter in outcome.dead_lettered:
        say(
            f"listing {dead_letter.listing_id} given up: {dead_letter.message} ({dead_letter.reason})",
            style="red",
        )
    total = len(outcome.versions)
    if waited:
        say(f"{len(outcome.searchable)} of {total} listings are searchable", style="green")
    else:
        say(f"{total} listings are on their way: `shashin locate ID` says when one is searchable")


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
        "given_up": dead_letters(outcome.dead_lettered),
        "photos_given_up": dead_letters(outcome.photos_dead_lettered),
    }


def sell(
    listing_ids: Annotated[list[str], typer.Argument(help="Listings that were sold.")],
    *,
    no_wait: NoWaitOption = False,
    kafka: KafkaOption = None,
    router: RouterOption = None,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Mark listings as sold, and wait until no search finds them."""
    _end(listing_ids, SOLD, "sold", System(state), kafka, router, no_wait=no_wait)


def remove(
    listing_ids: Annotated[list[str], typer.Argument(help="Listings to take down.")],
    *,
    no_wait: NoWaitOption = False,
    kafka: KafkaOption = None,
    router: RouterOption = None,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Take listings down, and wait until no search finds them."""
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
        say(f"{listing_id} was not searchable; it is marked as {word} all the same", style="yellow")
    gone = "" if no_wait else ": no search finds them any more"
    say(f"{len(set(listing_ids))} listings {word}{gone}", style="green")


async def _send_end(
    listing_ids: Sequence[str],
    kind: events_pb2.ListingKind.ValueType,
    kafka: str,
    router: str | None,
    word: str,
) -> list[str]:
    """Send the events and wait; returns the listings that were not searchable before."""
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
    last_news, left = time.monotonic(), len(listing_ids)
    while True:
        found = await router.locate(listing_ids)
        progress(len(listing_ids) - len(found))
        if not found:
            return
        if len(found) < left:
            last_news, left = time.monotonic(), len(found)
        _check_stall(last_news, f"{len(found)} listings are still searchable")
        await asyncio.sleep(_POLL_SECONDS)
