"""What a router says of the entries of a filter that no endpoint knows."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.router.notes import notes_of
from shashin.v1 import index_pb2

VALUES = st.lists(st.sampled_from(["a", "b", "c"]), max_size=4)
UNKNOWN = st.builds(
    lambda categories, prefixes, brands: index_pb2.UnknownChoices(
        categories=categories, category_prefixes=prefixes, brands=brands
    ),
    VALUES,
    VALUES,
    VALUES,
)


@given(st.lists(UNKNOWN, max_size=4))
def test_there_is_a_note_of_what_every_endpoint_lacks_and_of_nothing_else(
    unknown: list[index_pb2.UnknownChoices],
) -> None:
    fields = {
        "category": [one.categories for one in unknown],
        "category under": [one.category_prefixes for one in unknown],
        "brand": [one.brands for one in unknown],
    }
    expected = {
        f'no listing has {field} "{entry}": check its spelling'
        for field, of_endpoints in fields.items()
        for entry in "abc"
        if unknown and all(entry in of_endpoint for of_endpoint in of_endpoints)
    }
    notes = notes_of(unknown, everything_searched=True)
    assert len(notes) == len(set(notes))
    assert set(notes) == expected
    assert notes_of(unknown, everything_searched=False) == []


def test_only_some_of_many_unknown_entries_are_named() -> None:
    unknown = index_pb2.UnknownChoices(brands=[f"brand-{number}" for number in range(37)])
    notes = notes_of([unknown, unknown], everything_searched=True)
    assert notes[9:] == [
        'no listing has brand "brand-9": check its spelling',
        "no listing has any of 27 other entries for brand in the filter",
    ]


def test_an_entry_is_quoted_so_that_it_cannot_pass_for_the_note() -> None:
    unknown = index_pb2.UnknownChoices(categories=['a": all is\nwell, "円'])
    (note,) = notes_of([unknown], everything_searched=True)
    assert note == 'no listing has category "a\\": all is\\nwell, \\"円": check its spelling'
