"""``shashin dlq``: list, show, replay and drop dead letters."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import typer

from shashin.cli.confirm import confirm
from shashin.cli.dlq.filters import (
    DlqFilter,
    Selection,
    check_selection,
    counts,
    filtered,
    newest,
    parse_topic,
    with_ids,
)
from shashin.cli.dlq.skip import skip
from shashin.cli.dlq.view import (
    COLUMNS,
    NO_WRAP_COLUMNS,
    entry_document,
    list_document,
    replay_document,
    row_of,
    summary_line,
    whole_document,
    whole_rows,
)
from shashin.cli.moments import parse_moment
from shashin.cli.options import (
    DEFAULT_STATE,
    DryRunOption,
    JsonOption,
    KafkaOption,
    LimitOption,
    StateOption,
    YesOption,
)
from shashin.client.topic_tails import CLIENT_ID
from shashin.errors import UserError
from shashin.kafka.dlq_entries import DlqEntry, DlqEntryId, parse_entry_id
from shashin.kafka.dlq_topics import (
    DlqTopics,
    check_partitions,
    replay_records,
    resolve,
)
from shashin.kafka.producer import Producer
from shashin.kafka.records import InRecord
from shashin.kafka.replay_plan import Replay, plan_replays
from shashin.local.system import System
from shashin.terminal.console import Stages, echo, echo_error, echo_json, echo_table
from shashin.terminal.run import run

app = typer.Typer(
    no_args_is_help=True,
    help="List, show, replay and drop dead letters: records and photos that failed for good.",
)

app.command(epilog="Example:  shashin dlq skip listings.events:3:1200")(skip)

IdsArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="[ID]...", help="IDs of dead letters, as shown by `dlq ls`."),
]
TopicOption = Annotated[
    str | None, typer.Option(help="Only entries of this topic, such as listings.events.")
]
ReasonOption = Annotated[
    str | None, typer.Option(help="Only entries with this reason, such as PhotoMissing.")
]
StepOption = Annotated[
    str | None,
    typer.Option(
        help="Only entries of this step, such as downloader.fetch, or of all steps of a service, "
        "such as downloader."
    ),
]
ListingOption = Annotated[
    str | None, typer.Option("--listing", metavar="ID", help="Only entries of this listing.")
]
SinceOption = Annotated[
    str | None,
    typer.Option(
        metavar="AGE|TIME",
        help="Only entries since then: an age (30m, 2h, 7d) or an ISO time.",
    ),
]
UntilOption = Annotated[
    str | None, typer.Option(metavar="AGE|TIME", help="Only entries before then.")
]
AllOpenOption = Annotated[bool, typer.Option("--all-open", help="All open entries.")]


def _filter(
    topic: str | None,
    reason: str | None,
    step: str | None,
    listing: str | None,
    since: str | None,
    until: str | None,
) -> DlqFilter:
    now_ms = time.time_ns() // 1_000_000
    since_ms = None if since is None else parse_moment(since, now_ms=now_ms)
    until_ms = None if until is None else parse_moment(until, now_ms=now_ms)
    if since_ms is not None and until_ms is not None and since_ms >= until_ms:
        raise UserError(f"--since {since} is not before --until {until}: no entry can match")
    return DlqFilter(
        topic=None if topic is None else parse_topic(topic),
        reason=reason,
        step=step,
        listing_id=listing,
        since_ms=since_ms,
        until_ms=until_ms,
    )


def _selection(ids: list[str] | None, dlq_filter: DlqFilter, limit: int | None) -> Selection:
    return Selection(tuple(map(parse_entry_id, ids or ())), dlq_filter, limit)


async def _entries(kafka: str, topics: Sequence[str]) -> list[DlqEntry]:
    async with DlqTopics(kafka, client_id=CLIENT_ID, topics=topics) as log:
        return await log.entries()


@app.command(epilog="Example:  shashin dlq ls --reason PhotoMissing --since 2h")
def ls(
    *,
    topic: TopicOption = None,
    reason: ReasonOption = None,
    step: StepOption = None,
    listing: ListingOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    limit: LimitOption = None,
    resolved_too: Annotated[
        bool, typer.Option("--all", help="Include entries that were replayed or dropped.")
    ] = False,
    kafka: KafkaOption = None,
    state: StateOption = DEFAULT_STATE,
    as_json: JsonOption = False,
) -> None:
    """List open dead letters, newest last."""
    dlq_filter = _filter(topic, reason, step, listing, since, until)
    entries = run(_entries(kafka or System(state).kafka_address(), dlq_filter.topics))
    matching = filtered(entries, dlq_filter, resolved_too=resolved_too)
    shown, counted = newest(matching, limit), counts(matching)
    if as_json:
        echo_json(list_document(shown, counted, matching=len(matching)))
        return
    if not matching:
        adjectives = [] if resolved_too else ["open"]
        adjectives += ["matching"] if dlq_filter.restricts else []
        echo(" ".join(["no", *adjectives, "dead letters"]))
        return
    echo_table(COLUMNS, [row_of(entry) for entry in shown], no_wrap=NO_WRAP_COLUMNS)
    if len(shown) < len(matching):
        echo(f"showing the newest {len(shown)} of {len(matching)}")
    echo(summary_line(counted))


@app.command(epilog="Example:  shashin dlq show listings.events.dlq:12")
def show(
    ids: IdsArgument = None,
    *,
    topic: TopicOption = None,
    reason: ReasonOption = None,
    step: StepOption = None,
    listing: ListingOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    limit: LimitOption = None,
    kafka: KafkaOption = None,
    state: StateOption = DEFAULT_STATE,
    as_json: JsonOption = False,
) -> None:
    """Show dead letters in full: headers, message, event. Filters match only open ones."""
    selection = _selection(ids, _filter(topic, reason, step, listing, since, until), limit)
    check_selection(selection, "show", all_open=None)
    found = run(_whole(kafka or System(state).kafka_address(), selection))
    if as_json:
        echo_json([whole_document(entry, record) for entry, record in found])
        return
    for entry, record in found:
        echo_table(["", str(entry.dead_letter.entry_id)], whole_rows(entry, record))
    if not found:
        echo("no open matching dead letters")


async def _whole(kafka: str, selection: Selection) -> list[tuple[DlqEntry, InRecord]]:
    async with DlqTopics(kafka, client_id=CLIENT_ID, topics=selection.topics) as log:
        entries = await log.entries()
        # An entry given by id is shown whether it is resolved or not.
        chosen = (
            with_ids(entries, selection.ids) if selection.ids else selection.open_entries(entries)
        )
        records = await log.records(entry.dead_letter.entry_id for entry in chosen)
    return [(entry, records[entry.dead_letter.entry_id]) for entry in chosen]


@dataclass(frozen=True)
class _ToReplay:
    replays: list[Replay]
    not_replayable: list[DlqEntryId]


@app.command(epilog="Example:  shashin dlq replay --reason PhotoMissing --since 2h --dry-run")
def replay(
    ids: IdsArgument = None,
    *,
    topic: TopicOption = None,
    reason: ReasonOption = None,
    step: StepOption = None,
    listing: ListingOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    limit: LimitOption = None,
    all_open: AllOpenOption = False,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    kafka: KafkaOption = None,
    state: StateOption = DEFAULT_STATE,
    as_json: JsonOption = False,
) -> None:
    """Resend the records of open dead letters, each once, to their original topic and partition.

    Fix the cause first: a record that fails again becomes a new dead letter. Start with a few
    (--limit 5): a service pauses consumption when it dead-letters too many records at once.
    """
    selection = _selection(ids, _filter(topic, reason, step, listing, since, until), limit)
    check_selection(selection, "replay", all_open=all_open)
    address = kafka or System(state).kafka_address()
    planned = run(_plan(address, selection))
    if not dry_run and planned.replays:
        dead_letters = sum(len(r.resolves) for r in planned.replays)
        confirm(f"replay {len(planned.replays)} records, of {dead_letters} dead letters", yes=yes)
        run(_replay(address, selection.topics, planned.replays))
    if as_json:
        echo_json(
            {
                "dry_run": dry_run,
                "replayed": [replay_document(r) for r in planned.replays],
                "not_replayable": [str(entry_id) for entry_id in planned.not_replayable],
            }
        )
    else:
        _print_replays(planned.replays, dry_run=dry_run)
    if planned.not_replayable:
        echo_error(
            f"{', '.join(map(str, planned.not_replayable))} cannot be replayed: not written "
            "by a service, truncated to fit, or a batch that cannot be decoded. Publish what it "
            "contained again; `shashin dlq drop` resolves such entries"
        )
        raise typer.Exit(1)


async def _plan(kafka: str, selection: Selection) -> _ToReplay:
    entries = await _entries(kafka, selection.topics)
    chosen = selection.open_entries(entries)
    replays = plan_replays(entries, [entry.dead_letter.entry_id for entry in chosen])
    await check_partitions(kafka, replays, client_id=CLIENT_ID)
    return _ToReplay(
        replays,
        [entry.dead_letter.entry_id for entry in chosen if not entry.dead_letter.replayable],
    )


async def _replay(kafka: str, topics: Sequence[str], replays: Sequence[Replay]) -> None:
    async with (
        DlqTopics(kafka, client_id=CLIENT_ID, topics=topics) as log,
        Producer(kafka, client_id=CLIENT_ID) as producer,
    ):
        with Stages() as stages:
            await replay_records(
                log,
                producer,
                replays,
                progress=lambda done: stages.set("replayed", done, len(replays)),
            )


def _print_replays(replays: Sequence[Replay], *, dry_run: bool) -> None:
    if not replays:
        echo("no dead letters to replay")
        return
    echo_table(
        ["record", "listing", ">version", "dead letters"],
        [
            (
                r.origin,
                r.dead_letter.listing_id or "-",
                r.dead_letter.version or "-",
                r.resolves,
            )
            for r in replays
        ],
    )
    if dry_run:
        echo(f"{len(replays)} records would be replayed; nothing changed")
    else:
        echo(
            f"{len(replays)} records replayed; `shashin dlq ls` lists those that fail again",
            style="green",
        )


@app.command(epilog="Example:  shashin dlq drop listings.events.dlq:12")
def drop(
    ids: IdsArgument = None,
    *,
    topic: TopicOption = None,
    reason: ReasonOption = None,
    step: StepOption = None,
    listing: ListingOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    limit: LimitOption = None,
    all_open: AllOpenOption = False,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    kafka: KafkaOption = None,
    state: StateOption = DEFAULT_STATE,
    as_json: JsonOption = False,
) -> None:
    """Resolve open dead letters without resending their records."""
    selection = _selection(ids, _filter(topic, reason, step, listing, since, until), limit)
    check_selection(selection, "drop", all_open=all_open)
    address = kafka or System(state).kafka_address()
    chosen = selection.open_entries(run(_entries(address, selection.topics)))
    if not dry_run and chosen:
        confirm(f"drop {len(chosen)} dead letters", yes=yes)
        run(_drop(address, [entry.dead_letter.entry_id for entry in chosen]))
    if as_json:
        echo_json({"dry_run": dry_run, "dropped": [entry_document(entry) for entry in chosen]})
        return
    if not chosen:
        echo("no dead letters to drop")
        return
    echo_table(COLUMNS, [row_of(entry) for entry in chosen], no_wrap=NO_WRAP_COLUMNS)
    if dry_run:
        echo(f"{len(chosen)} dead letters would be dropped; nothing changed")
    else:
        echo(f"{len(chosen)} dead letters dropped", style="green")


async def _drop(kafka: str, ids: Sequence[DlqEntryId]) -> None:
    async with Producer(kafka, client_id=CLIENT_ID) as producer:
        await resolve(producer, ids, "dropped")
