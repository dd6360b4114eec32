"""Running from a mosaic: memory and time of loading, generation, and memory of ONNX Runtime.

Each row is a process of its own. Memory is what became resident by it; times are processor time
of one thread, so that they say the same on a busy machine. The parts of ONNX are left out where
onnxruntime is not installed.
"""

import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import torch
from measure import peak_bytes, table
from torch import nn

import momos
from momos.blocks import Layout

LAYERS, SIZE = 4, 4096
MEGABYTE = 1 << 20


def network() -> nn.Module:
    return nn.Sequential(*(nn.Linear(SIZE, SIZE, bias=False) for _ in range(LAYERS)))


def write(path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = ((f"{i}.weight", (SIZE, SIZE), torch.float32) for i in range(LAYERS))
    layout = Layout.cut(4, shapes)
    motifs = torch.randn(256, 4, generator=generator)
    indices = torch.randint(256, (layout.num_blocks,), generator=generator)
    momos.save(momos.Mosaic(motifs, indices, layout), path)


def resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def load(path: str) -> str:
    with torch.device("meta"):
        model = network()
    before, start = resident(), time.process_time()
    report = momos.load_(model, path, compact=True)
    took = time.process_time() - start
    kept, peak = resident() - before, peak_bytes() - before
    weights = LAYERS * SIZE * SIZE
    return (
        f"{kept / MEGABYTE:.0f} MiB, {kept / report.packed_bytes:.2f} × packed; peak "
        f"{peak / report.packed_bytes:.2f} ×; {weights / took / 1e6:.0f} M weights/s"
    )


def load_dense(path: str) -> str:
    model = network()
    before, start = resident(), time.process_time()
    momos.load_(model, path)
    took = time.process_time() - start
    peak = peak_bytes() - before + LAYERS * SIZE * SIZE * 4
    return f"peak {peak / MEGABYTE:.0f} MiB; {LAYERS * SIZE * SIZE / took / 1e6:.0f} M weights/s"


def generate(kind: str) -> str:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=8192,
        hidden_size=768,
        intermediate_size=2048,
        num_hidden_layers=12,
        num_attention_heads=12,
    )
    model = LlamaForCausalLM(config).eval()
    config_ = momos.MosaicConfig(block_size=4, num_motifs=256, min_ndim=2)
    momos.project_(model, config_)
    if kind == "compact":
        momos.compact_(model)
    elif kind == "bfloat16":
        model = model.bfloat16()
    ids = torch.arange(1, 9).view(1, 8)
    model.generate(ids, max_new_tokens=2, do_sample=False)
    start = time.process_time()
    model.generate(ids, max_new_tokens=24, min_new_tokens=24, do_sample=False)
    return f"{24 / (time.process_time() - start):.1f} tokens a second"


def export(path: str) -> None:
    from momos.integrations.onnx import export as write_onnx

    model = network()
    momos.load_(model, path)
    write_onnx(model, (torch.zeros(1, SIZE),), f"{path}.onnx")


def run_onnx(path: str, folded: bool) -> str:
    import onnxruntime

    before = resident()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        f"{path}.onnx",
        options,
        providers=["CPUExecutionProvider"],
        disabled_optimizers=None if folded else ["ConstantFolding"],
    )
    kept = resident() - before
    size = Path(f"{path}.onnx").stat().st_size
    inputs = {session.get_inputs()[0].name: torch.zeros(1, SIZE).numpy()}
    session.run(None, inputs)
    start = time.process_time()
    session.run(None, inputs)
    took = time.process_time() - start
    return f"file {size / MEGABYTE:.1f} MiB; {kept / MEGABYTE:.0f} MiB resident; {took * 1e3:.0f} ms"


ROWS = {
    "load compact": load,
    "load dense": load_dense,
    "generate, 12 layers of 768, dense float32": lambda _: generate("dense"),
    "generate, dense bfloat16": lambda _: generate("bfloat16"),
    "generate, compact": lambda _: generate("compact"),
    "ONNX Runtime": lambda path: run_onnx(path, folded=True),
    "ONNX Runtime, without constant folding": lambda path: run_onnx(path, folded=False),
}


def main() -> None:
    if len(sys.argv) == 3:
        torch.set_num_threads(1)
        name, path = sys.argv[1:]
        print(export(path) if name == "export" else ROWS[name](path))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.momos"
        write(path)
        with_onnx = find_spec("onnxruntime") is not None
        rows = []
        for name in (*(["export"] if with_onnx else []), *ROWS):
            if with_onnx or "ONNX" not in name:
                done = subprocess.run(
                    [sys.executable, "-W", "ignore", __file__, name, path],
                    capture_output=True,
                    text=True,
                    check=True,
                )
                rows.append([name, done.stdout.strip().splitlines()[-1]])
        table(["what", "measured"], [row for row in rows if row[0] != "export"])


if __name__ == "__main__":
    main()
