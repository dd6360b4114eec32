"""The networks of the study: the paper's MLP, CIFAR ResNets, and ViT-Tiny.

Their numbers of weights are those of the paper (Bakhtiarifard et al. 2026): 986 634, 269 722
and 5 526 346 at ten classes.
"""

from collections.abc import Sequence
from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import pad, relu

PAPER_WIDTHS = (3072, 256, 256, 256, 256, 10)  # the paper's MLP for CIFAR-10


def mlp(widths: Sequence[int] = PAPER_WIDTHS) -> nn.Sequential:
    """Linear layers with biases and ReLU between them, on flattened inputs."""
    if len(widths) < 2:
        raise ValueError(f"widths must have at least two entries, got {tuple(widths)}")
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut without weights: option A of He et al. 2015, §4.2.

    Where the shape changes, the shortcut takes every second pixel and adds zero channels, half
    of them on either side.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride = stride
        self.added = outputs - inputs

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d i j"]:
        inner = self.bn2(self.conv2(relu(self.bn1(self.conv1(x)))))
        shortcut = x[:, :, :: self.stride, :: self.stride]
        before = self.added // 2
        return relu(inner + pad(shortcut, (0, 0, 0, 0, before, self.added - before)))


class ResNet(nn.Module):
    """The CIFAR ResNet of He et al. 2015, §4.2: depth 6n + 2 in three stages of n blocks."""

    def __init__(self, depth: int, *, num_classes: int = 10) -> None:
        super().__init__()
        num_blocks, rest = divmod(depth - 2, 6)
        if num_blocks < 1 or rest:
            raise ValueError(f"depth must be 6n + 2 with n at least 1, got {depth}")
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(16, 16, num_blocks)
        self.layer2 = _stage(16, 32, num_blocks)
        self.layer3 = _stage(32, 64, num_blocks)
        self.linear = nn.Linear(64, num_classes)
        for module in self.modules():  # He et al. 2015b, as in §4.2
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n classes"]:
        x = relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))


def _stage(inputs: int, outputs: int, num_blocks: int) -> nn.Sequential:
    first = ResidualBlock(inputs, outputs, stride=outputs // inputs)
    others = [ResidualBlock(outputs, outputs, stride=1) for _ in range(num_blocks - 1)]
    return nn.Sequential(first, *others)


def resnet20(*, num_classes: int = 10) -> ResNet:
    return ResNet(20, num_classes=num_classes)


def resnet56(*, num_classes: int = 10) -> ResNet:
    return ResNet(56, num_classes=num_classes)


def vit_tiny(*, num_classes: int = 10) -> nn.Module:
    """Hugging Face's ViT with the sizes of ViT-Tiny: patch 16, 224 × 224 pixels.

    Raises:
        ImportError: if transformers is not installed.
    """
    try:
        from transformers import ViTConfig, ViTForImageClassification
    except ModuleNotFoundError as error:
        if error.name != "transformers":
            raise
        raise ImportError(
            'vit_tiny needs transformers: pip install "mosaic-of-motifs[transformers]"'
        ) from None
    config = ViTConfig(
        hidden_size=192,
        num_hidden_layers=12,
        num_attention_heads=3,
        intermediate_size=768,
        image_size=224,
        patch_size=16,
    )
    config.num_labels = num_classes
    return ViTForImageClassification(config)
