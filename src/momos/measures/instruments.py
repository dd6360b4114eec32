"""The measures by name: what each describes, its unit, and how it adds up over tensors.

Instruments with the same view share one accumulator, which is fed one tensor at a time.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import momos.measures.accumulators as acc


@dataclass(frozen=True)
class Instrument:
    """A measure: `start` makes its accumulator, and `read` takes the value from it."""

    name: str
    kind: Literal["code", "score"]
    view: str
    unit: Literal["bits", "score", "ratio"]
    ordered: bool
    start: Callable[[], Any]
    read: Callable[[Any], float]
    about: str


SIGN_BDM = Instrument(
    "signs, BDM",
    "score",
    "w > 0",
    "score",
    True,
    acc.SignBlocks,
    acc.SignBlocks.bdm,
    "no bits: saturates once every block of 12 has occurred; only against its shuffles",
)
DEFAULT = (
    Instrument(
        "signs",
        "code",
        "{−, 0, +}",
        "bits",
        False,
        acc.SignCounts,
        acc.SignCounts.bits,
        "bounds the signs by how many of each there are (Krichevsky–Trofimov)",
    ),
    Instrument(
        "signs, order 4",
        "code",
        "{−, 0, +}",
        "bits",
        True,
        acc.SignContexts,
        acc.SignContexts.bits,
        "bounds the signs by what follows four others (Krichevsky–Trofimov)",
    ),
    Instrument(
        "signs, ordered BDM",
        "code",
        "w > 0",
        "bits",
        True,
        acc.SignBlocks,
        acc.SignBlocks.ordered_bits,
        "bounds the signs by blocks of 12, simple ones being cheap to name",
    ),
    Instrument(
        "signs, lzma",
        "code",
        "w > 0, packed",
        "bits",
        True,
        acc.PackedSigns,
        lambda signs: signs.bits("lzma"),
        "bounds the signs by repeats at any distance; up to 0.7 GB of memory a thread",
    ),
    *(
        Instrument(
            f"{bits}-bit codes",
            "code",
            f"{bits} bits between the extremes of each tensor",
            "bits",
            False,
            start,
            acc.Codes.bits,
            f"bounds the weights at {bits} bits by how often each code occurs",
        )
        for bits, start in ((2, acc.Codes2), (4, acc.Codes4), (8, acc.Codes8))
    ),
    Instrument(
        "float fields",
        "code",
        "sign and exponent in their own dtype, mantissa raw",
        "bits",
        False,
        acc.FloatHeads,
        acc.FloatHeads.bits,
        "bounds the weights exactly, to the last bit, by their exponents",
    ),
    SIGN_BDM,
)
PAPER = (
    replace(
        SIGN_BDM,
        about="as in arXiv 2602.14896: 1-D BDM of the signs of all weights in a row",
    ),
    *(
        Instrument(
            f"{name} rate, {what}",
            "score",
            view,
            "ratio",
            True,
            start,
            getattr(acc.Published, name),
            f"as in arXiv 2602.14896: {what} over their {name} -9 size",
        )
        for what, view, start in (
            ("float32", "the weights' bytes as float32", acc.PublishedFloats),
            ("sign bytes", "a byte for each w > 0", acc.PublishedSigns),
        )
        for name in ("gzip", "bz2", "lzma")
    ),
)
QUBD = tuple(
    Instrument(
        "QuBD" if plane is None else f"QuBD, plane {plane}",
        "score",
        "8-bit codes of matrices" if plane is None else f"bit {plane} of 8-bit codes",
        "score",
        True,
        acc.QubdPlanes,
        lambda planes, plane=plane: planes.value(plane),
        "as in arXiv 2605.15551: 2-D BDM of the bit planes, summed over matrices"
        if plane is None
        else "the share of one bit plane",
    )
    for plane in (None, *range(8))
)
COMPRESSORS = (
    *(
        Instrument(
            f"{what}, {name}",
            "code",
            view,
            "bits",
            True,
            start,
            lambda kept, name=name: kept.bits(name),
            f"bounds the {what} by what {name} finds in them, at its strongest",
        )
        for what, view, start in (
            ("signs", "w > 0, packed", acc.PackedSigns),
            ("floats", "byte planes of the weights in their own dtype", acc.BytePlanes),
        )
        for name in ("gzip", "bz2", "lzma", "zstd", "brotli")
    ),
    Instrument(
        "floats, pcodec",
        "code",
        "the weights in their own dtype, tensor by tensor",
        "bits",
        True,
        acc.Pcodec,
        acc.Pcodec.bits,
        "bounds the weights exactly by how their values are spread",
    ),
)
FOUR_BITS = "4 bits between the extremes of each tensor"
SPLIT = (
    Instrument(
        "places",
        "code",
        "w ≠ 0",
        "bits",
        False,
        acc.Places,
        acc.Places.bits,
        "bounds which weights are not zero by nnz · log2 n, as minimum-norm arguments do",
    ),
    Instrument(
        "4-bit split",
        "code",
        FOUR_BITS,
        "bits",
        True,
        acc.Split4,
        acc.Split4.bits,
        "bounds the weights at 4 bits, each tensor with 0, 1 or 2 codes before as context",
    ),
    Instrument(
        "4-bit split, model",
        "score",
        FOUR_BITS,
        "score",
        True,
        acc.Split4,
        lambda split: split.model,
        "the part of this code that says what is frequent: structure that it found",
    ),
    Instrument(
        "4-bit split, residual",
        "score",
        FOUR_BITS,
        "score",
        True,
        acc.Split4,
        lambda split: split.residual,
        "the part of this code that is left when all frequencies are known",
    ),
)
SETS = {
    "default": DEFAULT,
    "paper": PAPER,
    "qubd": QUBD,
    "compressors": COMPRESSORS,
    "split": SPLIT,
}


def choose(measures: str | tuple[str, ...] | list[str]) -> tuple[Instrument, ...]:
    """The instruments of these names or sets, in their order, each once.

    Raises:
        ValueError: if a name is unknown; lists the known ones.
    """
    by_name = {one.name: one for instruments in SETS.values() for one in instruments}
    chosen: dict[tuple[str, str], Instrument] = {}
    if not isinstance(measures, str | tuple | list):
        raise TypeError(f"measures must be a name or several, got {measures!r}")
    for name in (measures,) if isinstance(measures, str) else measures:
        if name not in SETS and name not in by_name:
            known = "; ".join([*SETS, *by_name])
            raise ValueError(f"measures must be among {known}, got {name!r}")
        for one in SETS.get(name, (by_name.get(name),)):
            if one is not None:
                chosen.setdefault((one.name, one.view), one)
    if not chosen:
        raise ValueError("at least one measure must be asked for, got none")
    return tuple(chosen.values())
