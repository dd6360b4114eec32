"""Sweeps: a grid of cells, written as a TOML file.

[cell]                         # what all cells share
task = "digits"
treatment = "sampled"
epochs = 20
dense_start = true             # each from the dense network of its seed, with it as teacher
[grid]                         # every combination is a cell
seed = [0, 1, 2]
"settings.block_size" = [2, 4, 8]
"settings.capacity" = [0.01, 0.05]
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from itertools import product
from pathlib import Path
from types import MappingProxyType
from typing import Any

from momos.study.cell import OPTIONS, Cell
from momos.study.schema import got
from momos.study.store import Asked

SETTINGS = "settings."
DENSE_START = "dense_start"
NONE: Mapping[str, Any] = MappingProxyType({})
NESTED = ("start", "teacher", "settings")
GIVEN = tuple(field.name for field in fields(Cell) if field.name not in NESTED)


@dataclass(frozen=True)
class Sweep:
    """A name and the cells of a grid."""

    name: str
    cells: tuple[Cell, ...]

    @classmethod
    def read(cls, path: Path, *, options: Mapping[str, Any] = NONE) -> "Sweep":
        """The sweep in a file, named after it; `options` are those of cells that have none.

        Raises:
            ValueError: if the file is no TOML, has unknown parts or keys, or an empty list.
            OSError: if it cannot be read.
        """
        try:
            found = tomllib.loads(path.read_text("utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            message = f"a sweep must be a TOML file, but {path} is none: {error}"
            raise ValueError(message) from None
        if others := ", ".join(sorted(found.keys() - {"cell", "grid"})):
            message = (
                f"a sweep must have the tables cell and grid only, got {others} in {path}"
            )
            raise ValueError(message)
        shared, axes = found.get("cell", {}), found.get("grid", {})
        unset = {n: value for n, value in options.items() if n not in axes}
        return cls(path.stem, tuple(grid(unset | shared, axes)))

    @property
    def asked(self) -> Asked:
        """As run folders name it."""
        return {"name": f"sweep {self.name}", "settings": {}}


def grid(shared: Mapping[str, Any], axes: Mapping[str, Any]) -> list[Cell]:
    """Every combination of the values of `axes`, with what is `shared`; the first axis is outermost."""
    for name in (*shared, *axes):
        _check_name(name)
    if twice := sorted(shared.keys() & axes.keys()):
        raise ValueError(f"keys must be in cell or in grid, got {', '.join(twice)} in both")
    for name, values in axes.items():
        if not isinstance(values, list) or not values:
            raise ValueError(f"{name} must be a list of values in grid, got {values!r}")
    found = [
        _cell(dict(shared) | dict(zip(axes, values, strict=True)))
        for values in product(*axes.values())
    ]
    return list({cell.key: cell for cell in found}.values())


def _cell(values: dict[str, Any]) -> Cell:
    settings = {
        name.removeprefix(SETTINGS): values.pop(name)
        for name in list(values)
        if name.startswith(SETTINGS)
    }
    if not values.pop(DENSE_START, False):
        return Cell(**values, settings=settings)
    kept = ("task", "seed", "network", "epochs", *OPTIONS)
    dense = Cell(**{name: values[name] for name in kept if name in values})
    return Cell(**values, settings=settings, start=dense, teacher=dense)


def _check_name(name: str) -> None:
    known = [*GIVEN, DENSE_START]
    if name in known or (name.startswith(SETTINGS) and len(name) > len(SETTINGS)):
        return
    raise ValueError(
        f"keys of a sweep must be those of a cell or settings.NAME, {got(name, known)}"
    )
