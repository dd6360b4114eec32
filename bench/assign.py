"""Nearest motif at s = 2 against a matrix product, a KD-tree, FAISS flat and a plain gather.

The gather `motifs[indices]` of the same shape is the limit: whoever writes the mosaic into the
weights has to do at least that.
"""

import faiss
import torch
from measure import milliseconds, seconds, table
from scipy.spatial import KDTree

import momos

SHAPES = {"MLP": (986_634, 24_665), "ViT-Tiny": (5_526_346, 138_158)}


def matrix_product(blocks: torch.Tensor, motifs: torch.Tensor) -> torch.Tensor:
    """Distances to all motifs from |b|² + |z|² − 2 b·z, a slice of blocks at a time."""
    norms = motifs.square().sum(1)
    indices = []
    for some in blocks.split(2**12):
        distance = some.square().sum(1)[:, None] + norms - 2 * (some @ motifs.T)
        indices.append(distance.argmin(1))
    return torch.cat(indices)


def project_by_matrix_product(model: torch.nn.Module, num_motifs: int) -> None:
    """A whole projection in the straightforward way, for the ratio of whole projections."""
    with torch.no_grad():
        flat = torch.cat([p.reshape(-1) for p in model.parameters()])
        blocks = flat.view(-1, 2)
        motifs = blocks[torch.randperm(len(blocks))[:num_motifs]]
        new = motifs[matrix_product(blocks, motifs)].view(-1)
        start = 0
        for p in model.parameters():
            p.copy_(new[start : start + p.numel()].view(p.shape))
            start += p.numel()


def compare(name: str, num_weights: int, num_motifs: int) -> list[list[str]]:
    generator = torch.Generator().manual_seed(0)
    weights = 0.05 * torch.randn(num_weights, generator=generator)
    model = torch.nn.ParameterDict({"weight": weights})
    config = momos.MosaicConfig(block_size=2, num_motifs=num_motifs)
    blocks = weights.view(-1, 2)
    motifs = momos.sample_motifs(blocks, num_motifs, generator=generator)
    indices = momos.nearest(blocks, motifs)
    index = faiss.IndexFlatL2(2)
    index.add(motifs.numpy())

    ours, gather, selected = seconds(
        lambda: momos.nearest(blocks, motifs),
        lambda: motifs[indices],
        lambda: motifs.index_select(0, indices),
        repeat=15,
    )
    rows = [("gather motifs[indices]", gather), ("gather by index_select", selected)]
    rows.append(("momos.nearest", ours))
    (project,) = seconds(lambda: momos.project_(model, config), repeat=7)
    rows.append(("momos.project_, whole", project))
    (tree,) = seconds(
        lambda: KDTree(motifs.numpy()).query(blocks.numpy(), workers=-1), repeat=3
    )
    rows.append(("SciPy KD-tree", tree))
    if num_weights < 2_000_000:  # beyond, minutes
        (flat,) = seconds(lambda: index.search(blocks.numpy(), 1), repeat=1)
        (product,) = seconds(lambda: matrix_product(blocks, motifs), repeat=1)
        whole = torch.nn.ParameterDict({"weight": weights.clone()})
        (slow,) = seconds(lambda: project_by_matrix_product(whole, num_motifs), repeat=1)
        rows += [("FAISS flat", flat), ("matrix product", product)]
        rows.append(("matrix product, whole projection", slow))
    return [
        [name, what, milliseconds(time), f"{time / ours:.3g}", f"{time / gather:.3g}"]
        for what, time in rows
    ]


if __name__ == "__main__":
    rows = []
    for name, (num_weights, num_motifs) in SHAPES.items():
        rows += compare(name, num_weights, num_motifs)
    table(["network", "what", "time", "÷ momos.nearest", "÷ gather"], rows)
