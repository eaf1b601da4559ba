from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shashin.oci.challenges import Challenge, parse_challenge


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (['Basic realm="a registry"'], Challenge("basic", "a registry")),
        (["Basic"], Challenge("basic")),
        (
            [
                'Bearer realm="https://t.example/token",service="r.example",scope="repository:a:pull"'
            ],
            Challenge("bearer", "https://t.example/token", "r.example", ("repository:a:pull",)),
        ),
        (
            ['bearer realm="https://t.example/?a=1,b=2", scope="x:y:pull,push z:w:pull"'],
            Challenge("bearer", "https://t.example/?a=1,b=2", "", ("x:y:pull,push", "z:w:pull")),
        ),
        (
            ['Basic realm="Bearer of news", Bearer realm="https://t.example"'],
            Challenge("bearer", "https://t.example"),
        ),
        (['Basic realm="r"', 'Bearer realm="https://t"'], Challenge("bearer", "https://t")),
        (['Bearer service="no realm"', 'Basic realm="r"'], Challenge("basic", "r")),
        (["Negotiate"], None),
        ([], None),
    ],
)
def test_a_token_is_preferred_to_a_password(headers: list[str], expected: Challenge | None) -> None:
    assert parse_challenge(headers) == expected


@given(st.lists(st.text(), max_size=3))
def test_no_header_fails(headers: list[str]) -> None:
    parse_challenge(headers)
