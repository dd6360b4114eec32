"""A measure means something only against its shuffles; these have no arrangement, and say so."""

import math
from collections.abc import Callable, Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from momos.complexity import (
    Control,
    byte_planes,
    compressed_bits,
    factors,
    float_code,
    kt_code,
    packed,
    raw_bytes,
    shuffled,
    signs,
    symmetry_slack,
    uniform_codes,
)

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
positive = st.floats(1e-6, 1e9)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def against_shuffles(
    measure: Callable[[Sequence[Tensor]], float],
    tensors: Sequence[Tensor],
    *,
    repeats: int = 10,
    generator: torch.Generator,
) -> Control:
    """`measure` of the tensors, and of shuffles within each tensor, each from its seed."""

    def drawn() -> list[Tensor]:
        seeds = torch.randint(2**63 - 1, (len(tensors),), generator=generator).tolist()
        pairs = zip(tensors, seeds, strict=True)
        return [shuffled(tensor, seeded(seed)) for tensor, seed in pairs]

    value = measure(tensors)
    return Control.of(value, [measure(drawn()) for _ in range(repeats)])


def markov(num_signs: int, same: float) -> Tensor:
    """Weights whose signs agree with the one before with probability `same`."""
    changes = torch.rand(num_signs, generator=seeded()) >= same
    magnitudes = torch.rand(num_signs, generator=seeded(1)) + 0.1
    return torch.where(changes.cumsum(0) % 2 == 1, magnitudes, -magnitudes)


def kt_signs(order: int):
    def measure(tensors: Sequence[Tensor]) -> float:
        return sum(kt_code(signs(tensor), alphabet=2, order=order) for tensor in tensors)

    return measure


# Shuffles


@given(st.integers(0, 200), st.sampled_from(DTYPES), st.integers(0, 2**32))
def test_a_shuffle_has_the_same_values_and_shape(num_weights, dtype, seed):
    weight = torch.randn(num_weights, 3, generator=seeded()).to(dtype)
    before = weight.clone()
    other = shuffled(weight, seeded(seed))
    assert other.dtype == dtype
    assert other.shape == weight.shape
    assert torch.equal(other.flatten().sort().values, weight.flatten().sort().values)
    assert torch.equal(weight, before)
    assert torch.equal(other, shuffled(weight, seeded(seed)))
    assert num_weights < 10 or not torch.equal(other, shuffled(weight, seeded(seed + 1)))


def test_every_order_is_as_likely_as_any():
    generator = seeded()
    weight = torch.arange(4)
    found = torch.zeros(4, 4)
    for _ in range(4_000):
        found[torch.arange(4), shuffled(weight, generator)] += 1
    assert (found - 1_000).abs().max() < 5 * math.sqrt(4_000 * 3 / 16)


def test_a_shuffle_follows_the_rows_of_a_weight_of_any_layout():
    weight = torch.randn(6, 4, generator=seeded())
    assert torch.equal(
        shuffled(weight.T.contiguous().T, seeded(1)), shuffled(weight, seeded(1))
    )
    assert not shuffled(torch.nn.Parameter(weight), seeded(1)).requires_grad


# Against shuffles


def test_weights_without_arrangement_measure_as_their_shuffles_do():
    weights = [
        torch.randn(300, 200, generator=seeded()),
        torch.rand(40_000, generator=seeded(1)),
    ]
    measures = [
        lambda tensors: sum(map(float_code, tensors)),
        kt_signs(4),
        lambda tensors: sum(
            kt_code(uniform_codes(tensor, bits=4), alphabet=16, order=1)
            for tensor in tensors
        ),
        lambda tensors: sum(
            compressed_bits(packed(signs(tensor)), "gzip") for tensor in tensors
        ),
        lambda tensors: sum(
            compressed_bits(raw_bytes(byte_planes(tensor)), "zstd", level=3)
            for tensor in tensors
        ),
    ]
    for measure in measures:
        control = against_shuffles(measure, weights, repeats=3, generator=seeded(2))
        assert 100 * control.value / control.mean == pytest.approx(100, abs=0.5)


def test_kt_sees_a_chain_of_signs_and_says_how_much():
    # complexity.md §8.2: z -25.9 and -565 there; a deviation of ten is known to a quarter.
    for same, low, high in ((0.51, -60, -10), (0.55, -1_500, -250)):
        weight = [markov(272_474, same)]
        control = against_shuffles(kt_signs(4), weight, generator=seeded(3))
        assert low < control.z < high
        saved = 1 + same * math.log2(same) + (1 - same) * math.log2(1 - same)
        assert control.structure == pytest.approx(
            272_474 * saved, rel=0.5 if same < 0.52 else 0.05
        )


