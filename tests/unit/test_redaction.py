"""Text without what may be a secret in its URLs."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shashin.access.api_key import new_key
from shashin.redaction import redacted, without_user_names


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "there is no photo at https://h/p.jpg?X-Amz-Signature=abc&x=1 (status 404)",
            "there is no photo at https://h/p.jpg?REDACTED (status 404)",
        ),
        ("'https://user:pw@h:1/p'", "'https://REDACTED@h:1/p'"),
        ("a gs://bucket/key#part, b", "a gs://bucket/key#REDACTED b"),
        (
            "https://a/x?s=1 redirects to https://b/y?s=2, which",
            "https://a/x?REDACTED redirects to https://b/y?REDACTED which",
        ),
        ("file:///srv/photos/a b.jpg", "file:///srv/photos/a b.jpg"),
        ("which of the two? /a or /b", "which of the two? /a or /b"),
        ("", ""),
    ],
)
def test_the_query_the_fragment_and_the_user_of_a_url_are_replaced(
    text: str, expected: str
) -> None:
    assert redacted(text) == expected
    assert redacted(expected) == expected


@given(st.text(max_size=40), st.text(max_size=40))
def test_an_api_key_is_replaced_wherever_it_is_and_its_id_is_not(before: str, after: str) -> None:
    key, stored = new_key("app", created=datetime.now(UTC))
    shown = redacted(f"{before} {key} {after}")
    assert key.rpartition("_")[2] not in shown
    assert "://" in f"{before}{after}" or stored.id in shown
    assert redacted("shashin_router_wait_seconds 0.1") == "shashin_router_wait_seconds 0.1"


def test_a_setting_is_quoted_without_the_password_in_its_url_alone() -> None:
    text = "SHASHIN_X='https://user:pw@host:1/p?x=1#y': refused; kubernetes:///shop?x=1"
    assert without_user_names(text) == text.replace("user:pw", "REDACTED")


@given(st.text(), st.text(alphabet="abcXYZ019-_%=&", min_size=1), st.text())
def test_no_secret_in_a_query_is_left(before: str, secret: str, after: str) -> None:
    marked = f"S3CRET{secret}"
    assert "S3CRET" not in redacted(f"{before} https://host/photo.jpg?sig={marked} {after}")
