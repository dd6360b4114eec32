"""Makes the golden files, once: `cd tests && python -m files.make`.

They are committed and read for ever, so those that are there stay as they are; a new version of
the format gets a folder of its own.
"""

import hashlib
import json
from pathlib import Path

import torch
from torch import Tensor, nn

import momos
from momos import Mosaic
from momos.codec import lattice
from momos.files.coding import by_position

GOLDEN = Path(__file__).parent / "golden" / "v1"
GOLDEN_2 = GOLDEN.with_name("v2")


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 3))


def mlp() -> nn.Module:
    model = network()
    momos.project_(model, momos.MosaicConfig(block_size=4, num_motifs=16))
    return model


def batchnorm() -> nn.Module:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Linear(5, 4))
    model(torch.randn(4, 3, 7, 7))
    momos.project_(model, momos.MosaicConfig(block_size=2, num_motifs=9, exclude=("1.*",)))
    return model


def one_motif() -> nn.Module:
    model = network()
    momos.project_(model, momos.MosaicConfig(block_size=5, num_motifs=1, zero_motif=False))
    return model


def half() -> nn.Module:
    """Motifs of float16 under weights of float32, bfloat16 and float16."""
    torch.manual_seed(2)
    model = nn.ParameterDict(
        {
            "a": torch.zeros(5, 3),
            "b": torch.zeros(17, dtype=torch.bfloat16),
            "c": torch.zeros(2, 2, 2, dtype=torch.float16),
        }
    )
    layout = momos.Layout.of(model, block_size=3)
    indices = torch.arange(layout.num_blocks) % 5
    momos.Mosaic(torch.randn(5, 3).half(), indices, layout).write_(model)
    return model


def learned() -> nn.Module:
    """Long enough, and ordered enough, for its stream to be learned."""
    draw = torch.Generator().manual_seed(3)
    model = nn.ParameterDict({"a": torch.zeros(6000), "b": torch.zeros(300)})
    layout = momos.Layout.of(model, block_size=2)
    spread = torch.randint(8, (150,), generator=draw)
    few = torch.randint(200, (3000,), generator=draw).clamp(190, 193) - 186
    few[::9] = 3
    motifs = torch.randn(8, 2, generator=draw)
    momos.Mosaic(motifs, torch.cat([few, spread]), layout).write_(model)
    return model


class Everything(nn.Module):
    """Scales, usage, tied and excluded parameters, and buffers of most kinds."""

    def __init__(self) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(4)
        self.first = nn.Parameter(torch.zeros(30, 25))
        self.second = nn.Parameter(torch.zeros(7, 9, dtype=torch.float64))
        self.third = nn.Parameter(torch.zeros(40, dtype=torch.bfloat16))
        self.tied = self.first
        self.kept = nn.Parameter(torch.randn(11, generator=draw))
        self.register_buffer("steps", torch.tensor(12345))
        self.register_buffer("mask", torch.rand(40, generator=draw) < 0.3)
        self.register_buffer("bytes", torch.arange(7, dtype=torch.uint8))
        self.register_buffer(
            "phases", torch.randn(5, generator=draw, dtype=torch.complex64)
        )
        self.register_buffer(
            "small", torch.randn(6, generator=draw).to(torch.float8_e4m3fn)
        )
        self.register_buffer("nothing", torch.zeros(0, 3))
        self.register_buffer("passing", torch.arange(300), persistent=False)


def everything() -> nn.Module:
    model, draw = Everything(), torch.Generator().manual_seed(5)
    layout = momos.Layout.of(model, block_size=3, exclude=("kept",))
    indices = (
        torch.randn(layout.num_blocks, generator=draw).mul(3).abs().long().clamp(max=39)
    )
    mosaic = momos.Mosaic(
        torch.randn(40, 3, generator=draw),
        indices,
        layout,
        tuple(torch.tensor([scale]) for scale in (0.5, 3.25, 1.1)),
        momos.MosaicConfig(block_size=3, num_motifs=40),
    )
    mosaic.write_(model)
    return model


