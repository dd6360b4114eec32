"""Layers as mosaics: every weight a tile, in the colour of the motif that its block is."""

from math import ceil

from jaxtyping import Float
from torch import Tensor

import momos
from momos.study.report.mosaic import paint
from momos.study.report.page.files import Opened
from momos.study.report.page.groups import Subject
from momos.study.report.page.looks import canvas
from momos.study.report.page.picture import Picture, file_name

LAYERS = 3  # of a network at most
UNITS, WEIGHTS = 96, 192  # of a layer at most: rows and columns of tiles
LEAST, MOST = 1.6, 4.4  # inches of height


def pictures_of_layers(subject: Subject, opened: Opened) -> list[Picture]:
    """The first layers of one network, a picture for each."""
    places = [p for p in opened.mosaic.layout.placements if len(p.shape) > 1]
    return [_picture(subject, opened, place, len(places)) for place in places[:LAYERS]]


def colours_of(mosaic: momos.Mosaic) -> Float[Tensor, "k 3"]:
    """A colour for each motif; the zero motif is white."""
    motifs = mosaic.motifs.float()
    if motifs.shape[1] == 1:  # a hue takes two halves
        motifs = motifs.repeat(1, 2)
    used = motifs[mosaic.usage() > 0]
    sizes = used.square().mean(1).sqrt()
    return paint(motifs, reach=float(sizes.quantile(0.9)) or 1.0)


def tiles_of(
    mosaic: momos.Mosaic, place: momos.Placement
) -> tuple[Float[Tensor, "units weights 3"], Tensor]:
    """Colours of the first weights of the first units, and which motifs they are of."""
    size = mosaic.layout.block_size
    indices = mosaic.indices[place.start : place.stop].long()
    units = place.shape[0]
    each = indices.repeat_interleave(size)[: place.num_weights].view(units, -1)
    shown = each[:UNITS, :WEIGHTS]
    return colours_of(mosaic)[shown], shown


def _picture(
    subject: Subject, opened: Opened, place: momos.Placement, layers: int
) -> Picture:
    group, mosaic = opened.group, opened.mosaic
    tiles, motifs = tiles_of(mosaic, place)
    units, weights = tiles.shape[:2]
    figure, axes = canvas(height=0.9 + min(MOST, max(LEAST, 5 * units / weights)))
    corners = (-0.5, weights - 0.5, units - 0.5, -0.5)
    axes.imshow(tiles.numpy(), aspect="auto", interpolation="none", extent=corners)
    axes.grid(visible=False)
    axes.set_xlabel("weight of the unit (number)")
    axes.set_ylabel("unit (number)")
    size, shape = mosaic.layout.block_size, " × ".join(map(str, place.shape))
    different = len(motifs.unique())
    return Picture(
        name=file_name("mosaic", subject.task, subject.network, group.label, place.name),
        title=f"{place.name} by motif: {subject.title}, {group.label}",
        caption=(
            f"{place.name} ({shape} weights, blocks of s = {size}), one tile a weight, in the "
            f"colour of its motif; the zero motif is white. Shown: {units} units of "
            f"{place.shape[0]}, {weights} weights of "
            f"{ceil(place.num_weights / place.shape[0])}; {layers} such tensors in all. "
            f"n = 1 seed (seed {group.first.cell.seed})."
        ),
        alt=(
            f"A grid of {units} by {weights} coloured tiles in which {different} different "
            f"motifs of {mosaic.num_motifs} occur."
        ),
        figure=figure,
        header=("unit", "weight", "motif"),
        rows=[
            (unit, weight, motif)
            for unit, row in enumerate(motifs.tolist())
            for weight, motif in enumerate(row)
        ],
        zoomable=True,
    )
