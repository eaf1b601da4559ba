"""``shashin publish``, ``sell`` and ``remove``: send events for the user's own listings."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
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
from shashin.cli.router_command import calls_router
from shashin.client.listing_events import (
    LISTED,
    REMOVED,
    SOLD,
    check_listing_id,
    listing_event,
    send_events,
    version_now,
)
from shashin.client.listing_sources import SourceListing, SourcePlan, keep_photos, read_source
from shashin.client.router import RouterClient
from shashin.client.sent_events import SentEvent, SentEvents
from shashin.client.topic_tails import (
    CLIENT_ID,
    HiddenBelow,
    SeenDeadLetter,
    TopicTail,
    hidden_below,
    hides,
    new_dead_letters,
    topic_tails,
)
from shashin.codecs.limits import MAX_LISTING_IDS
from shashin.codecs.listing_rules import MAX_VERSION
from shashin.errors import DeadlineExceeded, UserError
from shashin.kafka.producer import Producer
from shashin.kafka.topics import DEAD_LETTER_TOPICS, LISTINGS_HIDDEN
from shashin.local.system import System
from shashin.runtime.command_traces import command_traced
from shashin.terminal.console import Stages, echo, echo_error, echo_json, echo_stderr
from shashin.terminal.run import run
from shashin.v1 import events_pb2

_SEND_AT_ONCE = 100
_POLL_SECONDS = 0.2
_STALL_SECONDS = 60.0
"""How long to wait without progress before failing."""
_HISTORY_SECONDS = 5.0
"""How long to wait without progress before reading the whole topic of hidden listings: it tells
whether a version can still become searchable, and is large in a system with many sales."""

_PROBLEMS_SHOWN = 20


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(
        epilog="Example:  shashin publish my-photos/      (each subfolder is a listing)",
    )(calls_router(publish))
    app.command(epilog="Example:  shashin sell listing-000012 listing-000013")(calls_router(sell))
    app.command(epilog="Example:  shashin remove listing-000012")(calls_router(remove))


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
    skip_bad: Annotated[
        bool,
        typer.Option("--skip-bad", help="Publish the other listings if some cannot be published."),
    ] = False,
    no_wait: NoWaitOption = False,
    kafka: KafkaOption = None,
    router: RouterOption = None,
    state: StateOption = DEFAULT_STATE,
    as_json: JsonOption = False,
) -> None:
    """Publish photos as listings, and wait until they are searchable.

    Publishing a listing again replaces it. Everything is checked, and photo files are copied into
    the state folder, before the first listing is published. Folders inside a listing's folder,
    formats that are not read and other files are left out, and named.
    """
    plan = read_source(source)
    _report_plan(plan, skip_bad=skip_bad)
    system = System(state)
    sent = run(
        _publish(
            plan.listings,
            system.photos,
            kafka or system.kafka_address(),
            None if no_wait else router or system.router_address(),
        )
    )
    if as_json:
        echo_json(_document(sent, plan, waited=not no_wait))
    else:
        _print_outcome(sent, waited=not no_wait)
    if sent.failed:
        raise typer.Exit(1)


def _report_plan(plan: SourcePlan, *, skip_bad: bool) -> None:
    """Print what is not published.

    Raises:
        UserError: if something cannot be published and is not to be skipped.
    """
    for line in plan.left_out_lines():
        echo_stderr(f"left out: {line}", style="yellow")
    if not plan.invalid:
        return
    bad, good = len(plan.invalid), len(plan.listings)
    if skip_bad and good:
        for problem in plan.invalid:
            echo_stderr(f"skipped: {problem}", style="yellow")
        return
    skip = f"; --skip-bad publishes the other {good}" if good else ""
    if bad == 1:
        raise UserError(f"{plan.invalid[0]}; nothing was published{skip}")
    for problem in plan.invalid[:_PROBLEMS_SHOWN]:
        echo_error(problem)
    more = f", of which {_PROBLEMS_SHOWN} are shown" if bad > _PROBLEMS_SHOWN else ""
    raise UserError(f"nothing was published: there are {bad} problems{more}{skip}")


async def _publish(
    listings: Sequence[SourceListing], photos: Path, kafka: str, router: str | None
) -> SentEvents:
    with Stages() as stages:
        # All photos first: once a listing is public, the rest should not fail.
        uris = []
        for listing in listings:
            uris.append(await asyncio.to_thread(_kept, listing, photos))
            stages.set("listings copied", len(uris), len(listings))
        async with _following(kafka) as follower:
            await _send(listings, uris, follower, stages)
            if router is not None:
                async with RouterClient(router) as client:
                    await _wait_searchable(follower, client, stages)
    return follower.sent


def _kept(listing: SourceListing, photos: Path) -> list[str]:
    return list(keep_photos(listing, photos))


@dataclass
class _Follower:
    """Follows the events that it sends: their dead letters, and the listings that become hidden."""

    producer: Producer
    tails: dict[str, TopicTail]
    """At the end of each topic, as of before the first event was sent."""
    sent: SentEvents = field(default_factory=SentEvents)
    _progress_at: float = field(default_factory=time.monotonic)
    _left: int = 0

    async def send(self, events: Sequence[events_pb2.ListingEvent]) -> None:
        """Send events and wait until Kafka has them."""
        written = await send_events(self.producer, events)
        self.sent.add(
            SentEvent(event.listing_id, event.version, at.partition, at.offset)
            for event, at in zip(events, written, strict=True)
        )
        self._progress_at = time.monotonic()

    async def dead_letters(self) -> list[SeenDeadLetter]:
        """Return the dead letters since the last call."""
        return await new_dead_letters(self.tails)

    async def hidden(self) -> dict[str, HiddenBelow]:
        """Return the outstanding listings that were hidden since the last call."""
        records = await self.tails[LISTINGS_HIDDEN].new_records(hides(self.sent.outstanding))
        return hidden_below(records)

    async def ever_hidden(self) -> dict[str, HiddenBelow]:
        """Return the outstanding listings that were ever hidden."""
        await self.tails[LISTINGS_HIDDEN].go_to_begin()
        return await self.hidden()

    def seconds_without_progress(self) -> float:
        """Return for how long no event has had an outcome."""
        if len(self.sent.outstanding) != self._left:
            self._left, self._progress_at = len(self.sent.outstanding), time.monotonic()
        return time.monotonic() - self._progress_at

    async def pause(self, what: str) -> None:
        """Wait a moment.

        Raises:
            DeadlineExceeded: if there was no progress for too long; it says what is not done yet.
        """
        if self.seconds_without_progress() > _STALL_SECONDS:
            raise DeadlineExceeded(
                f"{what} and there was no progress for {_STALL_SECONDS:.0f} s: Kafka has the "
                "events, and none of these is lost or dead-lettered; `shashin status` shows which "
                "process is not healthy"
            )
        await asyncio.sleep(_POLL_SECONDS)


@asynccontextmanager
async def _following(kafka: str) -> AsyncIterator[_Follower]:
    followed = [*DEAD_LETTER_TOPICS, LISTINGS_HIDDEN]
    with command_traced():
        async with (
            Producer(kafka, client_id=CLIENT_ID) as producer,
            topic_tails(kafka, followed) as tails,
        ):
            for tail in tails.values():
                await tail.go_to_end()
            yield _Follower(producer, tails)


async def _send(
    listings: Sequence[SourceListing],
    uris: Sequence[Sequence[str]],
    follower: _Follower,
    stages: Stages,
) -> None:
    waiting = zip(listings, uris, strict=True)
    while batch := list(islice(waiting, _SEND_AT_ONCE)):
        await follower.send(
            [
                listing_event(
                    listing.listing_id,
                    listing.version or version_now(),
                    LISTED,
                    photo_uris=of_listing,
                    attributes=listing.attributes,
                )
                for listing, of_listing in batch
            ]
        )
        stages.set("published", len(follower.sent.events), len(listings))


async def _wait_searchable(follower: _Follower, router: RouterClient, stages: Stages) -> None:
    sent, history_read = follower.sent, False
    while sent.outstanding:
        # Events are processed roughly in the order in which they were sent.
        sent.note_searchable(await router.locate(islice(sent.outstanding, MAX_LISTING_IDS)))
        # Read last: a listing's failed photos are dead-lettered before it becomes searchable.
        sent.note_dead_letters(await follower.dead_letters())
        sent.note_hidden_versions(await follower.hidden())
        if follower.seconds_without_progress() > _HISTORY_SECONDS and not history_read:
            sent.note_hidden_versions(await follower.ever_hidden())
            history_read = True
        stages.set("searchable", len(sent.done), len(sent.events))
        if sent.outstanding:
            await follower.pause(f"{len(sent.outstanding)} listings are not searchable yet")


def _print_failures(sent: SentEvents) -> None:
    for dead_letter in sent.photos_dead_lettered:
        echo(
            f"listing {dead_letter.listing_id}, photo {(dead_letter.photo_number or 0) + 1} skipped: "
            f"{dead_letter.message} ({dead_letter.reason})",
            style="yellow",
        )
    for dead_letter in sent.dead_lettered:
        echo(
            f"listing {dead_letter.listing_id} dead-lettered: {dead_letter.message} ({dead_letter.reason})",
            style="red",
        )
    for listing_id, why in sent.without_effect.items():
        echo(f"listing {listing_id}: {why}", style="red")


def _print_outcome(sent: SentEvents, *, waited: bool) -> None:
    _print_failures(sent)
    total = len(sent.events)
    if waited:
        style = "yellow" if sent.failed else "green"
        echo(f"{len(sent.done)} of {total} listings are searchable", style=style)
    else:
        echo(f"{total} listings sent: `shashin locate ID` shows whether one is searchable")


def _document(sent: SentEvents, plan: SourcePlan, *, waited: bool) -> dict[str, Any]:
    def dead_letters(dead_lettered: Iterable[SeenDeadLetter]) -> list[dict[str, Any]]:
        return [
            {
                "listing_id": dead_letter.listing_id,
                "photo_number": dead_letter.photo_number,
                "reason": dead_letter.reason,
                "message": dead_letter.message,
            }
            for dead_letter in dead_lettered
        ]

    searchable = set(sent.done)
    return {
        "published": [
            {
                "listing_id": event.listing_id,
                "version": event.version,
                **({"searchable": event.listing_id in searchable} if waited else {}),
            }
            for event in sent.events.values()
        ],
        "dead_lettered": dead_letters(sent.dead_lettered),
        "photos_dead_lettered": dead_letters(sent.photos_dead_lettered),
        "without_effect": [
            {"listing_id": listing_id, "message": why}
            for listing_id, why in sent.without_effect.items()
        ],
        "skipped": plan.invalid,
        "left_out": [{"path": left_out.path, "reason": left_out.why} for left_out in plan.left_out],
    }


VersionOption = Annotated[
    int | None,
    typer.Option(
        "--version",
        min=1,
        max=MAX_VERSION,
        help="Version of the event, higher than that of the listing; the time in milliseconds by "
        "default.",
    ),
]


def sell(
    listing_ids: Annotated[list[str], typer.Argument(help="IDs of the sold listings.")],
    *,
    version: VersionOption = None,
    no_wait: NoWaitOption = False,
    kafka: KafkaOption = None,
    router: RouterOption = None,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Mark listings as sold, and wait until they are no longer searchable."""
    _end(listing_ids, SOLD, "sold", System(state), kafka, router, version, no_wait=no_wait)


