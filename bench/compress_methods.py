"""The ways to make a network small that compress.py compares.

Each gives bytes and the weights that come back, for each of its settings. What has fewer than two
dimensions is bfloat16 in all but NNCodec, which codes it too.
"""

import hashlib
import inspect
import lzma
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

import momos

STEPS = (0.05, 0.07, 0.1, 0.14, 0.2, 0.28, 0.4, 0.56, 0.8, 1.1, 1.5)
QUALITIES = tuple(range(-38, -7, 2))
BITS = (8, 7, 6, 5, 4, 3)
BANKS = ((4096, 0.005), (256, 0.02), (256, 0.05))  # motifs of two weights, and λ
SOURCE = Path(momos.__file__).parent
State = dict[str, Tensor]


@dataclass(frozen=True)
class Result:
    setting: str
    num_bytes: int
    state: State
    seconds: float


@dataclass(frozen=True)
class Method:
    """`apply` takes a state dict, settings, and an empty folder.

    `version` names what the results depend on besides the setting.
    """

    name: str
    settings: tuple[str, ...]
    version: str
    apply: Callable[[State, Sequence[str], Path], Iterator[Result]]


def methods(
    python: str | None,
    steps: Sequence[float],
    qualities: Sequence[float],
    options: dict[str, Any],
) -> list[Method]:
    """`python` is an interpreter that has NNCodec; `options` are further ones of the lattice."""
    also = "".join(f", {name} {value}" for name, value in options.items())
    lattice = {
        f"step {step:g}{also}": momos.LatticeConfig(step=step, **options) for step in steps
    }
    banks = {
        f"{k} pairs, λ {weight:g}": momos.MosaicConfig(
            block_size=2,
            num_motifs=k,
            selection="kmeans",
            min_ndim=2,
            scales="tensor",
            rate_weight=weight,
            bits=8,
            dense_dtype="bfloat16",
        )
        for k, weight in BANKS
    }
    xz = hashlib.sha256(inspect.getsource(by_integers).encode()).hexdigest()[:12]
    found = [
        Method("int + xz", tuple(f"{b} bits" for b in BITS), xz, _integers),
        Method("momos", tuple(lattice), source_hash(), partial(_momos, lattice)),
        Method("momos, bank", tuple(banks), source_hash(), partial(_momos, banks)),
    ]
    if python:
        settings = tuple(f"qp {quality:g}" for quality in qualities)
        apply = partial(_nncodec, python)
        found.append(Method("NNCodec", settings, nncodec_version(python), apply))
    return found


def source_hash() -> str:
    """Of all of momos that can change a file or the time it takes."""
    found = hashlib.sha256()
    for path in sorted(SOURCE.rglob("*")):
        if path.suffix in {".py", ".cpp", ".h", ".hpp"} and "study" not in path.parts:
            found.update(path.read_bytes())
    return found.hexdigest()[:12]


def _dense(state: State, settings: Sequence[str], folder: Path) -> Iterator[Result]:
    size = sum(value.nbytes for value in state.values() if value.is_floating_point())
    yield Result(settings[0], size, state, 0.0)


DENSE = Method("dense", ("float32",), "1", _dense)


def _momos(
    configs: Mapping[str, momos.MosaicConfig | momos.LatticeConfig],
    state: State,
    settings: Sequence[str],
    folder: Path,
) -> Iterator[Result]:
    source, path = folder / "x.safetensors", folder / "x.momos"
    save_file(state, source)
    for setting in settings:
        start = time.perf_counter()
        momos.compress(source, path, configs[setting])
        seconds = time.perf_counter() - start
        yield Result(setting, path.stat().st_size, momos.load(path).state_dict(), seconds)


def _integers(state: State, settings: Sequence[str], folder: Path) -> Iterator[Result]:
    for setting in settings:
        start = time.perf_counter()
        data, found = by_integers(int(setting.split()[0]), state)
        yield Result(setting, len(data), found, time.perf_counter() - start)


def by_integers(bits: int, state: State) -> tuple[bytes, State]:
    """Whole numbers with a scale for each output channel, by its largest weight; all through xz."""
    found, parts = {}, []
    for name, value in state.items():
        if value.ndim < 2:
            rounded = value.bfloat16() if value.is_floating_point() else value
            found[name] = rounded.to(value.dtype)
            parts.append(_bytes(rounded))
            continue
        rows = value.flatten(1)
        scale = (rows.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)).clamp(min=1e-12)
        whole = (rows / scale).round()
        found[name] = (whole * scale).view_as(value)
        parts += [_bytes(whole.to(torch.int8)), _bytes(scale)]
    return lzma.compress(b"".join(parts), preset=9), found


def _bytes(value: Tensor) -> bytes:
    return value.reshape(-1).view(torch.uint8).numpy().tobytes()


def _nncodec(
    python: str, state: State, settings: Sequence[str], folder: Path
) -> Iterator[Result]:
    kept = {n: v.contiguous() for n, v in state.items() if v.is_floating_point()}
    torch.save(kept, folder / "x.pt")
    qualities = [setting.split()[1] for setting in settings]
    script = Path(__file__).with_name("compress_nncodec.py")
    command = [python, str(script), str(folder), *qualities]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    for setting, quality in zip(settings, qualities, strict=True):
        found, num_bytes, seconds = torch.load(folder / f"{quality}.pt")
        yield Result(setting, num_bytes, found, seconds)


def nncodec_version(python: str) -> str:
    command = [python, "-c", "from importlib.metadata import *; print(version('nncodec'))"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return done.stdout.strip()
