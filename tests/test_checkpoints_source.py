"""Running statistics are known by the names of all usual frameworks."""

import pytest
import torch
from safetensors.torch import save_file

import momos
from momos.checkpoints.source import is_statistics

STATISTICS = (
    *(
        "layer1.0.bn1.running_mean",
        "running_var",
        "bn._mean",
        "bn._variance",
    ),  # torch, Paddle
    *(
        "bn/moving_variance:0",
        "BatchNorm/moving_mean",
        "bn0_moving_var",
    ),  # Keras, TF, MXNet
    *("batch_stats/bn/var", "bn/batch_stats/var", "bn/~/var_ema:average"),  # Flax, Haiku
    *("bn.var.raw_value", "obs_rms.mean", "BN.Running_Mean", "norm.rolling_variance"),
)
WEIGHTS = (
    "bn.weight",
    "bn/gamma:0",
    "bn/beta:0",
    "mean_pool.bias",
    "var.weight",
    "0",
    ".",
    "",
)


@pytest.mark.parametrize("name", STATISTICS)
def test_statistics_are_known_by_their_names(name):
    assert is_statistics(name, (64,))
    assert is_statistics(name, (1, 64, 1, 1))


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_are_no_statistics(name):
    assert not is_statistics(name, (64,))


def test_matrices_called_mean_are_weights():
    assert not is_statistics("head.mean", (64, 10))  # of an encoder, say
    assert is_statistics("bn.running_mean", (64, 10))


def test_statistics_stay_as_they_are_and_are_not_measured(tmp_path):
    torch.manual_seed(0)
    variance = torch.rand(64) * 3 + 0.01
    names = ("bn/moving_variance:0", "bn.running_var", "bn/batch_stats/var")
    state = {"conv/kernel:0": torch.randn(64, 64) * 0.05}
    state |= {name: variance.clone() for name in names}
    source, path = tmp_path / "a.safetensors", tmp_path / "a.momos"
    save_file(state, source)
    config = momos.MosaicConfig(block_size=4, num_motifs=64, selection="kmeans")
    report = momos.compress(source, path, config)
    why = {tensor.name: tensor.why for tensor in report.tensors}
    assert why == {"conv/kernel:0": ""} | dict.fromkeys(names, "running statistics")
    found = momos.load(path).state_dict()
    assert all(torch.equal(found[name], variance) for name in names)
    measured = momos.measure(source, measures="signs", controls=0)
    assert measured.left_out == dict.fromkeys(names, "running statistics")
