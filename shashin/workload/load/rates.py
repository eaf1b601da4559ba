"""Rates over time, and the times at which requests are due. Pure.

A schedule is text: phases separated by commas, each ``20/s for 30s`` or ``0..200/s over 60s``. A last
phase without a length goes on to the end of the run.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Literal

from shashin.errors import UserError

Arrivals = Literal["poisson", "even"]

FORM = "`20/s`, `20/s for 30s` or `0..200/s over 60s`, several separated by commas"

_NUMBER = r"\d+(?:\.\d+)?"
_RATE = rf"(?P<first>{_NUMBER})(?:\.\.(?P<last>{_NUMBER}))?/(?P<per>s|min)"
_LENGTH = rf"(?P<word>for|over)\s+(?P<length>{_NUMBER}\s*[a-z]+)"
_PHASE = re.compile(rf"{_RATE}(?:\s+{_LENGTH})?")
_DURATION = re.compile(rf"(?P<number>{_NUMBER})\s*(?P<unit>ms|s|m|min|h)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
_MAX_RATE = 100_000.0


@dataclass(frozen=True)
class Phase:
    """A time in which the rate is steady, or changes linearly."""

    first: float
    """Requests per second at its begin."""
    last: float
    """Requests per second at its end."""
    seconds: float
    """Infinite if it goes on to the end of the run."""

    def requests(self, at: float) -> float:
        """Return the expected number of requests until ``at`` seconds after its begin."""
        if self.first == self.last:
            return self.first * at
        return self.first * at + (self.last - self.first) / self.seconds * at * at / 2

    def reached(self, requests: float) -> float:
        """Return after how many seconds so many requests are expected; the inverse of ``requests``."""
        if self.first == self.last:
            return requests / self.first
        slope = (self.last - self.first) / self.seconds
        root = math.sqrt(max(0.0, self.first * self.first + 2 * slope * requests))
        return 2 * requests / (self.first + root) if requests else 0.0


@dataclass(frozen=True)
class Schedule:
    """Phases, one after another."""

    phases: tuple[Phase, ...]

    @property
    def seconds(self) -> float:
        """Its length; infinite if the last phase has none."""
        return sum(phase.seconds for phase in self.phases)

    def requests(self, at: float) -> float:
        """Return the expected number of requests in its first ``at`` seconds."""
        total, left = 0.0, at
        for phase in self.phases:
            part = min(left, phase.seconds)
            total, left = total + phase.requests(part), left - part
            if left <= 0:
                break
        return total

    def due_times(self, seconds: float, arrivals: Arrivals, seed: int) -> Iterator[float]:
        """Return when requests are due, in seconds from the begin, ascending, all below ``seconds``.

        Arrivals of a Poisson process with a changing rate are those of one with rate 1, each moved to
        the time at which so many requests are expected (Çinlar, Introduction to Stochastic Processes,
        1975). The same seed gives the same times.
        """
        chance = random.Random(seed)
        begun, before, phases = 0.0, 0.0, iter(self.phases)
        phase = next(phases)
        wanted = 0.0
        for number in count():
            # Even arrivals are in the middle of the interval that each one has.
            wanted = wanted + chance.expovariate(1.0) if arrivals == "poisson" else number + 0.5
            while before + phase.requests(min(phase.seconds, seconds - begun)) <= wanted:
                if begun + phase.seconds >= seconds:
                    return
                before += phase.requests(phase.seconds)
                begun += phase.seconds
                following = next(phases, None)
                if following is None:
                    return
                phase = following
            at = begun + phase.reached(wanted - before)
            if at >= seconds:
                return
            yield at


def parse_schedule(text: str) -> Schedule:
    """Return a schedule.

    Raises:
        UserError: if the text is none; it names the part that is wrong.
    """
    parts = [part.strip() for part in text.split(",")]
    phases = []
    for number, part in enumerate(parts):
        match = _PHASE.fullmatch(part)
        if match is None:
            raise UserError(f"{part!r} is not a rate: expected {FORM}")
        per = _UNITS[match["per"]]
        first = float(match["first"]) / per
        last = first if match["last"] is None else float(match["last"]) / per
        if max(first, last) > _MAX_RATE:
            raise UserError(f"{part!r} is more than {_MAX_RATE:,.0f} requests per second")
        if match["last"] is not None and match["word"] != "over":
            raise UserError(f"{part!r} is a ramp without a length: expected `{part} over 60s`")
        if match["last"] is None and match["word"] == "over":
            raise UserError(f"{part!r} is not a ramp: expected `for` instead of `over`")
        if match["length"] is None and number < len(parts) - 1:
            raise UserError(f"{part!r} has no length, and others follow: expected `{part} for 30s`")
        seconds = math.inf if match["length"] is None else parse_duration(match["length"])
        phases.append(Phase(first, last, seconds))
    return Schedule(tuple(phases))


def parse_duration(text: str) -> float:
    """Return a duration in seconds.

    Raises:
        UserError: if the text is none, or not above zero.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None or float(match["number"]) == 0:
        raise UserError(f"{text!r} is not a duration: expected a number above 0 with ms, s, m or h")
    return float(match["number"]) * _UNITS[match["unit"]]
