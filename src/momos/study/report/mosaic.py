"""The picture of the mosaic: the first layer of each network, its blocks painted by motif.

A block's hue is its direction in a plane: across, the mean of its values; up, how far its first
half lies above its second (at block size 2 this is the whole block, only turned by 45°). Its
strength is its size, so the zero motif is white. Equal blocks have equal colours.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from safetensors.torch import load_file
from torch import Tensor

from momos.study.report.names import by_treatment, grouped, titled
from momos.study.store import Finished

DPI = 100
UNITS = 5  # units painted in each direction
SIDE = 8  # a unit's weights are an image of so many pixels in each direction
CELL, JOINT = 10, 8  # pixels of the picture per weight, and between units
PANEL = UNITS * (SIDE * CELL + JOINT) - JOINT
LEFT, RIGHT, GAP, TOP, BETWEEN, BOTTOM = 80, 30, 80, 120, 95, 60
GROUT = 0.55  # the grey between the tiles
DENSE_BLOCK = 2  # a dense network is painted in blocks of this size


def place(blocks: Float[Tensor, "m s"]) -> Float[Tensor, "m 2"]:
    """Where blocks lie in the plane of hues."""
    half = blocks.shape[1] // 2
    first, second = blocks[:, :half].mean(1), blocks[:, half:].mean(1)
    return torch.stack([first + second, first - second], 1) / 2


def paint(blocks: Float[Tensor, "m s"], *, reach: float) -> Float[Tensor, "m 3"]:
    """Red, green and blue of each block, 0 to 1; full strength from a size of `reach` on."""
    across, up = place(blocks).unbind(1)
    angle = torch.atan2(up, across) + 0.5  # so that positive means are warm, negative cool
    strength = (_size(blocks) / reach).clamp(max=1).sqrt()
    chroma = 0.17 * strength
    return _rgb(1 - 0.4 * strength, chroma * angle.cos(), chroma * angle.sin())


def layer_by_motif(runs: Sequence[Finished]) -> Figure:
    """The first run of each treatment: some units of its first layer, and all its blocks."""
    firsts = [group[0] for group in by_treatment(runs).values()]
    layers = [_first_layer(run) for run in firsts]
    blocks = [_blocks(run, layer) for run, layer in zip(firsts, layers, strict=True)]
    units = _smoothest(layers[0])
    reach = float(_size(blocks[0]).quantile(0.95))
    limit = 1.05 * max(float(place(rows).abs().max()) for rows in blocks)
    width = LEFT + len(firsts) * (PANEL + GAP) - GAP + RIGHT
    height = TOP + 2 * PANEL + BETWEEN + BOTTOM
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
    for number, run in enumerate(firsts):
        x = (LEFT + number * (PANEL + GAP)) / width
        size = (PANEL / width, PANEL / height)
        upper = figure.add_axes((x, (BOTTOM + PANEL + BETWEEN) / height, *size))
        mosaic = "block_size" in run.cell.settings or run.cell.treatment == "learned"
        upper.set_title(
            titled(run.cell) + ("" if mosaic else f", seen in blocks of {DENSE_BLOCK}")
        )
        upper.imshow(_tiles(_blocks(run, layers[number][units]), reach).numpy())
        upper.set_axis_off()
        lower = figure.add_axes((x, BOTTOM / height, *size))
        _draw_plane(lower, blocks[number], reach, limit)
    _write_title(figure, firsts[0], layers[0], height)
    return figure


def _write_title(figure: Figure, run: Finished, layer: Tensor, height: int) -> None:
    title = f"The first layer ({layer.shape[1]} to {layer.shape[0]}), painted by motif"
    figure.text(0.5, 1 - 40 / height, title, ha="center", fontsize=16)
    note = (
        f"above: {UNITS * UNITS} units, the smoothest of the dense network, each {SIDE} × {SIDE} "
        f"weights; below: every block of the layer, as large as it is frequent; seed {run.cell.seed}"
    )
    figure.text(0.5, 1 - 68 / height, note, ha="center", fontsize=11, color="#444")


def _draw_plane(
    axes: Axes, blocks: Float[Tensor, "m s"], reach: float, limit: float
) -> None:
    different, counts = torch.unique(blocks, dim=0, return_counts=True)
    across, up = place(different).unbind(1)
    axes.scatter(
        across.numpy(),
        up.numpy(),
        s=(2 * counts).numpy(),
        c=paint(different, reach=reach).numpy(),
        linewidths=0.3,
        edgecolors="#555",
    )
    axes.set_xlim(-limit, limit)
    axes.set_ylim(-limit, limit)
    axes.set_title(f"{grouped(len(blocks))} blocks, {grouped(len(different))} different")
    axes.set_xlabel("mean of the block's weights")
    axes.set_ylabel("half of (first half − second half)")


def _tiles(blocks: Float[Tensor, "m s"], reach: float) -> Float[Tensor, "h w 3"]:
    """A picture of units, each weight `CELL` pixels wide, every block a tile."""
    size = blocks.shape[1]
    colours = paint(blocks, reach=reach).view(UNITS, UNITS, SIDE, SIDE // size, 3)
    tiles = torch.full((UNITS, UNITS, SIDE, CELL, SIDE // size, size * CELL, 3), GROUT)
    tiles[:, :, :, 1:, :, 1:] = colours[:, :, :, None, :, None]
    step = SIDE * CELL + JOINT
    picture = torch.ones(UNITS, step, UNITS, step, 3)
    images = tiles.view(UNITS, UNITS, SIDE * CELL, SIDE * CELL, 3)
    picture[:, : SIDE * CELL, :, : SIDE * CELL] = images.transpose(1, 2)
    return picture.view(UNITS * step, UNITS * step, 3)[:PANEL, :PANEL]


def _first_layer(run: Finished) -> Float[Tensor, "units p"]:
    tensors = load_file(run.weights)
    return next(tensors[name] for name in sorted(tensors) if tensors[name].ndim == 2)


def _blocks(run: Finished, layer: Float[Tensor, "u p"]) -> Float[Tensor, "m s"]:
    return layer.reshape(-1, run.cell.settings.get("block_size", DENSE_BLOCK))


def _size(blocks: Float[Tensor, "m s"]) -> Float[Tensor, " m"]:
    return blocks.square().mean(1).sqrt()


def _smoothest(layer: Float[Tensor, "units p"]) -> Tensor:
    """The units whose neighbouring pixels agree most: the ones that show something."""
    images = layer.view(-1, SIDE, SIDE)
    down = (images[:, 1:] * images[:, :-1]).sum((1, 2))
    across = (images[:, :, 1:] * images[:, :, :-1]).sum((1, 2))
    agreement = (down + across) / images.square().sum((1, 2))
    return agreement.topk(UNITS * UNITS).indices


def _rgb(
    light: Float[Tensor, " m"], a: Float[Tensor, " m"], b: Float[Tensor, " m"]
) -> Float[Tensor, "m 3"]:
    """Oklab (Ottosson 2020) to sRGB, what the screen cannot show cut off."""
    lab = torch.stack([light, a, b], 1)
    cones = torch.tensor(
        [
            [1.0, 0.3963377774, 0.2158037573],
            [1.0, -0.1055613458, -0.0638541728],
            [1.0, -0.0894841775, -1.2914855480],
        ]
    )
    linear = torch.tensor(
        [
            [4.0767416621, -3.3077115913, 0.2309699292],
            [-1.2684380046, 2.6097574011, -0.3413193965],
            [-0.0041960863, -0.7034186147, 1.7076147010],
        ]
    )
    rgb = ((lab @ cones.T) ** 3 @ linear.T).clamp(0, 1)
    return torch.where(rgb <= 0.0031308, 12.92 * rgb, 1.055 * rgb ** (1 / 2.4) - 0.055)
