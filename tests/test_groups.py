"""Every parameter belongs to exactly one group."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from momos import Layout
from momos.groups import grouped

PATTERNS = st.lists(st.sampled_from(["a*", "*a", "b", "?c", "*", "none"]), max_size=3)


@given(names=st.sets(st.text("abc", min_size=1, max_size=3)), groups=st.lists(PATTERNS))
def test_groups_are_a_partition(names, groups):
    places = Layout.cut(2, ((name, (3,), torch.float32) for name in names)).placements
    found = list(grouped(places, tuple(map(tuple, groups))))
    assert all(found)
    assert sorted(p.name for members in found for p in members) == sorted(names)
    for members in found:
        assert members == sorted(members, key=lambda place: place.start)


def test_the_first_group_that_matches_counts_and_the_rest_comes_last():
    names = ("head.w", "body.w", "body.b", "tail.w")
    places = Layout.cut(2, ((name, (3,), torch.float32) for name in names)).placements
    found = list(grouped(places, (("*.b",), ("absent",), ("body*", "tail*"))))
    assert [[place.name for place in members] for members in found] == [
        ["body.b"],
        ["body.w", "tail.w"],
        ["head.w"],
    ]
