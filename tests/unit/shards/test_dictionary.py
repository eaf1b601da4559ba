"""Dictionaries of columns, while they grow, against a list of strings."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shashin.shards.format.dictionary import Choices, Dictionary
from tests.support.filter_rule import is_under

PATHS = st.text("ab/-0.ü", max_size=5)
CHOICES = st.builds(
    Choices,
    st.lists(PATHS, max_size=4).map(tuple),
    st.lists(PATHS, max_size=4).map(tuple),
)


def assert_chosen(dictionary: Dictionary, choices: Choices, values: list[str]) -> None:
    chosen = dictionary.chosen(choices)
    expected = [
        value in choices.strings or any(is_under(value, prefix) for prefix in choices.prefixes)
        for value in values
    ]
    assert chosen.flags.tolist() == expected
    assert chosen.count == sum(expected)
    assert chosen.unknown == Choices(
        tuple(string for string in choices.strings if string not in values),
        tuple(
            prefix
            for prefix in choices.prefixes
            if not any(is_under(value, prefix) for value in values)
        ),
    )


@given(st.lists(PATHS, max_size=20), CHOICES, CHOICES)
def test_what_is_chosen_is_right_after_every_string_that_is_added(
    strings: list[str], first: Choices, second: Choices
) -> None:
    dictionary = Dictionary()
    values: list[str] = []
    for string in strings:
        if string not in values:
            values.append(string)
        assert dictionary.add(string) == values.index(string)
        assert list(dictionary.values) == values
        for choices in (first, second, first):
            assert_chosen(dictionary, choices, values)


@given(st.lists(PATHS, max_size=20, unique=True), CHOICES)
def test_a_dictionary_of_a_sealed_shard_is_chosen_from_alike(
    values: list[str], choices: Choices
) -> None:
    assert_chosen(Dictionary(values), choices, values)


@given(st.lists(PATHS, max_size=20, unique=True), CHOICES)
def test_choices_are_resolved_once_until_a_string_is_added(
    values: list[str], choices: Choices
) -> None:
    dictionary = Dictionary(values)
    before = dictionary.chosen(choices)
    assert dictionary.chosen(choices) is before
    dictionary.add("another string")
    assert dictionary.chosen(choices) is not before


class ReadDuring(str):
    """A string that lets others read whenever it is looked up or put into a dictionary."""

    __slots__ = ("read",)

    read: Callable[[], object]

    __eq__ = str.__eq__

    def __hash__(self) -> int:
        self.read()
        return super().__hash__()


@pytest.mark.parametrize("choices", [Choices(("new",)), Choices((), ("new",))])
def test_what_is_read_while_a_string_is_added_is_not_remembered_once_it_is_there(
    choices: Choices,
) -> None:
    dictionary = Dictionary()
    dictionary.add("old")
    added = ReadDuring("new")
    added.read = lambda: dictionary.chosen(choices)
    dictionary.add(added)
    assert dictionary.chosen(choices).flags.tolist() == [False, True]


@given(CHOICES, CHOICES)
def test_common_choices_are_those_in_both_in_order(first: Choices, second: Choices) -> None:
    assert first.common(second) == Choices(
        tuple(string for string in first.strings if string in second.strings),
        tuple(prefix for prefix in first.prefixes if prefix in second.prefixes),
    )
