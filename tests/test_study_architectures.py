import sys

import pytest
import torch

import momos
from momos.study.tasks.architectures import (
    ResidualBlock,
    ResNet,
    mlp,
    resnet20,
    vit_tiny,
)


def paper(model: torch.nn.Module) -> tuple[int, int, int, float]:
    """Weights, blocks, motifs and factor at the paper's s=2, c=5 %."""
    config = momos.MosaicConfig(block_size=2, capacity=0.05)
    layout = momos.Layout.of(model, block_size=2)
    num_motifs = config.motifs_for(layout.num_blocks)
    bound = momos.description_bound(
        num_blocks=layout.num_blocks, num_motifs=num_motifs, block_size=2
    )
    return (
        layout.num_weights,
        layout.num_blocks,
        num_motifs,
        32 * layout.num_weights / bound,
    )


def test_the_factor_of_the_papers_mlp() -> None:
    weights, blocks, motifs, factor = paper(mlp())
    assert (weights, blocks, motifs) == (986_634, 493_317, 24_665)
    assert factor == pytest.approx(3.516505, abs=1e-6)


def test_the_factor_of_resnet20() -> None:
    weights, blocks, motifs, factor = paper(resnet20())
    assert (weights, blocks, motifs) == (269_722, 134_861, 6_743)
    assert factor == pytest.approx(3.950623, abs=1e-6)


def test_the_factor_of_vit_tiny() -> None:
    pytest.importorskip("transformers")
    with torch.device("meta"):
        model = vit_tiny()
    weights, blocks, motifs, factor = paper(model)
    assert (weights, blocks, motifs) == (5_526_346, 2_763_173, 138_158)
    assert factor == pytest.approx(3.018870, abs=1e-6)


def test_vit_tiny_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(
        ImportError, match=r'pip install "mosaic-of-motifs\[transformers\]"'
    ):
        vit_tiny()


@pytest.mark.parametrize("model", [mlp(), resnet20()], ids=["mlp", "resnet20"])
def test_ten_classes_from_an_image(model: torch.nn.Module) -> None:
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_an_mlp_needs_two_widths() -> None:
    with pytest.raises(
        ValueError, match=r"widths must have at least two entries, got \(64,\)"
    ):
        mlp((64,))


@pytest.mark.parametrize("depth", [2, 19, 21])
def test_a_resnet_has_depth_6n_plus_2(depth: int) -> None:
    with pytest.raises(ValueError, match=f"depth must be 6n .*, got {depth}"):
        ResNet(depth)


def test_resnet_names_are_those_of_published_weights() -> None:
    names = set(ResNet(56).state_dict())
    assert len(names) == 55 * (1 + 5) + 2  # a convolution and its norm's five; linear
    assert {"conv1.weight", "bn1.running_var", "linear.weight", "linear.bias"} <= names
    assert {f"layer{stage}.8.conv2.weight" for stage in (1, 2, 3)} <= names
    assert not any("shortcut" in name or "downsample" in name for name in names)


def test_option_a_shortcut_skips_pixels_and_adds_zero_channels() -> None:
    block = ResidualBlock(2, 4, stride=2).eval()
    torch.nn.init.zeros_(block.bn2.weight)  # leaves the shortcut alone
    image = torch.rand(1, 2, 4, 4)
    out = block(image)
    assert out.shape == (1, 4, 2, 2)
    assert torch.equal(out[:, 1:3], image[:, :, ::2, ::2])
    assert not out[:, [0, 3]].any()
