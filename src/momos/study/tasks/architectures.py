"""The networks of the study: the paper's MLP, CIFAR ResNets, ViT-Tiny, and a transformer.

Their numbers of weights are those of the paper (Bakhtiarifard et al. 2026): 986 634, 269 722
and 5 526 346 at ten classes. The transformer, of characters, is not in the paper.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad, relu, scaled_dot_product_attention

from momos.study.packages import needed

PAPER_WIDTHS = (3072, 256, 256, 256, 256, 10)  # the paper's MLP for CIFAR-10
VIT_SIZE = 224  # pixels on a side
TRANSFORMERS = '"mosaic-of-motifs[transformers]"'


def mlp(widths: Sequence[int] = PAPER_WIDTHS) -> nn.Sequential:
    """Linear layers with biases and ReLU between them, on flattened inputs."""
    if len(widths) < 2:
        raise ValueError(f"widths must have at least two entries, got {tuple(widths)}")
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def lenet300() -> nn.Sequential:
    """LeNet-300-100 (LeCun et al. 1998), with ReLU: 266 610 weights."""
    return mlp((784, 300, 100, 10))


def lenet5() -> nn.Sequential:
    """LeNet-5 as Caffe has it: 431 080 weights."""
    return nn.Sequential(
        nn.Conv2d(1, 20, 5),
        nn.MaxPool2d(2),
        nn.Conv2d(20, 50, 5),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(800, 500),
        nn.ReLU(),
        nn.Linear(500, 10),
    )


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
    """The CIFAR ResNet of He et al. 2015, §4.2: depth 6n + 2 in three stages of n blocks.

    `width` is the number of channels in the first stage; each later one has twice as many.
    """

    def __init__(
        self, depth: int, *, num_classes: int = 10, channels: int = 3, width: int = 16
    ) -> None:
        super().__init__()
        num_blocks, rest = divmod(depth - 2, 6)
        if num_blocks < 1 or rest:
            raise ValueError(f"depth must be 6n + 2 with n at least 1, got {depth}")
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = _stage(width, width, num_blocks)
        self.layer2 = _stage(width, 2 * width, num_blocks)
        self.layer3 = _stage(2 * width, 4 * width, num_blocks)
        self.linear = nn.Linear(4 * width, num_classes)
        for module in self.modules():  # He et al. 2015b, as in §4.2
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
        x = relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))


def _stage(inputs: int, outputs: int, num_blocks: int) -> nn.Sequential:
    first = ResidualBlock(inputs, outputs, stride=outputs // inputs)
    others = [ResidualBlock(outputs, outputs, stride=1) for _ in range(num_blocks - 1)]
    return nn.Sequential(first, *others)


def resnet20() -> ResNet:
    return ResNet(20)


def resnet20_wide() -> ResNet:
    """With four times the channels, as in LilNetX and Oktay et al. 2020."""
    return ResNet(20, width=64)


class TransformerBlock(nn.Module):
    """Causal attention and an MLP, each after a norm and added to what came in."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm1 = nn.LayerNorm(width)
        self.attention = nn.Linear(width, 3 * width, bias=False)
        self.projection = nn.Linear(width, width, bias=False)
        self.norm2 = nn.LayerNorm(width)
        self.mlp1 = nn.Linear(width, 4 * width, bias=False)
        self.mlp2 = nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Float[Tensor, "n t width"]) -> Float[Tensor, "n t width"]:
        parts = self.attention(self.norm1(x)).chunk(3, dim=-1)
        heads = (part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in parts)
        mixed = scaled_dot_product_attention(*heads, is_causal=True)
        x = x + self.projection(mixed.transpose(1, 2).flatten(2))
        return x + self.mlp2(relu(self.mlp1(self.norm2(x))).square())


def waves(count: int, width: int) -> Float[Tensor, "count width"]:
    """Sines and cosines of positions, of periods from 2π to 20 000 π (Vaswani et al. 2017)."""
    periods = 10_000 ** (torch.arange(0, width, 2) / width)
    angles = torch.arange(count)[:, None] / periods
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)[:, :width]


class CharacterTransformer(nn.Module):
    """A language model of characters: pre-norm, learned positions, no dropout.

    Characters start as large as what blocks add, positions as waves of that size: with both at
    0.02 the loss after 200 steps was 2.57 nats, else 2.43. Squared ReLU as in Primer (So et al.
    2021).
    """

    def __init__(
        self,
        vocabulary: int,
        *,
        context: int = 128,
        width: int = 144,
        depth: int = 4,
        num_heads: int = 4,
    ) -> None:
        super().__init__()
        self.characters = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(context, width)
        blocks = [TransformerBlock(width, num_heads) for _ in range(depth)]
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, vocabulary, bias=False)
        self._start(depth)

    def _start(self, depth: int) -> None:
        deviations = {"characters.weight": 0.5, "output.weight": 0.02}
        for name, weight in self.named_parameters():
            if weight.ndim >= 2:
                adds = name.endswith(("projection.weight", "mlp2.weight"))
                fan_in = weight.shape[1]
                deviation = deviations[name] if name in deviations else fan_in**-0.5
                spread = deviation / ((2 * depth) ** 0.5 if adds else 1)
                nn.init.normal_(weight, std=spread)
        with torch.no_grad():
            self.positions.weight.copy_(0.5 * waves(*self.positions.weight.shape))

    def forward(self, characters: Int[Tensor, "n t"]) -> Float[Tensor, "n t vocabulary"]:
        places = torch.arange(characters.shape[1], device=characters.device)
        x = self.characters(characters) + self.positions(places)
        return self.output(self.norm(self.blocks(x)))


class Resized(nn.Module):
    """A network on images resized bilinearly to `size`, if given; its logits alone."""

    def __init__(self, network: nn.Module, size: int | None) -> None:
        super().__init__()
        self.network = network
        self.size = size

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
        if self.size is not None and images.shape[2:] != (self.size, self.size):
            images = interpolate(images, size=(self.size, self.size), mode="bilinear")
        outputs = self.network(images)
        return outputs if isinstance(outputs, Tensor) else outputs.logits


def vit_tiny(
    *, num_classes: int = 10, size: int = VIT_SIZE, patch: int = 16, channels: int = 3
) -> nn.Module:
    """Hugging Face's ViT with the sizes of ViT-Tiny, by default for 224 × 224 pixels."""
    if size % patch:
        raise ValueError(f"patch must divide the size of images, {size}, got {patch}")
    transformers = needed("transformers", TRANSFORMERS)
    config = transformers.ViTConfig(
        hidden_size=192,
        num_hidden_layers=12,
        num_attention_heads=3,
        intermediate_size=768,
        image_size=size,
        patch_size=patch,
        num_channels=channels,
    )
    config.num_labels = num_classes
    return transformers.ViTForImageClassification(config)


class PairNetwork(nn.Module):
    """The grokking network of arXiv 2605.15551: two numbers by one embedding, side by side.

    181 089 weights at the width 256; 624 225 at 512, the paper's.
    """

    def __init__(self, width: int, *, modulus: int = 97) -> None:
        super().__init__()
        if width < 1:
            raise ValueError(f"width must be at least 1, got {width}")
        self.embedding = nn.Embedding(modulus, width)
        self.hidden = nn.Linear(2 * width, width)
        self.output = nn.Linear(width, modulus)

    def forward(self, pairs: Int[Tensor, "n 2"]) -> Float[Tensor, "n modulus"]:
        return self.output(self.hidden(self.embedding(pairs).flatten(1)).relu())
