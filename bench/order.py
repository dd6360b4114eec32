"""What the order of indices gains: usage that differs by tensor, neighbours that depend.

Bits of the indices over m·H(usage), where every index costs its share of the usage in the whole
network. `learned` are the streams of the file, as they are. `+ neighbour` is the length of an ideal
code that learns in the same way but has eight tables a tensor, chosen by how large the motif before
is: what a reader would gain that takes the neighbour into account.
"""

from collections.abc import Iterator

import torch
from measure import table
from torch import Tensor

import momos
from momos.codec import Model
from momos.codec.streams import encode_all
from networks import SETTINGS, demo_networks, described, resnets

CLASSES, KNOWN = 8, 1024  # what was known before weighs as much as 1024 occurrences


def ideal(indices: Tensor, context: Tensor, share: Tensor) -> float:
    """Bits of `indices` in a code that learns by tensor and, within it, by context."""
    total, num_motifs = 0.0, len(share)
    known = torch.zeros(num_motifs, dtype=torch.float64)
    within = torch.zeros(CLASSES, num_motifs, dtype=torch.float64)
    start, stop = 0, max(64, num_motifs // 4)
    while start < len(indices):
        part = slice(start, min(stop, len(indices)))
        prior = (share * KNOWN + known) / (KNOWN + start)
        shares = (within + KNOWN * prior) / (within.sum(1, keepdim=True) + KNOWN)
        own, classes = indices[part], context[part]
        total -= float(shares[classes, own].log2().sum())
        known += torch.bincount(own, minlength=num_motifs)
        within.view(-1).index_add_(
            0, classes * num_motifs + own, torch.ones(len(own), dtype=torch.float64)
        )
        start, stop = part.stop, part.stop + part.stop // 2
    return total


def lengths(mosaic: momos.Mosaic) -> tuple[float, float, float]:
    """m·H(usage), the streams of the file, and the ideal code with neighbours, in bits."""
    usage = mosaic.usage()
    share = usage.double() / usage.sum()
    norm = mosaic.motifs.double().norm(dim=1)
    order = norm.argsort()
    size = torch.empty_like(order)
    size[order] = (share[order].cumsum(0) * CLASSES).clamp(max=CLASSES - 0.001).long()
    model, coded, neighbours = Model(usage), 0, 0.0
    for place in mosaic.layout.placements:
        own = mosaic.indices[place.start : place.stop]
        coded += sum(8 * len(stream.data) for stream in encode_all(model, own))
        own = own.long()
        before = torch.cat([torch.zeros(1, dtype=torch.long), size[own[:-1]]])
        neighbours += ideal(own, before, share)
    used = share[share > 0]
    return -float(usage.sum() * (used * used.log2()).sum()), coded, neighbours


def networks() -> Iterator[tuple[str, momos.Mosaic]]:
    for name, model in demo_networks():
        yield name, momos.Mosaic.of(model)
    for config in SETTINGS:
        for name, model in resnets():
            mosaic = momos.project_(model, config).mosaic
            yield f"{name}, {described(config)}", mosaic


def main() -> None:
    rows = []
    for name, mosaic in networks():
        flat, coded, neighbours = lengths(mosaic)
        rows.append(
            [name, f"{flat:.0f}", f"{coded / flat:.4f}", f"{neighbours / flat:.4f}"]
        )
    table(["network", "m·H(usage), bits", "learned", "+ neighbour"], rows)


if __name__ == "__main__":
    main()