def remove(
    listing_ids: Annotated[list[str], typer.Argument(help="IDs of the listings to remove.")],
    *,
    version: VersionOption = None,
    no_wait: NoWaitOption = False,
    kafka: KafkaOption = None,
    router: RouterOption = None,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Remove listings, and wait until they are no longer searchable."""
    _end(listing_ids, REMOVED, "removed", System(state), kafka, router, version, no_wait=no_wait)


def _end(
    listing_ids: Sequence[str],
    kind: events_pb2.ListingKind.ValueType,
    word: str,
    system: System,
    kafka: str | None,
    router: str | None,
    version: int | None,
    *,
    no_wait: bool,
) -> None:
    for listing_id in listing_ids:
        check_listing_id(listing_id)
    sent, unknown = run(
        _send_end(
            [
                listing_event(listing_id, version or version_now(), kind)
                for listing_id in dict.fromkeys(listing_ids)
            ],
            kafka or system.kafka_address(),
            None if no_wait else router or system.router_address(),
            word,
        )
    )
    for listing_id in unknown:
        echo(f"{listing_id} was not searchable; marked as {word} anyway", style="yellow")
    _print_failures(sent)
    if no_wait:
        echo(f"{len(sent.events)} listings marked as {word}", style="green")
    elif sent.done:
        echo(f"{len(sent.done)} listings {word}: no longer searchable", style="green")
    if sent.failed:
        raise typer.Exit(1)


async def _send_end(
    events: Sequence[events_pb2.ListingEvent],
    kafka: str,
    router: str | None,
    word: str,
) -> tuple[SentEvents, list[str]]:
    """Send the events and wait; returns also the listings that were not searchable beforehand."""
    async with _following(kafka) as follower:
        if router is None:
            await follower.send(events)
            return follower.sent, []
        async with RouterClient(router) as client:
            before = await client.locate(event.listing_id for event in events)
            await follower.send(events)
            with Stages() as stages:
                await _wait_ended(follower, client, lambda n: stages.set(word, n, len(events)))
    sent = follower.sent
    return sent, [listing_id for listing_id in sent.done if listing_id not in before]


async def _wait_ended(
    follower: _Follower, router: RouterClient, progress: Callable[[int], None]
) -> None:
    sent = follower.sent
    while True:
        # Hidden listings first: an answer from before the event shows nothing.
        hidden = await follower.hidden()
        sent.note_ended(hidden, await router.locate(sent.outstanding))
        sent.note_dead_letters(await follower.dead_letters())
        progress(len(sent.done))
        if not sent.outstanding:
            return
        await follower.pause(f"{len(sent.outstanding)} listings are still searchable")
