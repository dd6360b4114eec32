"""The split of a code adds up, is the best of its orders, and sees what it says it sees."""

import math

import pytest
import torch

from momos.complexity import kt_code, place_code, split_code


def made(kind: str, length: int = 20_000) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    if kind == "random":
        return torch.randint(4, (length,), generator=generator)
    if kind == "skewed":
        return (torch.rand(length, generator=generator) < 0.1).long()
    if kind == "periodic":
        return torch.arange(length) % 4
    # the next symbol is the sum of the two before, with noise
    symbols = [0, 1]
    noise = torch.rand(length, generator=generator) < 0.1
    drawn = torch.randint(4, (length,), generator=generator)
    for i in range(2, length):
        symbols.append(
            int(drawn[i]) if noise[i] else (symbols[i - 1] + symbols[i - 2] + 1) % 4
        )
    return torch.tensor(symbols)


KINDS = {"random": 0, "skewed": 0, "periodic": 1, "second order": 2}


@pytest.mark.parametrize("kind", KINDS)
def test_a_split_is_the_shortest_code_and_adds_up(kind: str) -> None:
    symbols = made(kind)
    split = split_code(symbols, alphabet=4)
    codes = [kt_code(symbols, alphabet=4, order=order) for order in range(3)]
    assert split.order == KINDS[kind] == codes.index(min(codes))
    assert split.total == pytest.approx(min(codes) + math.log2(3))
    assert split.model >= 0
    assert split.residual >= 0


def test_structure_is_in_the_model_and_chance_in_the_residual() -> None:
    random, second = (
        split_code(made(kind), alphabet=4) for kind in ("random", "second order")
    )
    assert random.residual > 0.999 * 2 * 20_000
    assert second.model > 5 * random.model
    assert second.residual < random.residual / 2
    periodic = split_code(made("periodic"), alphabet=4)
    assert periodic.residual == pytest.approx(2)  # the first symbol


def test_a_shuffle_takes_the_structure_away() -> None:
    symbols = made("second order")
    order = torch.randperm(len(symbols), generator=torch.Generator().manual_seed(1))
    shuffled = split_code(symbols[order], alphabet=4)
    assert shuffled.order == 0
    assert shuffled.model < split_code(symbols, alphabet=4).model


@pytest.mark.parametrize("length", [0, 1, 2, 3])
def test_short_sequences_have_a_split(length: int) -> None:
    split = split_code(torch.zeros(length, dtype=torch.int64), alphabet=4)
    assert split.order == 0
    assert split.residual == 0


def test_symbols_beyond_the_alphabet_are_refused() -> None:
    with pytest.raises(ValueError, match="symbols must be 0 to 3, got 4"):
        split_code(torch.tensor([4]), alphabet=4)


@pytest.mark.parametrize(
    ("size", "used"), [(1, 0), (1, 1), (1000, 0), (1000, 10), (1024, 1024)]
)
def test_places_are_worth_log2_n_each(size: int, used: int) -> None:
    weight = torch.zeros(size)
    weight[:used] = -1.0
    number = {0: 1, 1: 4, 10: 8, 1024: 17}[used]  # Elias's delta code of one more
    assert place_code(weight) == used * math.ceil(math.log2(size)) + number