def channels() -> nn.Module:
    """Whole motifs of few bits, and a scale for each output channel, or for a whole tensor."""
    model, draw = nn.ParameterDict(), torch.Generator().manual_seed(6)
    for name, shape, dtype in (
        ("a", (6, 5, 3), torch.float32),  # blocks that lie in two channels
        ("b", (4, 8), torch.float16),
        ("c", (3, 7), torch.float64),
        ("d", (31,), torch.bfloat16),
        ("e", (), torch.float32),
    ):
        model[name] = nn.Parameter(torch.zeros(shape, dtype=dtype))
    layout = momos.Layout.of(model, block_size=4)
    counts = [6, 4, 3, 1, 1]
    scales = [torch.rand(n, generator=draw).add(0.1).bfloat16().float() for n in counts]
    mosaic = momos.Mosaic(
        torch.randint(-7, 8, (12, 4), generator=draw, dtype=torch.int8),
        torch.randint(12, (layout.num_blocks,), generator=draw),
        layout,
        tuple(scales),
        momos.MosaicConfig(block_size=4, num_motifs=12, scales="channel", bits=4),
    )
    mosaic.write_(model)
    return model


def whole_values(states: int) -> Mosaic:
    """Whole motifs of one weight: a path of a trellis, in tensors of several shapes."""
    draw = torch.Generator().manual_seed(7)
    shapes: dict[str, tuple[tuple[int, ...], torch.dtype, int]] = {
        "a": ((6, 5, 3, 3), torch.float32, 0),
        "b": ((40,), torch.bfloat16, 0),
        "c": ((3, 4, 5), torch.float16, 1),
        "d": ((7, 9), torch.float64, 1),
        "e": ((2, 300), torch.float32, 0),
    }
    layout = momos.Layout.cut(
        1,
        ((name, shape, dtype) for name, (shape, dtype, _) in shapes.items()),
        {name: axis for name, (_, _, axis) in shapes.items()},
    )
    found = []
    for place in layout.placements:
        sizes = torch.rand(place.shape[place.axis], 1, generator=draw) * 9
        weights = torch.randn(len(sizes), place.num_weights // len(sizes), generator=draw)
        weights = weights.mul(sizes).view(-1)
        weights[::17] = 0
        weights[3] = -41.0
        path = lattice.quantize(
            weights.double(), memory=states.bit_length() - 1, rate_weight=0.1
        )
        found.append(by_position(path, place))
    values = torch.cat(found).long()
    different = values.unique()
    motifs = different[(2 * different.abs() + (different > 0)).argsort()]
    indices = torch.searchsorted(different, values)
    number = torch.empty(len(different), dtype=torch.int64)
    number[torch.searchsorted(different, motifs)] = torch.arange(len(different))
    scales = [
        torch.rand(place.shape[place.axis] if i != 3 else 1, generator=draw).add(0.1)
        for i, place in enumerate(layout.placements)
    ]
    return Mosaic(
        motifs.to(torch.int8)[:, None],
        number[indices],
        layout,
        tuple(scale.bfloat16().float() for scale in scales),
        momos.LatticeConfig(step=0.2),
    )


def ordered() -> Mosaic:
    """Whole motifs of one weight that usage tells in fewer bytes than their values do."""
    draw = torch.Generator().manual_seed(8)
    motifs = torch.tensor([0.0, -1, 2, 3, -700, 2000])[:, None]
    layout = momos.Layout.cut(1, [("a", (60, 50), torch.float32)])
    indices = torch.randint(6, (3000,), generator=draw)
    return Mosaic(motifs, indices, layout)


MODELS = {
    "mlp": mlp,
    "batchnorm": batchnorm,
    "one_motif": one_motif,
    "half": half,
    "learned": learned,
    "everything": everything,
    "channels": channels,
    "empty": nn.Sequential,
}
OF_VERSION_2 = MODELS | {
    "whole": lambda: whole_values(8),
    "scalar": lambda: whole_values(1),
    "ordered": ordered,
}


def described(tensor: Tensor) -> dict[str, object]:
    """What is to be found again for ever."""
    data = tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes()
    return {
        "dtype": str(tensor.dtype).removeprefix("torch."),
        "shape": list(tensor.shape),
        "sha256": hashlib.sha256(data).hexdigest(),
    }


def main() -> None:
    """Makes those of the version that is written now."""
    GOLDEN_2.mkdir(parents=True, exist_ok=True)
    expectations = GOLDEN_2 / "expected.json"
    expected = json.loads(expectations.read_text()) if expectations.exists() else {}
    for name, model in OF_VERSION_2.items():
        if name in expected:
            continue
        report = momos.save(model(), GOLDEN_2 / f"{name}.momos")
        tensors = momos.load(report.path).tensors()
        expected[name] = {key: described(tensor) for key, tensor in tensors.items()}
        print(f"{name}: {report.num_bytes} bytes")
    expectations.write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main()
