"""Learned motifs as a treatment: latent weights trained through their mosaic."""

from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from torch.nn.functional import cross_entropy

import momos
from momos.study.tasks.task import device_of
from momos.study.treatments.treatment import Treatment

CALIBRATION = 4  # batches that sensitivities are measured on
PARTS = 8  # that each of them is cut into


@dataclass
class Learned(Treatment):
    """`parametrize_` with `learn="weights"`, `Reassign`, `freeze_`.

    `dense`, `ramp`, `fixed` and `every` are those of `Reassign`; `sensitive` weighs errors by
    the sensitivity of each tensor, to the power of `power`, where the network starts trained;
    `fold` moves channel scales into normalizations. `learn="motifs"` trains motifs by gradient.
    With `whole`, motifs are whole numbers and training is towards a file of `target_bytes`
    (`Shrink`), or at `rate_weight` in loss per bit where that is 0.
    """

    block_size: int = 2
    num_motifs: int = 64
    rate_weight: float = 0.5
    bits: int = 8
    scales: Literal["none", "tensor", "channel"] = "tensor"
    dense_dtype: Literal["float32", "float16", "bfloat16"] = "bfloat16"
    learn: Literal["weights", "motifs"] = "weights"
    every: int = 1
    dense: float = 0.0
    ramp: float = 0.6
    fixed: float = 0.15
    sensitive: bool = False
    power: float = 1.0
    fold: bool = False
    whole: bool = False
    target_bytes: int = 0
    min_ndim: int = 2
    groups: tuple[tuple[str, ...], ...] = ()

    @property
    def settled(self) -> float:
        """Before its end of the ramp the rate weight is not all there, and files are larger."""
        if self.learn == "motifs":
            return 0.0
        if self.target_bytes:
            return 1.0
        return self.ramp if self.rate_weight else self.dense

    def start(self, network: nn.Module, steps: int, *, epochs: float, seed: int) -> None:
        super().start(network, steps, epochs=epochs, seed=seed)
        if self.fold:
            momos.fold_scales_(network, self._batches(network, seed)[0][0])
        momos.parametrize_(
            network,
            self._config(seed),
            learn=self.learn,
            importance=self._sensitivities(network, seed) if self.sensitive else None,
        )
        self._schedule = self._scheduled(network, steps)

    def _config(self, seed: int) -> momos.MosaicConfig:
        names = ("rate_weight", "bits", "scales", "dense_dtype", "min_ndim")
        own: dict[str, Any] = {"selection": "whole"} if self.whole else {}
        if not self.whole:
            names += ("block_size", "num_motifs", "groups")
        settings = {name: getattr(self, name) for name in names}
        return momos.MosaicConfig.learned(seed=seed, **own, **settings)

    def _scheduled(self, network: nn.Module, steps: int) -> momos.Reassign | None:
        if self.learn == "motifs":
            return None
        parts: dict[str, Any] = {
            name: getattr(self, name) for name in ("every", "dense", "ramp")
        }
        parts["total_steps"] = steps
        if self.target_bytes:
            return momos.Shrink(network, target_bytes=self.target_bytes, **parts)
        return momos.Reassign(network, fixed=self.fixed, **parts)

    def after_backward(self) -> None:
        if self._schedule is not None:
            self._schedule.pull_()

    def after_step(self) -> None:
        if self._schedule is not None:
            self._schedule.step()

    def finish(self) -> None:
        momos.freeze_(self._network)

    def file_bytes(self, network: nn.Module, folder: Path) -> int:
        return momos.save(network, folder / "learned.momos").num_bytes

    def state_dict(self) -> dict[str, Any]:
        return {} if self._schedule is None else self._schedule.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if self._schedule is not None:
            self._schedule.load_state_dict(state)

    def _batches(
        self, network: nn.Module, seed: int
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        if self.task is None:
            raise ValueError("a task must be given to calibrate on, got none")
        order, place = torch.Generator().manual_seed(seed), device_of(network)
        batches = islice(self.task.batches(order), CALIBRATION)
        return [
            part
            for inputs, targets in batches
            for part in zip(
                inputs.to(place).chunk(PARTS), targets.to(place).chunk(PARTS), strict=True
            )
        ]

    def _sensitivities(self, network: nn.Module, seed: int) -> dict[str, float]:
        """With classes drawn from the network's own outputs, softened: a trained network makes
        too few mistakes for its own labels to tell much."""
        generator = torch.Generator().manual_seed(seed)

        def loss(batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
            outputs = network(batch[0]).flatten(0, -2) / 2
            shares = outputs.detach().softmax(1)
            drawn = torch.multinomial(shares.cpu(), 1, generator=generator)[:, 0]
            return cross_entropy(outputs, drawn.to(outputs.device))

        found = momos.sensitivities(network, self._batches(network, seed), loss)
        return {name: value**self.power for name, value in found.items()}
