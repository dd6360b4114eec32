"""k-means of 32 768 blocks of 4 values, k = 256, against FAISS at equal iterations."""

import statistics
import time

import faiss
import torch
from measure import milliseconds, table

import momos

NUM_BLOCKS, BLOCK_SIZE, NUM_MOTIFS, ITERATIONS, SEEDS = 32_768, 4, 256, 25, 9


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
        BLOCK_SIZE, NUM_MOTIFS, niter=ITERATIONS, seed=seed, max_points_per_centroid=10**6
    )
    kmeans.train(blocks.numpy())
    return torch.from_numpy(kmeans.centroids)


def main() -> None:
    blocks = torch.randn(NUM_BLOCKS, BLOCK_SIZE, generator=torch.Generator().manual_seed(0))
    ways = {
        "FAISS": lambda seed: faiss_kmeans(blocks, seed),
        "momos, k-means++": lambda seed: ours(blocks, seed, "kmeans++"),
        "momos, sampled start": lambda seed: ours(blocks, seed, "sample"),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    errors: dict[str, list[float]] = {name: [] for name in ways}
    for seed in range(SEEDS):
        for name, way in ways.items():
            time.sleep(0.02)  # until the threads of the one before have stopped spinning
            begin = time.perf_counter()
            motifs = way(seed)
            times[name].append(time.perf_counter() - begin)
            errors[name].append(distortion(blocks, motifs))
    base_time = statistics.median(times["FAISS"])
    base_error = statistics.mean(errors["FAISS"])
    rows = []
    for name in ways:
        median, mean = statistics.median(times[name]), statistics.mean(errors[name])
        per_million = median / NUM_BLOCKS * 1e6
        rows.append(
            [
                name,
                milliseconds(median),
                f"{per_million:.2g} s",
                f"{base_time / median:.2f}",
                f"{mean:.1f} ± {statistics.stdev(errors[name]):.1f}",
                f"{mean / base_error:.4f}",
            ]
        )
    header = ["k-means", "time", "per million blocks", "FAISS ÷ it", "distortion"]
    table([*header, "÷ FAISS's"], rows)


if __name__ == "__main__":
    main()
