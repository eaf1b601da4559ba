"""Moments in options: an age, or an ISO time."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shashin.cli.moments import parse_moment
from shashin.errors import UserError

NOW_MS = 1_800_000_000_000


@pytest.mark.parametrize(
    ("text", "expected_ms"),
    [
        ("30s", NOW_MS - 30_000),
        ("30m", NOW_MS - 1_800_000),
        ("2h", NOW_MS - 7_200_000),
        ("1.5h", NOW_MS - 5_400_000),
        ("7d", NOW_MS - 604_800_000),
        ("2026-07-30T12:00:00Z", int(datetime(2026, 7, 30, 12, tzinfo=UTC).timestamp()) * 1000),
        ("2026-07-30T12:00+02:00", int(datetime(2026, 7, 30, 10, tzinfo=UTC).timestamp()) * 1000),
    ],
)
def test_a_moment_is_an_age_or_an_iso_time(text: str, expected_ms: int) -> None:
    assert parse_moment(text, now_ms=NOW_MS) == expected_ms


def test_an_iso_time_without_a_zone_is_local() -> None:
    local = datetime(2026, 7, 30, 12).astimezone()
    assert parse_moment("2026-07-30T12:00", now_ms=NOW_MS) == int(local.timestamp()) * 1000


@given(st.text(max_size=20) | st.from_regex(r"[0-9]{1,30}[smhd]|[0-9-]{8,10}", fullmatch=True))
def test_any_text_is_a_moment_or_a_user_error(text: str) -> None:
    with contextlib.suppress(UserError):
        assert isinstance(parse_moment(text, now_ms=NOW_MS), int)


@pytest.mark.parametrize("text", ["", "2", "h", "-2h", "2 h", "2y", "yesterday"])
def test_an_invalid_moment_is_rejected(text: str) -> None:
    with pytest.raises(UserError, match="expected an age such as 30m"):
        parse_moment(text, now_ms=NOW_MS)
