"""The speed of `momos compress` and `momos expand` at the default, their memory, and NNCodec's time.

Weights are Laplace draws, in float32 tensors of 4096², one step in a process and on a thread of its
own; memory is its peak of resident memory. The last table compresses ResNet-56 (untrained without
MOMOS_DATA), in turn with NNCodec at qp −28, where NNCODEC_PYTHON names an interpreter that has it.
`python bench/throughput.py 1e9` takes so many weights instead of 10⁷ and 10⁸.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from compress_methods import Method, methods
from measure import peak_bytes, table
from safetensors.torch import save_file

import momos

SIZES = (10**7, 10**8)
SIDE = 4096
REPEAT = 3


def make(folder: Path, count: int) -> None:
    """So many tensors, in shards as Hugging Face writes them."""
    folder.mkdir()
    generator = torch.Generator().manual_seed(0)
    weight = torch.empty(SIDE, SIDE).exponential_(generator=generator)
    weight *= torch.empty(SIDE, SIDE).bernoulli_(generator=generator) * 2 - 1
    places, shard = {}, {}
    for number in range(count):
        name = f"layers.{number}.weight"
        # the same draws, in another order and size
        shard[name] = (0.01 * (1 + number % 7) * weight).roll(997 * number)
        places[name] = f"model-{number // 10:05}.safetensors"
        if len(shard) == 10 or number == count - 1:
            save_file(shard, folder / places[name], metadata={"format": "pt"})
            shard = {}
    index = {"metadata": {}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def step(doing: str, folder: Path, count: int) -> None:
    """One step, and its time and memory as JSON."""
    torch.set_num_threads(1)
    start = time.perf_counter()
    if doing == "make":
        make(folder / "dense", count)
    elif doing == "compress":
        momos.compress(folder / "dense", folder / "x.momos")
    else:
        momos.expand(folder / "x.momos", folder / "back.safetensors")
    print(json.dumps({"seconds": time.perf_counter() - start, "peak": peak_bytes()}))


def synthetic(num_weights: int) -> list[list[str]]:
    """Steps are processes of a small one, since a child's peak begins at its parent's size."""
    count = max(1, round(num_weights / SIDE**2))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for doing in ("make", "compress", "expand"):
            command = [sys.executable, __file__, doing, folder, str(count)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                sys.exit(done.stderr)
            if doing == "make":
                continue
            taken = json.loads(done.stdout)
            weights, size = count * SIDE**2, (Path(folder) / "x.momos").stat().st_size
            rows.append(
                [
                    f"{weights / 1e6:.0f} M",
                    doing,
                    f"{taken['seconds']:.1f} s",
                    f"{weights / taken['seconds'] / 1e6:.1f} M weights/s",
                    f"{taken['peak'] / 2**30:.2f} GiB",
                    f"{4 * weights / size:.2f}",
                ]
            )
    return rows


def against_nncodec(python: str | None) -> list[list[str]]:
    """Median seconds for ResNet-56, each method in turn."""
    from networks import resnets  # not above: the steps need none of the study

    network = dict(resnets())
    name = next(key for key in network if key.startswith("resnet56"))
    state = network[name].state_dict()
    found = {method.name: method for method in methods(python, [0.1], [-28], {})}
    compared = [(found["momos"], "step 0.1")]
    if python:
        compared.append((found["NNCodec"], "qp -28"))
    taken: dict[str, list[tuple[float, int]]] = {m.name: [] for m, _ in compared}
    for _ in range(REPEAT + 1):
        for method, setting in compared:
            taken[method.name].append(once(method, setting, state))
    medians = {m: statistics.median(s for s, _ in runs[1:]) for m, runs in taken.items()}
    rows = []
    for method, setting in compared:
        seconds = medians[method.name]
        size = taken[method.name][0][1]
        ratio = f"{seconds / medians['NNCodec']:.2f}" if python else "–"
        row = [name, f"{method.name}, {setting}", f"{size:,}", f"{seconds:.2f} s", ratio]
        rows.append(row)
    return rows


def once(method: Method, setting: str, state: dict[str, torch.Tensor]) -> tuple[float, int]:
    with tempfile.TemporaryDirectory() as folder:
        (result,) = method.apply(state, [setting], Path(folder))
    return result.seconds, result.num_bytes


def main(sizes: tuple[int, ...]) -> None:
    rows = [row for size in sizes for row in synthetic(size)]
    table(["weights", "step", "time", "throughput", "peak memory", "times smaller"], rows)
    torch.set_num_threads(1)
    python = os.environ.get("NNCODEC_PYTHON")
    print("" if python else "\nNNCodec is left out: NNCODEC_PYTHON is not set.", end="\n\n")
    table(["network", "how", "bytes", "time", "÷ NNCodec"], against_nncodec(python))


if __name__ == "__main__":
    if sys.argv[1:2] in (["make"], ["compress"], ["expand"]):
        step(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
    else:
        main(tuple(int(float(size)) for size in sys.argv[1:]) or SIZES)
