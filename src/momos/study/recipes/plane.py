"""The loss between a dense network and a mosaic."""

from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import ClassVar

import torch
from safetensors.torch import load_file
from torch import nn

from momos.study.cells import Cell
from momos.study.landscape import FILE, plane
from momos.study.loss import loss_of
from momos.study.networks import network as network_of
from momos.study.preparation import prepared
from momos.study.recipes.recipe import Recipe
from momos.study.store import WEIGHTS


@dataclass(frozen=True, kw_only=True)
class Plane(Recipe):
    """Are dense network and mosaic in one basin? The loss on the plane through both and their start.

    `batches` of the training data give the loss, at `size` × `size` places; one plane a seed.
    """

    name: ClassVar[str] = "plane"
    network: str = ""
    seeds: int = 1
    tuning: float | None = None
    rate_weight: float = 1.2
    size: int = 21
    batches: int = 8

    def cells(self) -> list[Cell]:
        return [cell for seed in range(self.seeds) for cell in self._of(seed).values()]

    def finish(self, root: Path) -> list[Path]:
        written = []
        for seed in range(self.seeds):
            cells = {name: self.shared(cell) for name, cell in self._of(seed).items()}
            path = (
                root / f"plane-{self.size}-{self.batches}-{cells['mosaic'].folder}" / FILE
            )
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                self._plane(cells, root).to_json(path)
            written.append(path)
        return written

    def _of(self, seed: int) -> dict[str, Cell]:
        start = Cell(task=self.task, network=self.network, seed=seed, epochs=self.epochs)
        dense = replace(start, epochs=self.tuning, start=start, teacher=start)
        settings = {"rate_weight": self.rate_weight, "sensitive": True}
        mosaic = replace(dense, treatment="learned", settings=settings)
        return {"start": start, "dense": dense, "mosaic": mosaic}

    def _plane(self, cells: dict[str, Cell], root: Path):
        (task, _), seed = prepared(cells["start"]), cells["start"].seed
        order = torch.Generator().manual_seed(0)
        data = list(islice(task.batches(order), self.batches))

        @torch.no_grad()
        def loss(network: nn.Module) -> float:
            return sum(float(loss_of(network, *batch)) for batch in data) / len(data)

        states = {n: load_file(root / cell.folder / WEIGHTS) for n, cell in cells.items()}
        network = network_of(self.network, task, seed)
        which = f"{self.task}, {self.network}" if self.network else self.task
        title = f"{which}, seed {seed}: training loss around dense network and mosaic"
        return plane(loss, network, states, size=self.size, title=title)
