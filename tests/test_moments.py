"""Moments are those of the inputs that a product with the weight is written out with."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from momos import input_moments

CONVOLUTIONS = [nn.Conv1d, nn.Conv2d, nn.Conv3d]


def written_out(conv, inputs: Tensor) -> Tensor:
    """E[x²] for each weight, by multiplying each with its inputs, one by one.

    The derivative of an output by a weight is that weight's input there.
    """
    conv.zero_grad()
    weight = torch.zeros_like(conv.weight)
    with torch.no_grad():
        for at in range(weight.numel()):
            conv.weight.zero_()
            conv.weight.view(-1)[at] = 1
            output = conv(inputs)[:, at // weight[0].numel()]
            weight.view(-1)[at] = output.square().mean()
    return weight


@given(data=st.data(), dims=st.integers(1, 3), groups=st.integers(1, 3))
def test_convolutions_are_those_of_the_definition(data, dims, groups):
    def number(least: int, most: int) -> tuple[int, ...]:
        return data.draw(st.tuples(*[st.integers(least, most)] * dims))

    stride = number(1, 3)
    paddings = [number(0, 2), "valid"] + ["same"] * (stride == (1,) * dims)
    modes = ["zeros", "reflect", "replicate", "circular"]
    conv = CONVOLUTIONS[dims - 1](
        groups * data.draw(st.integers(1, 2)),
        groups * data.draw(st.integers(1, 2)),
        number(1, 2),
        stride,
        data.draw(st.sampled_from(paddings)),
        number(1, 2),
        groups,
        bias=False,
        padding_mode=data.draw(st.sampled_from(modes)),
        dtype=torch.float64,
    )
    size = (conv.in_channels, *number(3, 5))
    batched = data.draw(st.booleans())
    inputs = torch.randn(*([2] * batched), *size, dtype=torch.float64)
    found = input_moments(conv, [inputs])["weight"]
    wanted = written_out(conv, inputs if batched else inputs[None]).float()
    assert found.shape == conv.weight.shape
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-9)


def test_a_convolution_agrees_with_unfold():
    conv = nn.Conv2d(3, 5, (3, 2), stride=2, padding=(1, 0), dilation=(1, 2))
    inputs = torch.randn(4, 3, 9, 8)
    columns = nn.functional.unfold(
        inputs.double(), (3, 2), dilation=(1, 2), padding=(1, 0), stride=2
    )
    wanted = columns.square().mean((0, 2)).view(1, 3, 3, 2).expand(5, -1, -1, -1)
    torch.testing.assert_close(input_moments(conv, [inputs])["weight"], wanted.float())


@pytest.mark.parametrize("shape", [(6,), (5, 6), (2, 3, 6)])
def test_linear_layers_see_the_mean_square_of_each_feature(shape):
    inputs = torch.randn(shape)
    found = input_moments(nn.Linear(6, 4), [inputs])["weight"]
    wanted = inputs.double().view(-1, 6).square().mean(0).expand(4, 6)
    torch.testing.assert_close(found, wanted.float())


def test_a_distortion_of_the_output_is_what_moments_say():
    layer = nn.Linear(6, 4, bias=False).double()
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 6).double()
    inputs = signs * torch.arange(1, 7)  # uncorrelated
    error = torch.randn(4, 6, dtype=torch.float64)
    moments = input_moments(layer, [inputs])["weight"]
    change = (inputs @ error.T).square().mean(0).sum()
    torch.testing.assert_close((moments * error.square()).sum(), change)


def test_embeddings_see_the_share_of_their_rows():
    layer = nn.Embedding(4, 3)
    found = input_moments(layer, [torch.tensor([[0, 2], [2, 2]])])["weight"]
    assert found[:, 0].tolist() == [0.25, 0, 0.75, 0]
    assert found.shape == (4, 3)


def test_batches_are_one_mean_however_they_are_cut():
    layer, inputs = nn.Linear(6, 4), torch.randn(10, 6)
    whole = input_moments(layer, [inputs])["weight"]
    cut = input_moments(layer, inputs.split(3))["weight"]
    torch.testing.assert_close(cut, whole)


def test_batches_are_tensors_tuples_or_mappings():
    layer, inputs = nn.Linear(6, 4), torch.randn(10, 6)
    found = [input_moments(layer, [b]) for b in (inputs, (inputs,), {"input": inputs})]
    assert torch.equal(found[0]["weight"], found[1]["weight"])
    assert torch.equal(found[0]["weight"], found[2]["weight"])
    with pytest.raises(
        TypeError, match=r"^a batch must be a tensor, a tuple or a mapping, got"
    ):
        input_moments(layer, [[inputs]])


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(5, 5)
        self.tied = nn.Linear(5, 5)
        self.tied.weight = self.layer.weight
        self.unused = nn.Linear(5, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + self.layer(2 * x) + self.tied(3 * x)


def test_uses_of_one_weight_add_up():
    inputs = torch.randn(7, 5)
    found = input_moments(Twice(), inputs.split(7), exclude=("unused.*",))
    once = input_moments(nn.Linear(5, 5), [inputs])["weight"]
    assert list(found) == ["layer.weight"]
    torch.testing.assert_close(found["layer.weight"], once * (1 + 4 + 9))


def test_weights_that_are_not_reached_are_named():
    with pytest.raises(
        ValueError, match=r"reached by the batches, got no input for unused\.w"
    ):
        input_moments(Twice(), [torch.randn(7, 5)])
    with pytest.raises(ValueError, match=r"^batches must hold at least one, got none"):
        input_moments(Twice(), [])


def test_choosing_nothing_is_refused():
    with pytest.raises(ValueError, match=r"^at least one weight of a linear"):
        input_moments(Twice(), [torch.randn(7, 5)], include=("*.bias",))


def test_inputs_that_are_not_finite_are_refused():
    with pytest.raises(
        ValueError, match=r"^inputs must have finite moments, got others for 'w"
    ):
        input_moments(nn.Linear(2, 2), [torch.full((3, 2), torch.nan)])


def test_attention_is_left_out_but_what_is_called_around_it_is_not():
    model = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    found = input_moments(model, [torch.randn(2, 3, 8)])
    assert list(found) == ["linear1.weight", "linear2.weight"]


def test_parametrized_weights_go_by_the_name_of_the_weight():
    layer = nn.utils.parametrizations.weight_norm(nn.Linear(6, 4))
    inputs = torch.randn(10, 6)
    plain = input_moments(nn.Linear(6, 4), [inputs])["weight"]
    assert torch.equal(input_moments(layer, [inputs])["weight"], plain)


@pytest.mark.parametrize("inputs", [torch.ones(3, 6), torch.ones(3, 5)])
def test_hooks_are_gone_afterwards_also_on_error(inputs):
    layer = nn.Linear(6, 4)
    if inputs.shape[1] == 6:
        input_moments(layer, [inputs])
    else:
        with pytest.raises(RuntimeError):
            input_moments(layer, [inputs])
    assert not layer._forward_pre_hooks
    assert layer.training
