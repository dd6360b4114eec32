"""Labels cover no other label, stay in their frame, and move no farther than they must."""

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from momos.study.report.labels import Box, least_height, placed

FRAME = Box(0, 0, 600, 500)
corners = st.tuples(st.integers(-50, 650), st.integers(-50, 550))
sizes = st.tuples(st.integers(1, 300), st.integers(1, 40))


@st.composite
def boxes(draw, most: int) -> list[Box]:
    """As many as FRAME is sure to hold; many at the same place."""
    few = draw(st.lists(corners, min_size=1, max_size=3))
    places = draw(st.lists(st.sampled_from(few) | corners, max_size=most))
    return [
        Box(x, y, x + wide, y + high)
        for (x, y), (wide, high) in zip(
            places, draw(st.lists(sizes, min_size=most, max_size=most)), strict=False
        )
    ]


def inside(box: Box) -> bool:
    return (
        box.left >= FRAME.left
        and box.right <= FRAME.right
        and box.bottom >= FRAME.bottom
        and box.top <= FRAME.top
    )


@given(wanted=boxes(most=6), taken=boxes(most=12))
def test_no_label_covers_another_or_leaves_the_frame(wanted, taken) -> None:
    assert least_height(wanted) <= FRAME.height
    found = placed(wanted, FRAME, taken)
    assert len(found) == len(wanted)
    assert not [pair for pair in combinations(found, 2) if pair[0].overlaps(pair[1])]
    for before, after in zip(wanted, found, strict=True):
        assert inside(after)
        assert after.right - after.left == pytest.approx(before.right - before.left)
        assert after.height == pytest.approx(before.height)


@given(wanted=boxes(most=6))
def test_labels_that_are_in_nobodys_way_stay(wanted) -> None:
    once = placed(wanted, FRAME)
    assert placed(once, FRAME) == once


@given(count=st.integers(1, 6), x=st.integers(0, 500), y=st.integers(0, 460))
def test_equal_points_have_their_labels_above_one_another(count, x, y) -> None:
    found = placed([Box(x, y, x + 100, y + 40)] * count, FRAME)
    assert sorted(box.bottom for box in found) == pytest.approx(
        [min(box.bottom for box in found) + 40 * number for number in range(count)]
    )


def test_points_are_kept_free_where_there_is_room() -> None:
    label, point = Box(100, 100, 200, 140), Box(120, 95, 130, 115)
    (above,) = placed([label], FRAME, [point])
    assert above == label.at(115)
    assert placed([label], Box(0, 90, 600, 140), [point]) == [label]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_label_must_have_a_place(value) -> None:
    with pytest.raises(ValueError, match=r"boxes must be finite, got \(1, nan|\(1, inf"):
        placed([Box(1, value, 2, 3)], FRAME)


def test_a_frame_that_is_too_low_says_how_high_it_must_be() -> None:
    label = Box(0, 0, 100, 40)
    words = "a frame for 3 boxes must be at least 200 high, got 100"
    with pytest.raises(ValueError, match=words):
        placed([label] * 3, Box(0, 0, 600, 100))
