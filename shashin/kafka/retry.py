"""Retrying what can succeed later, with jittered exponential backoff."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

from shashin.errors import ShashinError
from shashin.runtime.health import Heartbeat
from shashin.runtime.logging import get_logger
from shashin.runtime.scope import sleep_unless

T = TypeVar("T")

log = get_logger(__name__)


def backoff_seconds(*, first: float = 0.1, greatest: float = 10.0) -> Iterator[float]:
    """Yield waits that double up to ``greatest`` seconds, each between half and the whole of it."""
    wait = min(first, greatest)
    while True:
        yield wait * random.uniform(0.5, 1.0)
        wait = min(wait * 2, greatest)


async def until_done(
    what: str,
    do: Callable[[], Awaitable[T]],
    *,
    stopping: asyncio.Event,
    beat: Heartbeat | None,
    waits_for: tuple[type[ShashinError], ...] = (),
) -> T:
    """Do it again after each retryable error until it succeeds; say so on every try.

    The heart beats while it waits: a dependency that is gone is no reason to be restarted. Errors
    of ``waits_for`` are waited for as well, though somebody has to mend what they name: what else
    the process does has to go on meanwhile.

    Raises:
        ShashinError: an error that no retry can help, or the last one when stopping.
    """
    for tries, wait in enumerate(backoff_seconds(), start=1):
        try:
            return await do()
        except ShashinError as error:
            if stopping.is_set() or not (error.retryable or isinstance(error, waits_for)):
                raise
            log.warning("waiting to try again", what=what, tries=tries, error=error.message)
        if beat is not None:
            beat.beat()
        await sleep_unless(stopping, wait)
    raise AssertionError("unreachable: the waits never end")
