"""Moments in the options of commands: an age, or an ISO time. Pure."""

from __future__ import annotations

import math
import re
from datetime import datetime

from shashin.errors import UserError

_AGE = re.compile(r"(?P<count>\d{1,9}(\.\d{1,9})?)(?P<unit>[smhd])", re.ASCII)
_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def parse_moment(text: str, *, now_ms: int) -> int:
    """Return Unix milliseconds for an age (``2h``, ``30m``) or an ISO time.

    An ISO time without a time zone is local time.

    Raises:
        UserError: when it is neither.
    """
    age = _AGE.fullmatch(text)
    if age is not None:
        return now_ms - math.floor(float(age["count"]) * _UNIT_SECONDS[age["unit"]] * 1000)
    try:
        return math.floor(datetime.fromisoformat(text).timestamp() * 1000)
    except (ValueError, OverflowError, OSError):
        raise UserError(
            f"{text!r} is not a time: expected an age such as 30m, 2h or 7d, or an ISO time such as "
            "2026-07-30T12:00"
        ) from None
