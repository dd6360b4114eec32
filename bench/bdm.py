"""BDM of random bits against pybdm, in one and two dimensions, and QuBD of a network's weights.

The values of both are compared too: they differ by the order of their sums alone.
"""

import io
import math
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from measure import milliseconds, seconds, table

from momos.complexity import bdm, ordered_bdm, qubd

SIZES = {1: [10**6, 10**7], 2: [10**6, 10**7]}
WEIGHTS = [(1024, 784), (3420, 3421)]  # 11.7 million are those of a ResNet-18


def with_resources() -> ModuleType:
    """pybdm, with the one function that it needs of pkg_resources, gone from setuptools 82."""
    folder = Path(str(metadata.distribution("pybdm").locate_file("pybdm/ctmdata")))
    shim = ModuleType("pkg_resources")
    vars(shim)["resource_stream"] = lambda _, name: io.BytesIO((folder / name).read_bytes())
    sys.modules["pkg_resources"] = shim
    import pybdm

    return pybdm


def steady(action: Callable[[], object]) -> float:
    """Time of one of ten in a row, as pybdm too is at it for long enough to be in its stride."""
    (ten,) = seconds(lambda: [action() for _ in range(10)])
    return ten / 10


def compare(pybdm: ModuleType) -> list[list[str]]:
    rows = []
    for ndim, sizes in SIZES.items():
        theirs = pybdm.BDM(ndim)
        for size in sizes:
            side = math.isqrt(size)
            shape = (size,) if ndim == 1 else (side, side)
            bits = np.random.default_rng(0).integers(0, 2, shape, dtype=np.uint8)
            tensor = torch.from_numpy(bits).bool()
            ours = steady(lambda b=bits, n=ndim: bdm(b, ndim=n))
            of_tensor = steady(lambda t=tensor, n=ndim: bdm(t, ndim=n))
            ordered = steady(lambda b=bits, n=ndim: ordered_bdm(b, ndim=n))
            # pybdm once, since it takes seconds; its tables are read already.
            values = [bdm(bits, ndim=ndim)]
            (slow,) = seconds(
                lambda b=bits, m=theirs, v=values: v.append(m.bdm(b)), repeat=1
            )
            apart = abs(values[0] / values[1] - 1)
            rows.append(
                [
                    " × ".join(map(str, shape)),
                    milliseconds(slow),
                    milliseconds(ours),
                    f"{slow / ours:.0f}",
                    milliseconds(of_tensor),
                    milliseconds(ordered),
                    f"{apart:.1e}",
                ]
            )
    return rows


def weigh() -> list[list[str]]:
    rows = []
    for shape in WEIGHTS:
        weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        central, whole, fine = seconds(
            lambda w=weight: qubd(w),
            lambda w=weight: qubd(w, percentile=None),
            lambda w=weight: qubd(w, bits=16),
            repeat=3,
        )
        times = [milliseconds(time) for time in (central, whole, fine)]
        rows.append([f"{weight.numel():,}".replace(",", " "), *times])
    return rows


def main() -> None:
    header = ["random bits", "pybdm", "momos.bdm", "pybdm ÷ momos.bdm", "of a bool tensor"]
    table([*header, "ordered_bdm", "values apart by"], compare(with_resources()))
    print()
    table(["weights", "qubd, 8 bits, 99.9 %", "8 bits, whole range", "16 bits"], weigh())


if __name__ == "__main__":
    main()