def test_gzip_of_one_byte_per_sign_misses_most_of_the_chain():
    weight = markov(100_000, same=0.55)

    def gzip_bytes(tensors):
        return compressed_bits(raw_bytes(signs(tensors[0])), "gzip")

    gzip = against_shuffles(gzip_bytes, [weight], repeats=2, generator=seeded())
    kt = against_shuffles(kt_signs(4), [weight], repeats=2, generator=seeded())
    assert gzip.structure < 0.5 * kt.structure
    assert gzip.value > 1.2 * kt.value


def test_a_measure_blind_to_order_has_no_deviation_and_z_zero():
    tensors = [torch.randn(1_000, generator=seeded()), torch.randn(37, generator=seeded(1))]
    control = against_shuffles(kt_signs(0), tensors, repeats=7, generator=seeded())
    value = kt_signs(0)(tensors)
    assert control == Control(mean=value, deviation=0, z=0, repeats=7, value=value)
    assert control.structure == 0


@pytest.mark.parametrize(("first", "z"), [(2.0, math.inf), (0.5, -math.inf), (1.0, 0)])
def test_shuffles_that_all_agree_leave_no_doubt(first, z):
    values = iter([first, 1.0, 1.0, 1.0])
    control = against_shuffles(
        lambda _: next(values), [torch.ones(3)], repeats=3, generator=seeded()
    )
    assert control == Control(mean=1, deviation=0, z=z, repeats=3, value=first)


@given(st.lists(st.integers(-1_000, 1_000), min_size=3, max_size=12))
def test_mean_and_deviation_are_those_of_the_shuffles(numbers):
    values = iter(map(float, numbers))
    control = against_shuffles(
        lambda _: next(values), [], repeats=len(numbers) - 1, generator=seeded()
    )
    assert control == Control.of(numbers[0], numbers[1:])
    shuffles = torch.tensor(numbers[1:], dtype=torch.float64)
    assert control.value == numbers[0]
    assert control.mean == pytest.approx(float(shuffles.mean()), abs=1e-9)
    assert control.deviation == pytest.approx(float(shuffles.std()), abs=1e-9)
    if control.deviation:
        assert control.z == pytest.approx((numbers[0] - control.mean) / control.deviation)


def test_one_shuffle_is_no_control():
    with pytest.raises(ValueError, match="shuffles must be at least 2, got 1"):
        Control.of(3.0, [2.0])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, 2])
def test_a_measure_that_gives_no_number_is_refused(bad, place):
    with pytest.raises(ValueError, match=f"measure must give a finite number, got {bad}"):
        Control.of(*((bad, [1.0, 1.0]) if place == 0 else (1.0, [1.0, bad])))


# Factors


@given(positive, positive, positive)
def test_the_factors_multiply_to_the_ratio(value, shuffled_mean, init_value):
    both = factors(value, shuffled_mean=shuffled_mean, init_value=init_value)
    assert both.ratio == value / init_value
    assert both.arrangement * both.value_distribution == pytest.approx(
        both.ratio, rel=1e-12
    )
    assert both.arrangement == value / shuffled_mean


def test_what_only_values_change_is_no_arrangement():
    init = torch.randn(50_000, generator=seeded())
    trained = 4 * init**3  # other values, still in no order
    control = against_shuffles(
        lambda tensors: compressed_bits(
            raw_bytes(byte_planes(tensors[0])), "zstd", level=3
        ),
        [trained],
        repeats=3,
        generator=seeded(),
    )
    start = compressed_bits(raw_bytes(byte_planes(init)), "zstd", level=3)
    both = factors(control.value, shuffled_mean=control.mean, init_value=start)
    assert both.arrangement == pytest.approx(1, abs=0.005)
    assert both.value_distribution > 1.03


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ((-1, 1, 1), "value must be finite and at least 0, got -1"),
        ((math.nan, 1, 1), "value must be finite and at least 0, got nan"),
        ((1, 0, 1), "shuffled_mean must be finite and above 0, got 0"),
        ((1, 1, 0.0), "init_value must be finite and above 0, got 0"),
        ((1, 1, math.inf), "init_value must be finite and above 0, got inf"),
    ],
)
def test_factors_of_no_lengths_are_refused(numbers, message):
    value, shuffled_mean, init_value = numbers
    with pytest.raises(ValueError, match=message):
        factors(value, shuffled_mean=shuffled_mean, init_value=init_value)


# Symmetry


@given(st.lists(st.integers(1, 300), max_size=5))
def test_slack_counts_the_orders_of_hidden_units(widths):
    orders = math.prod(math.factorial(width) for width in widths)
    assert symmetry_slack(widths) == pytest.approx(math.log2(orders), rel=1e-12, abs=1e-12)


def test_slack_of_512_units():
    assert symmetry_slack([512]) == pytest.approx(3_875, abs=1)


def test_a_layer_without_units_is_refused():
    with pytest.raises(ValueError, match="hidden widths must be at least 1, got 0"):
        symmetry_slack([3, 0])
