"""The gradient of motifs: blocks from motifs and back, against torch's own ways; and a training step
of the 5-layer MLP (986 k weights, batch 128) whose weights are gathered layer by layer."""

from collections.abc import Callable

import torch
from measure import milliseconds, seconds, table
from torch import Tensor, nn
from torch.nn import functional as F

from momos.study.tasks.architectures import mlp
from momos.vq.gather import gather

NETWORKS = (
    ("MLP", 493_000, 2, 64),
    ("MLP", 247_000, 4, 256),
    ("ResNet-20", 134_000, 2, 64),
)
WAYS: tuple[tuple[str, torch.dtype, Callable[[Tensor, Tensor], Tensor]], ...] = (
    ("momos", torch.int32, gather),
    ("index_select, index_add_", torch.int64, lambda z, i: z.index_select(0, i)),
    ("the same, int32 indices", torch.int32, lambda z, i: z.index_select(0, i)),
    ("embedding", torch.int64, lambda z, i: F.embedding(i, z)),
    ("motifs[indices]", torch.int64, lambda z, i: z[i]),
)


def main() -> None:
    torch.manual_seed(0)
    header = ["network", "m", "s", "k", "way", "forward", "and back", "÷ momos"]
    table(header, [row for network in NETWORKS for row in gathered(*network)])
    print()
    table(["step", "time", "÷ dense"], steps())


def gathered(name: str, m: int, s: int, k: int) -> list[list[str]]:
    motifs = torch.randn(k, s, requires_grad=True)
    indices, gradient = torch.randint(k, (m,)), torch.randn(m, s)
    actions = []
    for _, dtype, way in WAYS:
        chosen = indices.to(dtype)

        def forward(way=way, chosen=chosen) -> Tensor:
            return way(motifs, chosen)

        def both(forward=forward) -> object:
            return torch.autograd.grad(forward(), motifs, gradient)

        actions += [forward, both]
    times = seconds(*actions)
    return [
        [
            *(name, str(m), str(s), str(k), WAYS[way][0]),
            *(milliseconds(there), milliseconds(back), f"{back / times[1]:.2f}"),
        ]
        for way, (there, back) in enumerate(zip(times[::2], times[1::2], strict=True))
    ]


def steps() -> list[list[str]]:
    """A step of the dense network and of tied ones."""
    images, labels = torch.randn(128, 3072), torch.randint(10, (128,))
    networks: list[tuple[str, nn.Module]] = [("dense", mlp())]
    for s, k in ((2, 64), (4, 256)):
        for name, dtype, way in WAYS[:2]:
            networks.append((f"{name}, s={s} k={k}", tied(s, k, dtype, way)))

    def step(network: nn.Module) -> Callable[[], None]:
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)

        def act() -> None:
            optimizer.zero_grad()
            F.cross_entropy(network(images), labels).backward()
            optimizer.step()

        return act

    times = seconds(*(step(network) for _, network in networks), repeat=15)
    return [
        [name, milliseconds(time), f"{time / times[0]:.3f}"]
        for (name, _), time in zip(networks, times, strict=True)
    ]


class Blocks(nn.Module):
    """A parametrization: the weight is motifs[indices]."""

    indices: Tensor

    def __init__(self, motifs: nn.Parameter, indices: Tensor, way: Callable) -> None:
        super().__init__()
        self.motifs, self.way = motifs, way
        self.register_buffer("indices", indices)

    def forward(self, weight: Tensor) -> Tensor:
        flat = self.way(self.motifs, self.indices).view(-1)
        return flat[: weight.numel()].view(weight.shape)


def tied(s: int, k: int, dtype: torch.dtype, way: Callable) -> nn.Module:
    network, motifs = mlp(), nn.Parameter(torch.randn(k, s) / 20)
    for layer in network.modules():
        if isinstance(layer, nn.Linear):
            blocks = -(-layer.weight.numel() // s)
            indices = torch.randint(k, (blocks,), dtype=dtype)
            layer.weight.requires_grad_(False)
            nn.utils.parametrize.register_parametrization(
                layer, "weight", Blocks(motifs, indices, way)
            )
    return network


if __name__ == "__main__":
    main()
