"""The settings of `momos compress` from its options, of which those not given are None."""

import re
from typing import Any

import typer

from momos.config import LatticeConfig, MosaicConfig

SIZES = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9} | {
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
}
BANK = {"block_size": 4, "min_ndim": 1, "selection": "kmeans"}  # defaults for a bank


def compress_config(
    shared: dict[str, Any], lattice: dict[str, Any], bank: dict[str, Any]
) -> MosaicConfig | LatticeConfig:
    """What to compress by: a bank, if its size is given, else a lattice.

    Raises:
        ValueError: if options for the one are given with those for the other.
    """
    banked = bank["num_motifs"] is not None or bank["capacity"] is not None
    found, others = (bank, lattice) if banked else (lattice, bank)
    if surplus := [_option(name) for name, value in others.items() if value is not None]:
        needed = "without" if banked else "with"
        raise ValueError(
            f"{surplus[0]} must be given {needed} --num-motifs or --capacity, got it "
            f"{'with' if banked else 'without'}"
        )
    given = {name: value for name, value in (shared | found).items() if value is not None}
    return MosaicConfig(**(BANK | given)) if banked else LatticeConfig(**given)


def check_search(
    evaluate: str | None,
    max_drop: float | None,
    targets: dict[str, Any],
    bank: dict[str, Any],
) -> None:
    """Refuses options that exclude each other where an evaluation chooses the step.

    Raises:
        ValueError: if `evaluate` or `max_drop` is given alone, or with other options.
    """
    if (evaluate is None) != (max_drop is None):
        given, other = (
            ("--max-drop", "--evaluate")
            if evaluate is None
            else (
                "--evaluate",
                "--max-drop",
            )
        )
        raise ValueError(
            f"{given} must be given with {other}, got it without"
            + " (how much lower the metric may be, in its own units)"
            * (evaluate is not None)
        )
    if evaluate is not None:
        _check_alone("--evaluate", targets | bank)


def check_lossless(others: dict[str, Any]) -> None:
    """Refuses options, by name, that change or choose what becomes blocks.

    Raises:
        ValueError: if one is given.
    """
    _check_alone("--lossless", others)


def _check_alone(option: str, others: dict[str, Any]) -> None:
    for name, value in others.items():
        if value is not None:
            raise ValueError(f"{option} must be given without {_option(name)}, got both")


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def num_bytes(text: str) -> int:
    """A number of bytes as people write it: 100kB, 1.5MB, 2MiB, 4096."""
    parts = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", text)
    if parts is None or parts[2].lower() not in SIZES:
        raise typer.BadParameter(f"a size must be like 100kB, 2MB or 4096, got {text!r}")
    return int(float(parts[1]) * SIZES[parts[2].lower()])
