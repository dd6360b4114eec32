"""Motifs on a lattice: whole numbers of steps, every weight near its motif."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import momos
from momos.checkpoints.rounding import HALF_STEP, states_of
from momos.config import LatticeConfig


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def weights(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(shape, generator=seeded(seed))


def compressed(
    folder: Path, state: dict[str, Tensor], **settings
) -> tuple[momos.Mosaic, dict[str, Tensor], momos.SaveReport]:
    """The mosaic that the file holds, its tensors, and the report."""
    save_file(state, folder / "x.safetensors")
    path = folder / "x.momos"
    report = momos.compress(folder / "x.safetensors", path, LatticeConfig(**settings))
    loaded = momos.load(path)
    assert loaded.mosaic is not None
    return loaded.mosaic, loaded.state_dict(), report


def heavy_tailed(*shape: int, largest: float = 30.0) -> Tensor:
    far = torch.rand(shape, generator=seeded(1)) < 1e-3
    return torch.where(far, largest * weights(*shape), weights(*shape))


BITS = 20  # that a weight may save by becoming 0


@pytest.mark.parametrize("unit", ["network", "channel"])
@pytest.mark.parametrize(("size", "states"), [(1, 1), (1, 8), (1, 64), (2, 1), (3, 1)])
@pytest.mark.parametrize("rate_weight", [0.0, 0.1, 0.3])
def test_no_weight_is_further_from_its_motif_than_bits_are_worth(
    tmp_path, unit, size, states, rate_weight
):
    state = {"a": heavy_tailed(40, 50), "b": weights(7, 11, scale=0.01)}
    settings = {"step": 0.3, "unit": unit, "block_size": size, "rate_weight": rate_weight}
    settings["states"] = states
    mosaic, found, _ = compressed(tmp_path, state, **settings)
    for place in mosaic.layout.placements:
        steps = mosaic.scale(place)
        assert steps is not None
        error = (state[place.name] - found[place.name]).abs().reshape(len(steps), -1)
        spacing = 1.0 if states == 1 else 2.0  # half steps
        unit_weight = rate_weight * (1.0 if states == 1 else HALF_STEP**-2)
        reach = (spacing**2 + size * unit_weight * BITS) ** 0.5
        assert (error <= reach * (1 + 1e-5) * steps[:, None]).all()


def test_a_trellis_takes_fewer_bits_at_an_equal_error(tmp_path):
    state = {"a": weights(300, 200)}
    found = {
        states: compressed(tmp_path, state, states=states)[2] for states in (1, 8, 64, 256)
    }
    bits = {
        states: 8 * report.num_bytes / 60_000
        + torch.tensor(report.relative_error).log2().item() / 2
        for states, report in found.items()
    }
    assert bits[8] < bits[1] - 0.1
    assert bits[64] < bits[8] - 0.02
    assert bits[256] < bits[64]


def test_weights_of_zero_stay_zero_on_a_trellis(tmp_path):
    tensor = weights(100, 80)
    tensor[torch.rand(100, 80, generator=seeded(2)) < 0.6] = 0
    _, found, _ = compressed(tmp_path, {"a": tensor}, states=64)
    assert not found["a"][tensor == 0].any()
    assert (found["a"] == 0).float().mean() < 0.65


@pytest.mark.parametrize("unit", ["network", "channel"])
@pytest.mark.parametrize("states", [1, 8, 256])
def test_weights_far_below_a_step_are_not_enlarged(tmp_path, unit, states):
    """In a channel with large weights for faint inputs, the small ones are for loud inputs."""
    sizes = torch.logspace(-4, 1, 40)
    state = {"rnn.weight_ih_l0": sizes * weights(50, 40)}
    settings = {"unit": unit, "states": states, "step": 0.14}
    mosaic, found, _ = compressed(tmp_path, state, **settings)
    (place,) = mosaic.layout.placements
    steps = mosaic.scale(place)
    assert steps is not None
    tensor, after = state[place.name], found[place.name]
    tiny = tensor.abs() < 0.24 * steps[:, None]
    assert tiny.sum() > 500
    assert not after[tiny].any()


def test_few_weights_take_more_states_than_many():
    assert states_of(LatticeConfig(), 1_000_000) == 256
    assert states_of(LatticeConfig(), 1_000_001) == 64
    assert states_of(LatticeConfig(), 10_000_000) == 64
    assert states_of(LatticeConfig(), 10_000_001) == 8
    assert states_of(LatticeConfig(block_size=2), 1000) == 1
    assert states_of(LatticeConfig(states=16), 10**9) == 16


def test_without_a_rate_weight_each_weight_is_rounded_to_the_nearest_step(tmp_path):
    state = {"a": weights(30, 20)}
    settings = {"rate_weight": 0, "unit": "network", "states": 1, "balance": False}
    mosaic, found, _ = compressed(tmp_path, state, **settings)
    (step,) = mosaic.scale(mosaic.layout.placements[0])
    assert torch.equal(found["a"], (state["a"] / step).round() * step)


def test_the_motifs_are_the_different_whole_numbers_in_use(tmp_path):
    mosaic, _, _ = compressed(tmp_path, {"a": weights(30, 20)}, step=0.5)
    assert mosaic.motifs.dtype == torch.int8
    assert mosaic.motifs[0].tolist() == [0]
    assert len(mosaic.motifs.unique(dim=0)) == len(mosaic.motifs)
    assert (mosaic.usage()[1:] > 0).all()


@pytest.mark.parametrize(
    ("largest", "dtype"), [(10, torch.int8), (150, torch.float16), (9e6, torch.float32)]
)
def test_tails_are_representable_however_long(tmp_path, largest, dtype):
    tensor = weights(100, 100).clamp(-3, 3)
    tensor[3, 4] = largest
    settings = {"step": 0.1, "unit": "network", "states": 1}
    mosaic, found, _ = compressed(tmp_path, {"a": tensor}, **settings)
    assert mosaic.motifs.dtype == dtype
    assert found["a"][3, 4] == pytest.approx(largest, rel=0.01, abs=1e-6)


def num_steps(mosaic: momos.Mosaic) -> dict[str, int]:
    places = mosaic.layout.placements
    assert mosaic.scales is not None
    return {p.name: len(s) for p, s in zip(places, mosaic.scales, strict=True)}


def test_one_step_serves_the_whole_network(tmp_path):
    state = {"a": weights(8, 8, 3, 3), "b": weights(8, 64, scale=0.01)}
    mosaic, _, _ = compressed(tmp_path, state, unit="network")
    assert mosaic.scales is not None
    assert num_steps(mosaic) == {"a": 1, "b": 1}
    assert mosaic.scales[0] == mosaic.scales[1]


def test_channels_have_steps_in_proportion_to_their_weights(tmp_path):
    state = {"a": weights(8, 64) * 2.0 ** (torch.arange(8) / 2)[:, None]}
    mosaic, _, _ = compressed(tmp_path, state, unit="channel", step=0.25, states=1)
    (steps,) = mosaic.scales or ()
    ratio = steps / (0.25 * state["a"].square().mean(1).sqrt())
    assert ratio.log2().abs().max() <= 1 / 8 + 0.01


def test_without_a_unit_recurrent_networks_and_embeddings_have_steps_by_channel(tmp_path):
    convolutional = {"conv.weight": weights(4, 3, 3, 3), "fc.weight": weights(5, 6)}
    mosaic, _, _ = compressed(tmp_path, convolutional)
    assert set(num_steps(mosaic).values()) == {1}
    mosaic, _, _ = compressed(
        tmp_path, {"embed.weight": weights(9, 4), "fc": weights(5, 6)}
    )
    assert num_steps(mosaic) == {"embed.weight": 9, "fc": 1}
    lstm = torch.nn.LSTM(3, 4).state_dict() | {"fc.weight": weights(5, 6)}
    mosaic, _, _ = compressed(tmp_path, lstm)
    assert num_steps(mosaic) == {"weight_ih_l0": 16, "weight_hh_l0": 16, "fc.weight": 5}


def test_a_channel_of_zeros_and_a_tensor_of_zeros_stay_zero(tmp_path):
    state = {"a": weights(5, 9), "b": torch.zeros(4, 3)}
    state["a"][2] = 0
    for unit in ("network", "channel"):
        _, found, _ = compressed(tmp_path, state, unit=unit)
        assert not found["a"][2].any()
        assert not found["b"].any()


def test_a_rate_weight_shortens_the_file_for_some_error(tmp_path):
    state = {"a": weights(200, 100)}
    reports = [
        compressed(tmp_path, state, step=0.8, rate_weight=weight)[2]
        for weight in (0.0, 0.1, 0.3)
    ]
    sizes = [report.num_bytes for report in reports]
    errors = [report.tensors[0].distortion for report in reports]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == 3
    assert errors == sorted(errors)


def test_at_equal_error_the_rate_weight_makes_a_smaller_file(tmp_path):
    """Shorter steps with a rate weight lose less, in fewer bytes, than longer ones without."""
    state = {"a": weights(300, 200)}
    plain = compressed(tmp_path, state, step=1.0, rate_weight=0.0)[2]
    rated = compressed(tmp_path, state, step=0.95, rate_weight=0.1)[2]
    assert rated.num_bytes < plain.num_bytes
    assert rated.tensors[0].distortion < plain.tensors[0].distortion


def test_the_reported_distortion_is_that_of_the_file(tmp_path):
    state = {"a": weights(20, 30), "b": weights(4, 5, 3, 3)}
    _, found, report = compressed(tmp_path, state)
    for tensor in report.tensors:
        error = (state[tensor.name].double() - found[tensor.name].double()).square().sum()
        assert tensor.distortion == pytest.approx(float(error), rel=1e-3)


def test_vectors_stay_dense_and_the_settings_are_in_the_file(tmp_path):
    state = {"a": weights(20, 30), "b": weights(30)}
    _, found, report = compressed(tmp_path, state, dense_dtype="float32", step=0.2)
    assert torch.equal(found["b"], state["b"])
    assert {tensor.name: tensor.stored for tensor in report.tensors} == {
        "a": "blocks",
        "b": "dense",
    }
    assert report.config is not None
    assert report.config["step"] == 0.2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes_are_rounded_in_float32_or_wider(tmp_path, dtype):
    state = {"a": weights(20, 30).to(dtype)}
    _, found, _ = compressed(tmp_path, state, step=0.1, unit="network")
    assert found["a"].dtype == dtype
    assert (found["a"].double() - state["a"].double()).abs().max() < 0.11


def test_it_expands_to_what_it_loads(tmp_path):
    _, found, _ = compressed(tmp_path, {"a": weights(20, 30)})
    momos.expand(tmp_path / "x.momos", tmp_path / "y.safetensors")
    assert torch.equal(load_file(tmp_path / "y.safetensors")["a"], found["a"])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(tmp_path, value):
    state = {"a": weights(20, 30)}
    state["a"][1, 2] = value
    with pytest.raises(ValueError, match=r"weights must be finite, .* in tensor 'a'"):
        compressed(tmp_path, state)


def test_steps_that_float32_cannot_hold_are_refused(tmp_path):
    with pytest.raises(ValueError, match="steps must be normal float32 numbers, got"):
        compressed(tmp_path, {"a": weights(20, 30)}, step=1e-45)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"step": 0}, "step must be above 0 and finite, got 0"),
        ({"step": float("inf")}, "step must be above 0 and finite, got inf"),
        ({"rate_weight": -1}, "rate_weight must be at least 0 and finite, got -1"),
        ({"unit": "row"}, "unit must be one of auto, network, channel, got 'row'"),
        ({"block_size": 0}, "block_size must be at least 1, got 0"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        LatticeConfig(**settings)


def test_a_step_is_a_number():
    with pytest.raises(TypeError, match="step must be a number, got '1'"):
        LatticeConfig(step="1")  # pyright: ignore[reportArgumentType]


def test_weights_too_small_to_be_squared_are_refused_not_zeroed(tmp_path):
    state = {"a": weights(9, 9).double() * 1e-200, "b": weights(9, 9)}
    with pytest.raises(ValueError, match=r"0 or at least 1e-150 .* in tensor 'a'"):
        compressed(tmp_path, state)


def test_channels_may_lie_in_the_last_dimension(tmp_path):
    """As in Flax and Keras; embeddings have theirs in the first."""
    kernel = weights(3, 3, 8, 16) * 2.0 ** (torch.arange(16) / 4)
    state = {"conv.kernel": kernel, "embedding": weights(10, 8), "scale": weights(16)}
    settings = {"unit": "channel", "channel_axis": "last", "step": 0.2}
    mosaic, found, report = compressed(tmp_path, state, **settings)
    assert num_steps(mosaic) == {"conv.kernel": 16, "embedding": 10}
    assert mosaic.layout.axes == {"conv.kernel": 3}
    errors = (found["conv.kernel"] - kernel).square().mean((0, 1, 2))
    ratio = errors / kernel.square().mean((0, 1, 2))
    assert ratio.max() < 3 * ratio.min()
    assert report.relative_error == pytest.approx(float(ratio.mean()), rel=0.5)
    with momos.MosaicFile(tmp_path / "x.momos") as file:
        file.verify()
        assert all(torch.equal(file.tensor(name), found[name]) for name in state)
    again = momos.save(momos.load(tmp_path / "x.momos"), tmp_path / "y.momos")
    assert again.path.read_bytes() == (tmp_path / "x.momos").read_bytes()


def test_tensors_longer_than_a_stream_have_several(tmp_path):
    state = {"a": weights(1100, 1000), "b": weights(1000, 1100)}
    for axis in ("first", "last"):
        settings = {"channel_axis": axis, "step": 1.0, "states": 8, "unit": "channel"}
        mosaic, found, _ = compressed(tmp_path, state, **settings)
        for name, tensor in state.items():
            assert (found[name] - tensor).abs().max() < 3 * float(
                tensor.square().mean()
            ) ** 0.5
        with momos.MosaicFile(tmp_path / "x.momos") as file:
            file.verify()
            assert {len(record.streams) for record in file.manifest.records} == {2}
        assert mosaic.layout.num_blocks == 2_200_000
