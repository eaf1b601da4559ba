"""When an object has to be applied again."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from services.controller.drift import APPLIED_ANNOTATION, differs, stamped

SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=5)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=10,
)
OBJECTS = st.fixed_dictionaries(
    {"metadata": st.just({"name": "one"}), "spec": st.dictionaries(st.text(max_size=3), VALUES)}
)


@given(OBJECTS)
def test_what_was_applied_is_not_applied_again(wanted: dict[str, Any]) -> None:
    found = copy.deepcopy(stamped(wanted))
    found["metadata"] |= {"resourceVersion": "7", "managedFields": []}
    found["status"] = {"ready": True}
    found["spec"]["a field that the server has added"] = 1
    assert not differs(stamped(wanted), found)


@given(OBJECTS, OBJECTS)
def test_other_content_is_applied(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert differs(stamped(one), stamped(other)) == (stamped(one) != stamped(other))


def test_a_missing_object_is_applied() -> None:
    assert differs(stamped({"metadata": {"name": "one"}}), None)


def test_a_field_that_somebody_changed_is_applied_again() -> None:
    wanted = stamped({"metadata": {"name": "one"}, "spec": {"containers": [{"image": "a"}]}})
    for path, value in (("image", "b"), ("image", None)):
        found = copy.deepcopy(wanted)
        found["spec"]["containers"][0][path] = value
        assert differs(wanted, found)
    found = copy.deepcopy(wanted)
    found["spec"]["containers"].append({"image": "c"})
    assert differs(wanted, found)


def test_a_field_that_is_no_longer_wanted_is_noticed() -> None:
    before = stamped({"metadata": {"name": "one"}, "spec": {"replicas": 2, "paused": True}})
    assert differs(stamped({"metadata": {"name": "one"}, "spec": {"replicas": 2}}), before)


def test_the_annotation_depends_on_nothing_but_the_content() -> None:
    one = stamped({"metadata": {"name": "one"}, "spec": {"a": 1, "b": 2}})
    other = stamped({"spec": {"b": 2, "a": 1}, "metadata": {"name": "one"}})
    assert one == other
    assert one["metadata"]["annotations"].keys() == {APPLIED_ANNOTATION}
