"""k-means against FAISS at equal iterations, 32 768 blocks, k = 256: normal and heavy-tailed weights."""

import statistics
import time
from functools import partial

import faiss
import torch
from measure import milliseconds, table

import momos

NUM_BLOCKS, NUM_MOTIFS, ITERATIONS, SEEDS = 32_768, 256, 25, 9
STARTS = ("spread", "sample")


def distortion(blocks: torch.Tensor, motifs: torch.Tensor) -> float:
    own = motifs[momos.nearest(blocks, motifs)]
    return float((blocks.double() - own.double()).square().sum())


def ours(blocks: torch.Tensor, seed: int, start: str) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return momos.kmeans_motifs(
        blocks,
        NUM_MOTIFS,
        zero_motif=False,
        start=start,  # pyright: ignore[reportArgumentType]
        iterations=ITERATIONS,
        generator=generator,
    )


def faiss_kmeans(blocks: torch.Tensor, seed: int) -> torch.Tensor:
    kmeans = faiss.Kmeans(
        blocks.shape[1],
        NUM_MOTIFS,
        niter=ITERATIONS,
        seed=seed,
        max_points_per_centroid=10**6,
    )
    kmeans.train(blocks.numpy())
    return torch.from_numpy(kmeans.centroids)


def heavy_tailed(size: int) -> torch.Tensor:
    """Normal weights of which one in a thousand is 30 times larger."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(NUM_BLOCKS, size, generator=generator)
    far = torch.rand(weights.shape, generator=generator) < 1e-3
    return torch.where(far, 30 * weights, weights)


def main() -> None:
    normal = torch.randn(NUM_BLOCKS, 4, generator=torch.Generator().manual_seed(0))
    rows = compared("normal, s=4", normal)
    rows += compared("heavy tails, s=2", heavy_tailed(2))
    rows += compared("heavy tails, s=1", heavy_tailed(1))
    header = ["weights", "k-means", "time", "per million blocks", "FAISS ÷ it"]
    table([*header, "distortion", "÷ FAISS's"], rows)


def compared(name: str, blocks: torch.Tensor) -> list[list[str]]:
    """One row for each way to find the motifs of `blocks`."""
    ways = {"FAISS": partial(faiss_kmeans, blocks)} | {
        f"momos, {start}": partial(ours, blocks, start=start) for start in STARTS
    }
    times: dict[str, list[float]] = {way: [] for way in ways}
    errors: dict[str, list[float]] = {way: [] for way in ways}
    for seed in range(SEEDS):
        for way, find in ways.items():
            time.sleep(0.02)  # until the threads of the one before have stopped spinning
            begin = time.perf_counter()
            motifs = find(seed=seed)
            times[way].append(time.perf_counter() - begin)
            errors[way].append(distortion(blocks, motifs))
    base_time = statistics.median(times["FAISS"])
    base_error = statistics.mean(errors["FAISS"])
    rows = []
    for way in ways:
        median, mean = statistics.median(times[way]), statistics.mean(errors[way])
        rows.append(
            [
                name,
                way,
                milliseconds(median),
                f"{median / NUM_BLOCKS * 1e6:.2g} s",
                f"{base_time / median:.2f}",
                f"{mean:.1f} ± {statistics.stdev(errors[way]):.1f}",
                f"{mean / base_error:.4f}",
            ]
        )
    return rows


if __name__ == "__main__":
    main()
