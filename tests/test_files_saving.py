"""What cannot be saved is refused by name, and an old file stays whole."""

import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import momos
from momos import Mosaic
from networks import assert_returns, network, projected


def refused(model: object, path: Path, error: type[Exception], message: str) -> None:
    """That an old file stays whole, and no other is left behind."""
    path.write_bytes(b"the old file")
    with pytest.raises(error, match=message):
        momos.save(model, path)
    assert path.read_bytes() == b"the old file"
    assert os.listdir(path.parent) == [path.name]


def test_a_model_that_was_never_projected_is_refused(path):
    refused(network(), path, ValueError, "Sequential was never projected")


def test_a_model_that_changed_since_it_was_projected_is_refused(path):
    """One motif more than there may be; the paper's sample may leave room for one."""
    model = projected(selection="distinct")
    with torch.no_grad():
        model[2].bias[1] += 1e-3
    refused(model, path, ValueError, r"'2\.bias' differs from its motifs in 1 weights")


@pytest.mark.parametrize("other", [{}, None, "a.momos", torch.zeros(2), [], nn.Linear])
def test_what_is_no_network_is_refused(other, path):
    refused(
        other, path, TypeError,
        f"a Module, a Mosaic or a Checkpoint can be saved, got {type(other).__name__}",
    )  # fmt: skip


def quantized() -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.quantize_per_tensor(torch.rand(4), 0.1, 0, torch.qint8)


UNORDINARY = {
    "meta": (lambda: torch.zeros(3, device="meta"), "must hold values"),
    "lazy": (nn.UninitializedBuffer, "must hold values"),
    "sparse": (lambda: torch.eye(3).to_sparse(), r"must be strided, got torch\.sparse_coo"),
    "rows": (
        lambda: torch.eye(3).to_sparse_csr(),
        r"must be strided, got torch\.sparse_csr",
    ),
    "quantized": (quantized, r"must .* got torch\.qint8"),
    "nested": (lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), "must"),
}


@pytest.mark.filterwarnings("ignore:Sparse CSR", "ignore:The PyTorch API of nested")
@pytest.mark.parametrize(("make", "message"), UNORDINARY.values(), ids=UNORDINARY)
def test_a_tensor_that_is_not_ordinary_is_refused_by_its_name(make, message, path):
    model = projected()
    model[1].register_buffer("odd", make())
    refused(model, path, ValueError, rf"'1\.odd' {message}")


def test_a_parameter_on_meta_is_refused_by_its_name(path):
    refused(projected().to("meta"), path, ValueError, r"'0\.weight' must hold values")


def test_a_module_with_extra_state_is_refused(path):
    class Extra(nn.Linear):
        def get_extra_state(self) -> int:
            return 1

    model = projected(lambda: nn.Sequential(Extra(3, 3)))
    refused(model, path, ValueError, "0._extra_state")


def test_a_module_whose_state_is_more_than_its_tensors_is_refused(path):
    class More(nn.Linear):
        def _save_to_state_dict(self, destination, prefix, keep_vars) -> None:
            super()._save_to_state_dict(destination, prefix, keep_vars)
            destination[prefix + "more"] = torch.ones(2)

    model = projected(lambda: nn.Sequential(More(3, 3)))
    assert "0.more" in model.state_dict()
    refused(model, path, ValueError, r"0\.more")


@pytest.mark.parametrize("name", ["\udc80", "no\ud800"])
def test_a_name_that_no_file_can_hold_is_refused(name, path):
    model = projected()
    model.register_buffer(name, torch.ones(2))
    refused(model, path, ValueError, "UTF-8")


def test_a_shape_that_no_file_can_hold_is_refused(path):
    model = projected()
    model.register_buffer("deep", torch.ones([1] * 65))
    refused(model, path, ValueError, "'deep'")


@pytest.mark.parametrize(
    "name", ["ä", "重み", "a b", "quote\"'\\", "\x00\n", "😀", "__metadata__"]
)
def test_any_other_name_is_kept(name, path):
    def build() -> nn.Module:
        model = network()
        model.register_buffer(name, torch.rand(2))
        return model

    assert_returns(projected(build), build, path)


@pytest.mark.parametrize("capacity", [np.float32(0.5), np.float64(0.5), 0.5, 1])
def test_the_config_may_hold_any_number(capacity, path):
    model = projected(num_motifs=None, capacity=capacity)
    momos.save(model, path)
    assert momos.load(path).mosaic.config == Mosaic.of(model).config


def test_loaded_weights_are_saved_by_the_config_that_made_them(path):
    model, other = projected(), network()
    other.load_state_dict(model.state_dict())
    refused(other, path, ValueError, "never projected")
    path.unlink()
    momos.save(other, path, config=Mosaic.of(model).config)
    for name, values in momos.load(path).state_dict().items():
        assert torch.equal(values, model.state_dict()[name])
    wrong = momos.MosaicConfig(num_motifs=2)
    other = network()
    other.load_state_dict(model.state_dict())
    with pytest.raises(ValueError, match="at most 2 distinct blocks, got more"):
        momos.save(other, path, config=wrong)


def test_a_config_is_for_modules(path):
    mosaic = Mosaic.of(projected())
    with pytest.raises(
        ValueError, match="config must be given for a Module only, got one for"
    ):
        momos.save(mosaic, path, config=mosaic.config)
