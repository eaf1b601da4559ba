"""Settings come from the environment, and all errors are reported at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError, field_validator

from shashin.errors import SettingsError
from shashin.runtime.settings import ServiceSettings, load_settings


class ShopSettings(ServiceSettings):
    """Settings of several types."""

    folder: Path = Field(description="A folder.")
    owner: str = Field(description="Whose it is.")
    shelves: int = Field(3, ge=1, le=9, description="How many.")
    seats: str = Field("all", description="Which.")

    @field_validator("seats")
    @classmethod
    def _seats_are_known(cls, value: str) -> str:
        if value not in {"all", "none"}:
            raise ValueError("expected all or none")
        return value


def refusal(patch: pytest.MonkeyPatch, **variables: str) -> str:
    for name, value in variables.items():
        patch.setenv(f"SHASHIN_{name}", value)
    with pytest.raises(SettingsError) as refused:
        load_settings(ShopSettings)
    return refused.value.message


@pytest.fixture(autouse=True)
def only_what_a_test_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in {*ShopSettings.model_fields, *ServiceSettings.model_fields}:
        monkeypatch.delenv(f"SHASHIN_{name.upper()}", raising=False)


def test_settings_have_their_default_or_the_typed_value(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in {"FOLDER": "/srv/a b", "OWNER": "", "HTTP_PORT": "9701"}.items():
        monkeypatch.setenv(f"SHASHIN_{name}", value)
    found = load_settings(ShopSettings)
    assert (found.folder, found.owner, found.shelves) == (Path("/srv/a b"), "", 3)
    assert (found.http_port, found.log_format) == (9701, "json")


def test_unrelated_variables_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    # The processes of a state folder share one environment, with the settings of all of them.
    for name in ("FOLDER", "OWNER", "TIER"):
        monkeypatch.setenv(f"SHASHIN_{name}", "x")
    monkeypatch.setenv("SHELVES", "no number")
    assert load_settings(ShopSettings).shelves == 3


def test_a_missing_variable_is_named_without_showing_other_values(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    says = refusal(monkeypatch, OWNER="a secret")
    assert says == "invalid settings: SHASHIN_FOLDER is not set, and has no default"


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("SHELVES", "many", "valid integer"),
        ("SHELVES", "", "valid integer"),
        ("SHELVES", "0", "greater than or equal to 1"),
        ("SHELVES", "10", "less than or equal to 9"),
        ("SEATS", "some", "expected all or none"),
        ("HTTP_PORT", "65536", "less than or equal to 65535"),
        ("HTTP_PORT", "-1", "greater than or equal to 0"),
        ("LOG_LEVEL", "loud", "'debug', 'info', 'warning' or 'error'"),
        ("LOG_FORMAT", "xml", "'json' or 'console'"),
        ("STALL_SECONDS", "0", "greater than 0"),
        ("DRAIN_SECONDS", "-1", "greater than or equal to 0"),
    ],
)
def test_an_invalid_variable_is_named_with_its_value_and_what_was_expected(
    name: str, value: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    says = refusal(monkeypatch, FOLDER="/srv", OWNER="me", **{name: value})
    assert says.startswith(f"invalid settings: SHASHIN_{name}={value!r}: ")
    assert expected in says
    assert ";" not in says, "nothing else is wrong"


@given(st.sets(st.sampled_from(["FOLDER", "OWNER", "SHELVES", "SEATS", "HTTP_PORT"]), min_size=1))
def test_all_invalid_settings_are_named_in_one_message(wrong: set[str]) -> None:
    good = {"FOLDER": "/srv", "OWNER": "me", "SHELVES": "5", "SEATS": "none", "HTTP_PORT": "80"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in good.items():
            if name not in wrong:
                patch.setenv(f"SHASHIN_{name}", value)
            elif name not in {"FOLDER", "OWNER"}:  # those are missing
                patch.setenv(f"SHASHIN_{name}", "wrong")
        says = refusal(patch)
    assert {name for name in good if f"SHASHIN_{name}" in says} == wrong


def test_settings_do_not_change_once_they_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FOLDER", "OWNER"):
        monkeypatch.setenv(f"SHASHIN_{name}", "x")
    found = load_settings(ShopSettings)
    with pytest.raises(ValidationError, match="frozen"):
        found.owner = "another"  # type: ignore[misc]
