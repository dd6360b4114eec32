"""The paper's MoMos: motifs sampled from the weights, and weights projected onto them.

With levels it is MoMos + QAT (Bakhtiarifard et al. 2026): weights are also whole numbers of steps,
one step for each tensor. Blocks are then drawn and compared in steps, so that a motif shared by
tensors whose steps differ is on the grid of each.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization, remove_parametrizations

import momos
from momos.study.treatments.quantize import least_squares_scales
from momos.study.treatments.treatment import Treatment

LEVELS = tuple(2**bits - 1 for bits in range(2, 9))


@dataclass
class Sampled(Treatment):
    """Motifs drawn from the weights and projected onto, every epoch, or every `every` steps.

    `bits` of a motif value in the file: 32, or 16 by rounding to bfloat16 in the end. With
    `levels`, 2^b − 1 of them with b from 2 to 8, motif values are whole numbers of b bits there,
    and each tensor has its step.
    """

    block_size: int = 2
    capacity: float | None = None
    num_motifs: int | None = None
    bits: Literal[16, 32] = 16
    every: int | None = None
    levels: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.levels is not None and self.levels not in LEVELS:
            raise ValueError(
                f"levels must be one of {', '.join(map(str, LEVELS))}, got {self.levels}"
            )

    def start(self, network: nn.Module, steps: int, *, epochs: float, seed: int) -> None:
        super().start(network, steps, epochs=epochs, seed=seed)
        self._motifs: Tensor | None = None
        self._config = momos.MosaicConfig(
            block_size=self.block_size,
            capacity=self.capacity,
            num_motifs=self.num_motifs,
            seed=seed,
        )
        about: Any = {"every": self.every or max(1, round(steps / max(1, epochs)))}
        projector = momos.Projector
        if self.levels is not None:
            projector, about["levels"] = GridProjector, self.levels
        self._projector = projector(network, self._config, **about)

    def after_step(self) -> None:
        projection = self._projector.step()
        if projection is not None:
            self._motifs = projection.mosaic.motifs

    def finish(self) -> None:
        motifs = self._motifs
        if motifs is None or self._projector.steps % self._projector.every:
            motifs = self._projector.project().mosaic.motifs
        if isinstance(self._projector, GridProjector):
            self._projector.settle_(motifs)
        else:
            motifs = motifs.bfloat16().float() if self.bits == 16 else motifs
            momos.project_(self._network, self._config, motifs=motifs)
        with torch.no_grad():
            for buffer in self._network.buffers():
                if buffer.is_floating_point():
                    buffer.copy_(buffer.bfloat16())

    def file_bytes(self, network: nn.Module, folder: Path) -> int:
        return momos.save(network, folder / "sampled.momos").num_bytes

    def state_dict(self) -> dict[str, Any]:
        return self._projector.state_dict() | {"motifs": self._motifs}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._projector.load_state_dict(state)
        self._motifs = state["motifs"]


class Grid(nn.Module):
    """Weights to whole numbers of one step; gradients pass straight through, all of them.

    The step is that of least squared error, and stays until it is fitted anew. The greatest
    weight's did worse: on Fashion-MNIST, from dense networks of 89.9 %, 15 levels, 3 seeds, it
    left 83, 47 and 39 %, since a few weights that grow make the step coarse for all.
    """

    step: Tensor

    def __init__(self, weight: Tensor, most: int) -> None:
        super().__init__()
        self.most = most
        self.register_buffer("step", torch.ones(1))
        self.fit_(weight)

    @torch.no_grad()
    def fit_(self, weight: Tensor) -> None:
        self.step.copy_(least_squares_scales(weight.detach().reshape(1, -1), self.most))
        self.step.copy_(self.step.bfloat16())

    def whole(self, weight: Tensor) -> Tensor:
        """`weight` in steps, rounded; no −0."""
        return (weight / self.step).round().clamp(-self.most, self.most) + 0.0

    def forward(self, weight: Tensor) -> Tensor:
        return weight + (self.whole(weight) * self.step - weight).detach()


class GridProjector(momos.Projector):
    """A projector of weights in steps: what it leaves are motifs of whole numbers times steps.

    Installs a grid on every parameter that a projection chooses; `settle_` takes them off.
    """

    def __init__(
        self, model: nn.Module, config: momos.MosaicConfig, *, levels: int, every: int
    ) -> None:
        super().__init__(model, config, every=every)
        self.levels = levels
        self.grids: dict[str, Grid] = {}  # by the parameter's name
        layout = momos.Layout.of(model, block_size=config.block_size, min_ndim=1)
        for placement in layout.placements:
            module, name = _place(model, placement.name)
            grid = Grid(getattr(module, name), levels // 2)
            register_parametrization(module, name, grid)
            self.grids[placement.name] = grid

    def project(self) -> momos.Projection:
        latent = {_latent(name): grid for name, grid in self.grids.items()}
        for name, weight in self.model.named_parameters():
            if name in latent:
                latent[name].fit_(weight)
        return self._project(latent)

    def settle_(self, motifs: Tensor) -> None:
        """Makes the weights ordinary ones, and the mosaic of `motifs`."""
        for name in self.grids:
            remove_parametrizations(*_place(self.model, name))
        self._project(self.grids, motifs.float())

    @torch.no_grad()
    def _project(
        self, grids: Mapping[str, Grid], motifs: Tensor | None = None
    ) -> momos.Projection:
        for name, weight in self.model.named_parameters():
            if name in grids:
                weight.copy_(grids[name].whole(weight))
        # Whole steps stay as they are on a grid, so the latent weights are projected as they are.
        projection = momos.project_(
            _bare(self.model), self.config, motifs=motifs, generator=self.generator
        )
        found = projection.mosaic
        steps = tuple(grids[place.name].step for place in found.layout.placements)
        config = replace(self.config, scales="tensor", bits=self.levels.bit_length())
        mosaic = momos.Mosaic(
            found.motifs.to(torch.int8), found.indices, found.layout, steps, config
        )
        mosaic.write_(self.model)
        return replace(projection, mosaic=mosaic)


def _bare(model: nn.Module) -> nn.Module:
    """A module that holds the parameters of `model` under their names, and computes nothing."""
    bare = nn.Module()
    for name, parameter in model.named_parameters(remove_duplicate=False):
        owner = bare
        *prefix, last = name.split(".")
        for part in prefix:
            if part not in owner._modules:
                owner.add_module(part, nn.Module())
            owner = owner.get_submodule(part)
        owner.register_parameter(last, parameter)
    return bare


def _place(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    prefix, _, last = name.rpartition(".")
    return model.get_submodule(prefix), last


def _latent(name: str) -> str:
    """What a parameter is called while something is installed on it."""
    prefix, dot, last = name.rpartition(".")
    return f"{prefix}{dot}parametrizations.{last}.original"
