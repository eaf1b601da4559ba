"""What is stored of an API key tells whether a key is it, and nothing that could be used as one."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shashin.access.api_key import (
    KeyDocument,
    StoredKey,
    id_of,
    is_hash_of,
    key_document,
    new_key,
)
from shashin.errors import ApiKeyRefused, UserError

NOW = datetime(2026, 11, 29, 10, tzinfo=UTC)


def test_a_key_is_found_by_its_id_and_recognised_by_its_hash() -> None:
    key, stored = new_key("app", created=NOW)
    other, _ = new_key("app", created=NOW)
    assert key.startswith(f"shashin_{stored.id}_")
    assert id_of(key) == stored.id
    assert is_hash_of(stored, key)
    assert not is_hash_of(stored, other)
    # 256 bits of its own, after the id.
    assert len(key.rpartition("_")[2]) == 64
    assert key.rpartition("_")[2] != other.rpartition("_")[2]


def test_what_is_stored_does_not_have_the_key() -> None:
    key, stored = new_key("app", created=NOW, per_second=3)
    secret = key.rpartition("_")[2]
    written = KeyDocument(keys=(stored,)).model_dump_json()
    assert secret not in written
    assert secret not in repr(stored)
    assert stored.sha256 not in repr(stored)
    assert key_document(written.encode()).keys == (stored,)


@given(st.text(max_size=120))
def test_no_other_text_is_a_key_and_no_message_repeats_it(text: str) -> None:
    key = f"shashin_0123456789_{text}"
    with pytest.raises(ApiKeyRefused) as refused:
        id_of(key)
    assert len(text) < 8 or text not in refused.value.message


@pytest.mark.parametrize("ending", ["\n", " ", "\uff10", "g" * 64, "0" * 63, "0" * 65])
def test_a_key_with_anything_else_is_malformed(ending: str) -> None:
    with pytest.raises(ApiKeyRefused, match="malformed"):
        id_of(f"shashin_0123456789_{'0' * 64 if len(ending) == 1 else ''}{ending}")


def test_a_key_is_valid_until_it_expires_or_is_revoked() -> None:
    _, stored = new_key("app", created=NOW, expires=NOW + timedelta(days=1))
    assert stored.problem(NOW + timedelta(hours=23)) is None
    assert "expired" in (stored.problem(NOW + timedelta(days=1)) or "")
    revoked = stored.model_copy(update={"revoked": NOW})
    assert "revoked" in (revoked.problem(NOW) or "")


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"name": "a b"}, "name"),
        ({"name": ""}, "name"),
        ({"name": "x" * 64}, "name"),
        ({"per_second": 0.0}, "per_second"),
        ({"per_second": float("inf")}, "per_second"),
        ({"burst": 2.0}, "burst is given without per_second"),
        ({"per_second": 1.0, "burst": 0.5}, "burst"),
    ],
)
def test_what_cannot_be_stored_is_refused(values: dict[str, object], problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        new_key(**{"name": "app", "created": NOW, **values})  # type: ignore[arg-type]


def stored(**values: object) -> dict[str, object]:
    made = new_key("app", created=NOW)[1].model_dump(mode="json")
    return {**made, **values}


SECRET = new_key("app", created=NOW)[0]
TWICE = stored()


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"[]",
        b"{",
        b"\xff",
        json.dumps({"format": "shashin-api-keys/2", "keys": []}).encode(),
        json.dumps({"keys": [stored(sha256=SECRET)]}).encode(),
        json.dumps({"keys": [stored(key=SECRET)]}).encode(),
        json.dumps({"keys": [stored(id=SECRET)]}).encode(),
        json.dumps({"keys": [stored(created="2026-01-01T00:00:00")]}).encode(),
        json.dumps({"keys": [TWICE, TWICE]}).encode(),
        json.dumps({"keys": [stored() for _ in range(257)]}).encode(),
    ],
)
def test_a_file_of_anything_else_is_refused_without_repeating_it(document: bytes) -> None:
    with pytest.raises(UserError, match="not a file of API keys") as refused:
        key_document(document)
    assert SECRET not in refused.value.message
    assert SECRET.rpartition("_")[2] not in refused.value.message


@given(
    st.lists(
        st.builds(
            lambda name, days, rate: new_key(
                name,
                created=NOW,
                expires=None if days is None else NOW + timedelta(days=days),
                per_second=rate,
            )[1],
            st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", fullmatch=True),
            st.none() | st.integers(1, 1000),
            st.none() | st.floats(0.01, 1e5),
        ),
        max_size=5,
        unique_by=lambda key: key.id,
    )
)
def test_a_document_is_read_as_it_was_written(keys: list[StoredKey]) -> None:
    document = KeyDocument(keys=tuple(keys))
    assert key_document(document.model_dump_json(exclude_none=True).encode()) == document
