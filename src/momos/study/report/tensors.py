"""Inside a network: the length of each tensor, and layers as mosaics, painted by motif.

A block's hue is its direction in a plane: across, the mean of its values; up, how far its first
half lies above its second (at block size 2 this is the whole block, only turned by 45°). Its
strength is its size, so the zero motif is white. Equal blocks have equal colours.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from safetensors.torch import load_file
from torch import Tensor

import momos
from momos._util.escaping import visible
from momos.study.analysis.cohort import Cohort, Subject, plain, seeds_of
from momos.study.analysis.metric import grouped
from momos.study.analysis.statistics import Estimate
from momos.study.report.figure import INK, SERIES, Figure, canvas, file_name, texts
from momos.study.store import Broken, Finished

BARS = 24  # at most; the shortest tensors are one bar
REST = "motifs, tables and names"
LAYERS = 3  # of a network at most
UNITS, WEIGHTS = 96, 192  # of a layer at most: rows and columns of tiles
LEAST, MOST = 1.6, 4.4  # inches of height
TO_CONES = (  # from Oklab
    (1.0, 0.3963377774, 0.2158037573),
    (1.0, -0.1055613458, -0.0638541728),
    (1.0, -0.0894841775, -1.2914855480),
)
TO_LINEAR = (  # red, green and blue
    (4.0767416621, -3.3077115913, 0.2309699292),
    (-1.2684380046, 2.6097574011, -0.3413193965),
    (-0.0041960863, -0.7034186147, 1.7076147010),
)


@dataclass(frozen=True, eq=False)
class Opened:
    """A cohort whose files were read: the mosaic of its first seed, and what those of all hold."""

    cohort: Cohort
    mosaic: momos.Mosaic
    reports: tuple[momos.SaveReport, ...]


def opened(subject: Subject) -> tuple[list[Opened], list[Broken]]:
    """For each treatment and block size the cohort of the best metric; and unreadable files."""
    best: dict[tuple[str, str], Cohort] = {}
    for cohort in subject.cohorts:
        if all(run.file.endswith(".momos") for run in cohort.runs.values()):
            key = (cohort.treatment, str(cohort.settings.get("block_size")))
            best[key] = max(best.get(key, cohort), cohort, key=_goodness)
    found: list[Opened] = []
    broken: list[Broken] = []
    for cohort in best.values():
        try:
            loaded = momos.load(cohort.first.network)
            mosaic = loaded if isinstance(loaded, momos.Mosaic) else loaded.mosaic
            reports = tuple(momos.inspect(run.network) for run in cohort.runs.values())
        except (OSError, ValueError) as error:  # a FormatError is a ValueError
            reason = visible(f"{cohort.label}: {error}")
            broken.append(Broken(cohort.first.folder, reason))
            continue
        if mosaic is not None:
            found.append(Opened(cohort, mosaic, reports))
    return found, broken


def _goodness(cohort: Cohort) -> float:
    return cohort.metric.goodness(cohort.mean) if cohort.score else float("-inf")


class Bar(NamedTuple):
    name: str
    length: Estimate  # bytes
    num_weights: int


def lengths_of_layers(subject: Subject, opened: Opened) -> Figure:
    """Bytes of each tensor, the others together, and what belongs to none."""
    cohort, every = opened.cohort, _bars(opened)
    bars = _fewer(every)
    drawing, axes = canvas(height=1.3 + 0.28 * len(bars))
    _draw_bars(axes, bars)
    longest = max(every, key=lambda bar: bar.length.mean)
    total = sum(bar.length.mean for bar in every)
    return Figure(
        name=file_name("layers", subject.task, subject.network, cohort.label),
        **texts("layers", **_about(subject, cohort), seeds=seeds_of([cohort]), rest=REST),
        alt=(
            f"{len(bars)} bars, of {total:.0f} bytes in all; the longest is {longest.name} with "
            f"{longest.length.mean:.0f}."
        ),
        drawing=drawing,
        rows=[(bar.name, bar.num_weights, *bar.length.ends) for bar in every],
    )


def _about(subject: Subject, cohort: Cohort) -> dict[str, Any]:
    return {"subject": subject.title, "cohort": cohort.label}


def _bars(opened: Opened) -> list[Bar]:
    bytes_of = [{t.name: t.length / 8 for t in report.tensors} for report in opened.reports]
    bars = []
    for tensor in opened.reports[0].tensors:
        if tensor.stored != "same":
            found = [each[tensor.name] for each in bytes_of if tensor.name in each]
            bars.append(Bar(tensor.name, Estimate.of(found), tensor.num_weights))
    pairs = zip(opened.reports, bytes_of, strict=True)
    rest = [report.num_bytes - sum(each.values()) for report, each in pairs]
    return [*bars, Bar(REST, Estimate.of(rest), 0)]


def _fewer(bars: Sequence[Bar]) -> list[Bar]:
    if len(bars) <= BARS:
        return list(bars)
    *tensors, rest = bars
    kept = sorted(tensors, key=lambda bar: -bar.length.mean)[: BARS - 2]
    others = [bar for bar in tensors if bar not in kept]
    total = Estimate.exact(sum(bar.length.mean for bar in others))
    weights = sum(bar.num_weights for bar in others)
    together = Bar(f"{len(others)} shorter tensors", total, weights)
    return [*(bar for bar in tensors if bar in kept), together, rest]


def _draw_bars(axes: Axes, bars: Sequence[Bar]) -> None:
    rows, values = range(len(bars)), [bar.length.mean for bar in bars]
    errors = [[bar.length.bars[side][0] for bar in bars] for side in (0, 1)]
    style = {"error_kw": {"lw": 1, "ecolor": INK}, "height": 0.7}
    axes.barh(rows, values, xerr=errors, color=SERIES[1], **style)
    for row, (_, length, weights) in zip(rows, bars, strict=True):
        per_weight = f"{8 * length.mean / weights:.2f} bits/weight" if weights else ""
        text = per_weight or f"{length.mean:.0f} B"
        place = {"xytext": (4, 0), "textcoords": "offset points", "va": "center"}
        axes.annotate(text, (length.high, row), fontsize=9, **place)
    short = [bar.name if len(bar.name) <= 30 else f"…{bar.name[-29:]}" for bar in bars]
    axes.set_yticks(rows, labels=[plain(name) for name in short], fontsize=9)
    axes.invert_yaxis()
    axes.margins(x=0.3)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("bytes")


def figures_of_layers(subject: Subject, opened: Opened) -> list[Figure]:
    """The first layers of one network: every weight a tile, in the colour of its motif."""
    places = [p for p in opened.mosaic.layout.placements if len(p.shape) > 1]
    return [_tiles_figure(subject, opened, p, len(places)) for p in places[:LAYERS]]


def colours_of(mosaic: momos.Mosaic) -> Float[Tensor, "k 3"]:
    """A colour for each motif; the zero motif is white."""
    motifs = mosaic.motifs.float()
    if motifs.shape[1] == 1:  # a hue takes two halves
        motifs = motifs.repeat(1, 2)
    sizes = _size(motifs[mosaic.usage() > 0])
    return paint(motifs, reach=float(sizes.quantile(0.9)) or 1.0)


def tiles_of(
    mosaic: momos.Mosaic, place: momos.Placement
) -> tuple[Float[Tensor, "units weights 3"], Tensor]:
    """Colours of the first weights of the first units, and which motifs they are of."""
    indices = mosaic.indices[place.start : place.stop].long()
    each = indices.repeat_interleave(mosaic.layout.block_size)[: place.num_weights]
    shown = each.view(place.shape[0], -1)[:UNITS, :WEIGHTS]
    return colours_of(mosaic)[shown], shown


def _tiles_figure(
    subject: Subject, opened: Opened, place: momos.Placement, layers: int
) -> Figure:
    cohort, mosaic = opened.cohort, opened.mosaic
    tiles, motifs = tiles_of(mosaic, place)
    units, weights = motifs.shape
    drawing, axes = canvas(height=0.9 + min(MOST, max(LEAST, 5 * units / weights)))
    corners = (-0.5, weights - 0.5, units - 0.5, -0.5)
    axes.imshow(tiles.numpy(), aspect="auto", interpolation="none", extent=corners)
    axes.grid(visible=False)
    axes.set_xlabel("weight of the unit (number)")
    axes.set_ylabel("unit (number)")
    shown = {
        "tensor": place.name,
        "shape": " × ".join(map(str, place.shape)),
        "units": units,
        "all_units": place.shape[0],
        "weights": weights,
        "all_weights": ceil(place.num_weights / place.shape[0]),
        "size": mosaic.layout.block_size,
        "layers": layers,
        "seed": cohort.first.cell.seed,
    }
    return Figure(
        name=file_name("mosaic", subject.task, subject.network, cohort.label, place.name),
        **texts("mosaic", **_about(subject, cohort), **shown),
        alt=(
            f"A grid of {units} by {weights} coloured tiles in which {len(motifs.unique())} "
            f"different motifs of {mosaic.num_motifs} occur."
        ),
        drawing=drawing,
        rows=[(*place, motif) for place, motif in np.ndenumerate(motifs.numpy())],
        zoomable=True,
    )


DENSE_BLOCK = 2  # a dense network is painted in blocks of this size


def layer_by_motif(cohorts: Sequence[Cohort]) -> Canvas:
    """The demo's picture: the first layer of the first run of each cohort, painted by motif.

    Above its weights, below every block in the plane of hues, as large as it is frequent.
    """
    layers = [_first_layer(cohort.first) for cohort in cohorts]
    sizes = [cohort.settings.get("block_size", DENSE_BLOCK) for cohort in cohorts]
    blocks = [layer.reshape(-1, size) for layer, size in zip(layers, sizes, strict=True)]
    reach = float(_size(blocks[0]).quantile(0.95))
    limit = 1.05 * max(float(place(rows).abs().max()) for rows in blocks)
    drawing = Canvas(figsize=(4.4 * len(cohorts), 8.6), dpi=100, layout="constrained")
    panels = drawing.subplots(2, len(cohorts), squeeze=False)
    for cohort, layer, rows, (upper, lower) in zip(
        cohorts, layers, blocks, panels.T, strict=True
    ):
        blocks_of = "" if cohort.is_mosaic else f", in blocks of {DENSE_BLOCK}"
        upper.set_title(cohort.label + blocks_of)
        colours = paint(rows, reach=reach).repeat_interleave(rows.shape[1], 0)
        tiles = colours.view(*layer.shape, 3)[:UNITS].numpy()
        upper.imshow(tiles, aspect="auto", interpolation="none")
        upper.set_axis_off()
        _draw_plane(lower, rows, reach, limit)
    outputs, inputs = layers[0].shape
    seed = cohorts[0].first.cell.seed
    drawing.suptitle(
        f"The first layer ({inputs} to {outputs}), painted by motif: {min(UNITS, outputs)} of "
        f"its units, a row each, and all its blocks, as large as frequent; seed {seed}"
    )
    return drawing


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


def _draw_plane(
    axes: Axes, blocks: Float[Tensor, "m s"], reach: float, limit: float
) -> None:
    different, counts = torch.unique(blocks, dim=0, return_counts=True)
    across, up = place(different).unbind(1)
    axes.scatter(
        *(across.numpy(), up.numpy()),
        s=(2 * counts).numpy(),
        c=paint(different, reach=reach).numpy(),
        linewidths=0.3,
        edgecolors=INK,
    )
    axes.set_xlim(-limit, limit)
    axes.set_ylim(-limit, limit)
    axes.set_title(f"{grouped(len(blocks))} blocks, {grouped(len(different))} different")
    axes.set_xlabel("mean of the block's weights")
    axes.set_ylabel("half of (first half − second half)")


def _first_layer(run: Finished) -> Float[Tensor, "units p"]:
    tensors = load_file(run.weights)
    return next(tensors[name] for name in sorted(tensors) if tensors[name].ndim == 2)


def _size(blocks: Float[Tensor, "m s"]) -> Float[Tensor, " m"]:
    return blocks.square().mean(1).sqrt()


def _rgb(
    light: Float[Tensor, " m"], a: Float[Tensor, " m"], b: Float[Tensor, " m"]
) -> Float[Tensor, "m 3"]:
    """Oklab (Ottosson 2020) to sRGB, what the screen cannot show cut off."""
    cones, linear = light.new_tensor(TO_CONES), light.new_tensor(TO_LINEAR)
    lab = torch.stack([light, a, b], 1)
    rgb = ((lab @ cones.T) ** 3 @ linear.T).clamp(0, 1)
    return torch.where(rgb <= 0.0031308, 12.92 * rgb, 1.055 * rgb ** (1 / 2.4) - 0.055)
