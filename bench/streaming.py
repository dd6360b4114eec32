"""A checkpoint of 10⁹ weights, compressed and expanded piece by piece.

4 GB of float32 in shards, made and deleted here; each step in a process of its own, so that its
peak of resident memory is its own.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from measure import peak_bytes, table
from safetensors.torch import save_file

import momos

SHARDS, TENSORS, ROWS, COLUMNS = 8, 8, 4096, 3815  # 8 · 8 · 4096 · 3815 = 1.0001 · 10⁹


def make(folder: Path) -> None:
    """Shards as Hugging Face writes them: normal weights, another deviation for each tensor."""
    places = {}
    generator = torch.Generator().manual_seed(0)
    for shard in range(SHARDS):
        file = f"model-{shard + 1:05}-of-{SHARDS:05}.safetensors"
        tensors = {}
        for number in range(TENSORS):
            name = f"layers.{shard * TENSORS + number}.weight"
            scale = 0.01 * (1 + (shard * TENSORS + number) % 7)
            tensors[name] = torch.randn(ROWS, COLUMNS, generator=generator) * scale
            places[name] = file
        save_file(tensors, folder / file, metadata={"format": "pt"})
    index = {"metadata": {"total_size": 4 * weights()}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def weights() -> int:
    return SHARDS * TENSORS * ROWS * COLUMNS


def step(doing: str, folder: Path) -> None:
    """One step, and its time and memory as JSON."""
    packed, dense = folder / "net.momos", folder / "dense.safetensors"
    start = time.perf_counter()
    if doing == "make":
        make(folder)
    elif doing == "compress":
        config = momos.MosaicConfig(block_size=4, num_motifs=256, selection="kmeans")
        momos.compress(folder, packed, config)
    elif doing == "expand":
        momos.expand(packed, dense)
    else:
        with momos.MosaicFile(packed) as file:
            file.verify()
    print(json.dumps({"seconds": time.perf_counter() - start, "peak": peak_bytes()}))


def main() -> None:
    if len(sys.argv) > 1:
        return step(sys.argv[1], Path(sys.argv[2]))
    print(f"{weights() / 1e9:.4f} · 10⁹ float32 weights, s=4, k=256, k-means\n")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for doing in ("make", "compress", "verify", "expand"):
            command = [sys.executable, __file__, doing, folder]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                sys.exit(done.stderr)
            taken = json.loads(done.stdout)
            if doing == "make":
                continue
            rows.append(
                [
                    doing,
                    f"{taken['seconds']:.0f} s",
                    f"{weights() / taken['seconds'] / 1e6:.0f} M weights/s",
                    f"{taken['peak'] / 2**30:.2f} GiB",
                ]
            )
        size = (Path(folder) / "net.momos").stat().st_size
    table(["step", "time", "throughput", "peak resident memory"], rows)
    print(
        f"\nThe file has {size / 1e6:.1f} MB, {4 * weights() / size:.2f} times less than dense."
    )
    return None


if __name__ == "__main__":
    main()
