"""The CTM tables of binary sequences and squares, as arrays (Soler-Toscano et al. 2014).

They are read from the files of the installed package pybdm (MIT), which is not imported: it
needs pkg_resources. Nothing of them is copied here. A block is the integer whose first cell, in
row-major order, is the most significant bit.
"""

import gzip
import hashlib
import io
import pickle
from collections import OrderedDict, defaultdict
from functools import cache
from importlib import metadata
from pathlib import Path

import numpy as np
from jaxtyping import Float64

LONGEST = 12  # cells of the longest sequence with a table
WIDEST = 4  # cells on a side of the widest square with a table
SEQUENCES = "ctm-b2-d12.pkl.gz"
SQUARES = "ctm-b2-d4x4.pkl.gz"
SHA256 = {
    SEQUENCES: "d97c1c3f59876353d3ef4d8b38087fd0ff447f4ac473dbe9b35b7ef7058a7eb1",
    SQUARES: "d6e8ad059099c313fe4e1867721b7bf125883d8b783ceff5abb36e870537241a",
}
PLAIN = {
    ("collections", "OrderedDict"): OrderedDict,
    ("collections", "defaultdict"): defaultdict,
}


@cache
def sequence_table(length: int) -> Float64[np.ndarray, " blocks"]:
    """The CTM value of each binary sequence of 1 to 12 cells.

    Raises:
        ImportError: if pybdm is not installed.
        ValueError: if its file is not that of pybdm 0.1.0.
    """
    if not 1 <= length <= LONGEST:
        raise ValueError(f"length must be 1 to {LONGEST}, got {length}")
    return _dense(_read(SEQUENCES)[length,], length)


@cache
def square_table(side: int) -> Float64[np.ndarray, " blocks"]:
    """The CTM value of each binary square of 1 to 4 cells on a side.

    Raises:
        ImportError: if pybdm is not installed.
        ValueError: if its file is not that of pybdm 0.1.0.
    """
    if not 1 <= side <= WIDEST:
        raise ValueError(f"side must be 1 to {WIDEST}, got {side}")
    return _dense(_read(SQUARES)[side, side], side * side)


def _dense(values: dict[str, float], cells: int) -> Float64[np.ndarray, " blocks"]:
    """One value for each block: a block and its complement share theirs."""
    table = np.empty(1 << cells)
    codes = np.array([int(key, 2) for key in values])
    table[codes] = table[codes ^ (len(table) - 1)] = list(values.values())
    table.flags.writeable = False  # it is shared by all who ask
    return table


def _read(name: str) -> dict[tuple[int, ...], dict[str, float]]:
    path = _locate(name)
    packed = path.read_bytes()
    found = hashlib.sha256(packed).hexdigest()
    if found != SHA256[name]:
        raise ValueError(
            f"the CTM tables must be those of pybdm 0.1.0, with sha256 {SHA256[name]}, got "
            f"{found} for {path}"
        )
    return _Plain(io.BytesIO(gzip.decompress(packed))).load()


def _locate(name: str) -> Path:
    try:
        package = metadata.distribution("pybdm")
    except metadata.PackageNotFoundError:
        raise ImportError(
            'momos.bdm needs the CTM tables of pybdm: pip install "mosaic-of-motifs[bdm]"'
        ) from None
    return Path(str(package.locate_file(f"pybdm/ctmdata/{name}")))


class _Plain(pickle.Unpickler):
    """Reads dictionaries and what they hold, and can make nothing else."""

    def find_class(self, module: str, name: str) -> type:
        if (module, name) not in PLAIN:
            raise pickle.UnpicklingError(
                f"a CTM table must hold dictionaries alone, got {module}.{name}"
            )
        return PLAIN[module, name]
