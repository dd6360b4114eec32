"""How small files are: against entropy and bound, and against general compressors.

All sizes in bytes. `entropy` is motifs, m·H(usage) and its table; `left` is what the dense tensors
take uncompressed. A file shall have at most entropy + 1 % + 4 KiB + left bytes (`limit`), and at
most the bound + 4 KiB + left. The compressors get the bytes of all tensors, as they are after
projection, float32, one behind another: gzip -9, bz2 -9, lzma, zstd -19, ZipNN.
"""

import bz2
import gzip
import lzma
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
import zipnn
import zstandard
from measure import table
from torch import nn

import momos
from networks import SETTINGS, demo_networks, described, resnets, vit


def projected() -> Iterator[tuple[str, nn.Module]]:
    yield from demo_networks()
    for config in SETTINGS:
        for name, model in resnets():
            momos.project_(model, config)
            yield f"{name}, {described(config)}", model
    model = vit()
    momos.project_(model, SETTINGS[0])
    yield f"ViT-Tiny's size, {described(SETTINGS[0])}", model


def others(data: bytes) -> dict[str, int]:
    """Bytes that general compressors make of `data`."""
    zipped = zipnn.ZipNN(input_format="byte", bytearray_dtype="float32")
    return {
        "gzip": len(gzip.compress(data, 9)),
        "bz2": len(bz2.compress(data, 9)),
        "lzma": len(lzma.compress(data)),
        "zstd": len(zstandard.ZstdCompressor(level=19).compress(data)),
        "ZipNN": len(zipped.compress(bytearray(data))),  # it changes what it is given
    }


def main() -> None:
    rows, missed = [], []
    with tempfile.TemporaryDirectory() as folder:
        for name, model in projected():
            report = momos.save(model, Path(folder) / "net.momos")
            assert report.lengths is not None
            left = report.dense_bytes - 4 * report.lengths.num_weights
            limit = 1.01 * report.lengths.entropy / 8 + 4096 + left
            bound = report.lengths.bound / 8 + 4096 + left
            if report.num_bytes > min(limit, bound):
                missed.append(name)
            data = b"".join(
                tensor.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
                for tensor in model.state_dict().values()
            )
            sizes = [report.lengths.entropy / 8, left, limit, report.num_bytes]
            ratio = f"{report.num_bytes / (report.lengths.entropy / 8 + left):.3f}"
            rows.append(
                [name, str(len(data)), *(f"{size:.0f}" for size in sizes), ratio]
                + [str(size) for size in others(data).values()]
            )
    header = [
        "network",
        "dense",
        "entropy",
        "left",
        "limit",
        "file",
        "file / (entropy + left)",
    ]
    table([*header, "gzip", "bz2", "lzma", "zstd", "ZipNN"], rows)
    print(f"\nAbove its limit: {', '.join(missed) or 'none'}.")


if __name__ == "__main__":
    main()
