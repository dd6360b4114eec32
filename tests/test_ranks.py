"""Alone, a process has all the rows and its sums are everybody's."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from momos.ranks import ALONE, Ranks


@given(total=st.integers(0, 10**12))
def test_alone_a_process_has_every_row(total):
    assert ALONE.edges(total) == (0, total)


def test_alone_a_sum_is_the_value():
    values = torch.tensor([1.0, 2.0, -3.0], dtype=torch.float64)
    assert torch.equal(
        ALONE.sum(values), torch.tensor([1.0, 2.0, -3.0], dtype=torch.float64)
    )


@pytest.mark.parametrize(("rank", "size"), [(0, 2), (1, 2), (1, 1), (0, 0), (-1, 1)])
def test_more_than_one_process_is_refused_not_ignored(rank, size):
    with pytest.raises(ValueError, match=rf"one process.*got {rank} of {size}"):
        Ranks(rank, size)
