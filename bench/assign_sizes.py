"""Nearest motif at s = 4, 8, 16 against FAISS flat and SciPy's KD-tree, on a million weights."""

import faiss
import torch
from measure import milliseconds, seconds, table
from scipy.spatial import KDTree

import momos

NUM_WEIGHTS = 1_000_000
TREE_BLOCKS = 20_000  # the tree's time on these is scaled up: it takes seconds otherwise


def compare(block_size: int, num_motifs: int) -> list[str]:
    generator = torch.Generator().manual_seed(0)
    blocks = torch.randn(NUM_WEIGHTS // block_size, block_size, generator=generator)
    motifs = momos.distinct_motifs(
        blocks, num_motifs, zero_motif=False, generator=generator
    )
    index = faiss.IndexFlatL2(block_size)
    index.add(motifs.numpy())
    tree = KDTree(motifs.numpy())
    some = blocks[:TREE_BLOCKS].numpy()
    ours, flat = seconds(
        lambda: momos.nearest(blocks, motifs),
        lambda: index.search(blocks.numpy(), 1),
        repeat=9,
    )
    (walk,) = seconds(lambda: tree.query(some, workers=-1), repeat=2)
    walk *= len(blocks) / len(some)
    agree = (
        momos.nearest(blocks, motifs).numpy() == index.search(blocks.numpy(), 1)[1][:, 0]
    )
    return [
        str(block_size),
        str(num_motifs),
        milliseconds(ours),
        milliseconds(flat),
        milliseconds(walk),
        f"{min(flat, walk) / ours:.2f}",
        f"{100 * (1 - agree.mean()):.4f} %",
    ]


if __name__ == "__main__":
    print(f"FAISS {faiss.__version__} with {faiss.omp_get_max_threads()} threads\n")
    header = ["s", "k", "momos.nearest", "FAISS flat", "KD-tree", "best of both ÷ momos"]
    rows = [compare(s, k) for s in (4, 8, 16) for k in (256, 4096, 16384)]
    table([*header, "indices where FAISS differs"], rows)
