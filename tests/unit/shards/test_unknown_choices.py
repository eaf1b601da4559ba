"""Which choices of a filter several shards do not have."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from shashin.shards.format.row import RowAttributes
from shashin.shards.row_filter import RowFilter
from shashin.shards.unknown_choices import unknown_choices
from tests.support.filter_rule import is_under
from tests.support.made_shards import new_row, open_shard

PATHS = ["a", "a/b", "a/bc", "b"]
CHOICES = st.lists(st.sampled_from([*PATHS, "c"]), max_size=3).map(tuple)
FILTERS = st.builds(RowFilter, categories=CHOICES, category_prefixes=CHOICES, brands=CHOICES)
SHARDS = st.lists(
    st.lists(st.tuples(st.sampled_from(PATHS), st.sampled_from(PATHS)), max_size=3), max_size=3
)


@settings(deadline=None, max_examples=60)
@given(SHARDS, FILTERS)
def test_unknown_is_what_no_row_of_any_shard_has_in_the_order_of_the_filter(
    of_shards: list[list[tuple[str, str]]], row_filter: RowFilter
) -> None:
    shards = [
        open_shard(
            [
                new_row(f"listing-{number}", attributes=RowAttributes(*attributes))
                for number, attributes in enumerate(rows)
            ]
        )
        for rows in of_shards
    ]
    categories = {category for rows in of_shards for category, _ in rows}
    brands = {brand for rows in of_shards for _, brand in rows}
    unknown = unknown_choices(row_filter, shards)
    assert list(unknown.category.strings) == [
        one for one in row_filter.categories if one not in categories
    ]
    assert list(unknown.category.prefixes) == [
        prefix
        for prefix in row_filter.category_prefixes
        if not any(is_under(category, prefix) for category in categories)
    ]
    assert list(unknown.brand.strings) == [one for one in row_filter.brands if one not in brands]
