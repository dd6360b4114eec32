"""Many flat tensors are read, searched and rewritten as if they were one array of padded blocks."""

import multiprocessing
import threading
from importlib import import_module
from unittest.mock import patch

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Generator, Tensor
from torch.nn.functional import pad

from momos.vq import cpu, flats
from momos.vq.nearest import nearest_reference

SETS = ["portable", *import_module("momos.vq._portable").instruction_sets()]


def blocks_of(tensors: list[Tensor], size: int) -> Tensor:
    """The definition: each padded to whole blocks, one after another."""
    return torch.cat([pad(flat, (0, -len(flat) % size)).view(-1, size) for flat in tensors])


@st.composite
def given_tensors(draw) -> tuple[list[Tensor], Tensor]:
    """Tensors of one or two dtypes, some empty, and motifs."""
    g = Generator().manual_seed(draw(st.integers(0, 2**32)))
    lengths = draw(st.lists(st.integers(0, 40), min_size=1, max_size=5))
    size, wide = draw(st.integers(1, 5)), draw(st.booleans())
    dtype = torch.float64 if wide else torch.float32
    tensors = [torch.randn(length, generator=g).to(dtype) for length in lengths]
    if draw(st.booleans()):
        tensors.append(torch.randn(7, generator=g).half())
    return tensors, torch.randn(draw(st.integers(1, 20)), size, generator=g).to(dtype)


@given(given_tensors())
def test_blocks_are_found_and_rewritten_as_the_definition_says(inputs) -> None:
    tensors, motifs = inputs
    size, dtype = motifs.shape[1], motifs.dtype
    blocks = blocks_of([flat.to(dtype) for flat in tensors], size)
    for name in SETS:
        with patch.object(
            cpu, "native", lambda name=name: import_module(f"momos.vq._{name}")
        ):
            found = flats.assign(tensors, motifs)
            indices = found.indices
            assert torch.equal(indices.long(), nearest_reference(blocks, motifs))
            mine = [flat.clone() for flat in tensors]
            distortion, moved = flats.rewrite_(mine, motifs, found)
        start, errors, changes = 0, 0.0, 0
        for flat, new in zip(tensors, mine, strict=True):
            own = indices[start : start - (-len(flat) // size)]
            start += len(own)
            expected = motifs[own.long()].view(-1)[: len(flat)].to(flat.dtype)
            assert torch.equal(new, expected)
            errors += float((flat.double() - new.double()).square().sum())
            changes += int((flat != new).sum())
        assert distortion == pytest.approx(errors, rel=1e-12)
        assert moved == changes
    rows = (
        torch.randint(max(1, len(blocks)), (9,)) if len(blocks) else torch.zeros(0).long()
    )
    taken = flats.take(tensors, rows, size)
    if taken is not None:  # of one dtype
        assert torch.equal(taken, blocks[rows])


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_change_no_bit(threads) -> None:
    g = Generator().manual_seed(0)
    tensors = [torch.randn(n, generator=g) for n in (100_001, 3, 70_000)]
    motifs = torch.randn(300, 2, generator=g)
    found = []
    for count in (1, threads):
        mine = [flat.clone() for flat in tensors]
        with patch.object(torch, "get_num_threads", lambda count=count: count):
            one = flats.assign(mine, motifs)
            found.append((one.indices.tolist(), flats.rewrite_(mine, motifs, one)))
    assert found[0] == found[1]


def test_wrong_indices_and_rows_are_refused() -> None:
    tensors, motifs = [torch.zeros(5)], torch.zeros(3, 2)
    for wrong in (-1, 3):
        with pytest.raises(IndexError, match="indices must name motifs"):
            flats.rewrite_(tensors, motifs, flats.Found(torch.tensor([0, 1, wrong]).int()))
        with pytest.raises(IndexError, match="rows must be those of blocks"):
            flats.take(tensors, torch.tensor([wrong]), 2)
    assert cpu.narrow(torch.tensor([0, 3]).int(), 3, torch.uint8) is None
    with pytest.raises(ValueError, match="blocks must be finite, got 1 values"):
        flats.assign([torch.tensor([1.0, torch.nan, 2.0])], motifs)


@pytest.mark.parametrize("count", [1, 7, 8, 70_000])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf, 1e38])
def test_a_value_that_is_not_finite_is_found_anywhere(count, value) -> None:
    for place in (0, count // 2, count - 1):
        for dtype in (torch.float32, torch.float64):
            values = torch.full((count,), 1e38, dtype=dtype)
            values[place] = value
            assert cpu.finite(values) == (value == 1e38)


def search(number: int) -> Tensor:
    g = Generator().manual_seed(number)
    with patch.object(torch, "get_num_threads", lambda: 3):
        return flats.assign(
            [torch.randn(50_000, generator=g)], torch.randn(64, 2, generator=g)
        ).indices


def in_a_child(number: int, results: multiprocessing.Queue) -> None:
    results.put(search(number).tolist())


def test_threads_are_shared_by_callers_and_made_anew_after_a_fork() -> None:
    """A process that is forked has none of its parent's threads, but its locks as they were."""
    expected = [search(number) for number in range(4)]
    found: list[Tensor] = [torch.empty(0)] * 4

    def call(number: int) -> None:
        found[number] = search(number)

    callers = [threading.Thread(target=call, args=(number,)) for number in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert all(torch.equal(one, other) for one, other in zip(expected, found, strict=True))
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    child = context.Process(target=in_a_child, args=(2, results))
    child.start()
    assert results.get(timeout=60) == expected[2].tolist()
    child.join()
