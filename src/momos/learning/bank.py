"""The one bank of a network whose motifs are learned: motifs, indices, scales.

It is registered once, at the root of the network; the tiles of all parameters read from it.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Float32, Int, Int32
from torch import Tensor, nn

from momos.blocks import Placement
from momos.gather import gather, gather_, straight_through
from momos.learning.fitting import Fitting
from momos.mosaic import Mosaic, usage_of
from momos.rounding import grid_step, stored_dtype, whole_steps
from momos.scales import spread

Learn = Literal["motifs", "weights"]
NAME = "momos"  # under which the bank is registered in a network


class Bank(nn.Module):
    """Motifs (k, s), indices (m,) and scales, in the order of `layout`.

    `motifs` is a parameter where motifs are learned by gradient, else a buffer. While `started`
    is 0 the network is still dense.
    """

    motifs: Float[Tensor, "k s"]
    indices: Int32[Tensor, " m"]
    scales: Float32[Tensor, " c"]
    step: Float32[Tensor, ""]
    zeros: Bool[Tensor, "k 1"]
    started: Tensor
    settings: Tensor  # those that say what the other tensors mean

    def __init__(
        self,
        fitting: Fitting,
        learn: Learn,
        motifs: Float[Tensor, "k s"],
        indices: Int32[Tensor, " m"],
        scales: tuple[Float32[Tensor, " c"], ...] | None,
    ) -> None:
        super().__init__()
        layout, config = fitting.layout, fitting.config
        self.fitting, self.layout, self.config, self.learn = fitting, layout, config, learn
        self.tiles: list[Any] = []  # those that read from here; not submodules
        if learn == "motifs":
            self.motifs = nn.Parameter(motifs)
        else:
            self.register_buffer("motifs", motifs)
        self.register_buffer("indices", indices)
        counts = [] if scales is None else [len(scale) for scale in scales]
        self.register_buffer("scales", torch.cat(scales) if scales else motifs.new_zeros(0))
        self.register_buffer("step", torch.ones((), device=motifs.device))
        zeros = fitting.zero_motifs.to(motifs.device)
        self.register_buffer("zeros", zeros[:, None], persistent=False)
        self.register_buffer("started", torch.ones((), dtype=torch.uint8))
        settings = torch.tensor([config.bits, config.zero_motif], dtype=torch.uint8)
        self.register_buffer("settings", settings)
        # `started` as a plain value, which compiled code can be guarded by
        self.learning = True
        ends = torch.tensor([0, *counts]).cumsum(0).tolist()
        self._spans = {
            place.name: (ends[i], ends[i + 1])
            for i, place in enumerate(layout.placements if counts else ())
        }
        self.fit_step_()

    def _load_from_state_dict(
        self,
        state_dict,
        prefix,
        local_metadata,
        strict,
        missing_keys,
        unexpected_keys,
        error_msgs,
    ) -> None:
        if why := self._why_not(state_dict, prefix):
            error_msgs.append(why)  # which torch raises
            return
        super()._load_from_state_dict(
            state_dict,
            prefix,
            local_metadata,
            strict,
            missing_keys,
            unexpected_keys,
            error_msgs,
        )
        self.start_(learning=bool(self.started))

    def _why_not(self, state_dict: Mapping[str, Tensor], prefix: str) -> str:
        """What is wrong with a state that is not of such a bank."""
        for name, own in (*self._parameters.items(), *self._buffers.items()):
            given = state_dict.get(prefix + name)
            if own is None or given is None or name in self._non_persistent_buffers_set:
                continue
            if given.shape != own.shape:
                return (
                    f"{prefix}{name} must have shape {tuple(own.shape)}, got "
                    f"{tuple(given.shape)} of another config"
                )
            if name == "settings" and given.tolist() != own.tolist():
                return (
                    f"bits and zero_motif must be {own.tolist()}, got {given.tolist()} of "
                    "another config"
                )
            if name == "indices" and int(given.max()) >= len(self.motifs):
                return (
                    f"{prefix}{name} must be below {len(self.motifs)}, got "
                    f"{int(given.max())}"
                )
        return ""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Bank":
        """Motifs and scales move with the network, but only its weights change dtype."""

        def moved(tensor: Tensor) -> Tensor:
            found = fn(tensor)
            return found if found.dtype == tensor.dtype else tensor.to(found.device)

        super()._apply(moved, recurse)
        places = self.layout.placements
        found = {p.dtype: fn(self.motifs.new_empty(0, dtype=p.dtype)).dtype for p in places}
        if any(kept != new for kept, new in found.items()):
            places = tuple(replace(place, dtype=found[place.dtype]) for place in places)
            self.layout = replace(self.layout, placements=places)
            self.fitting = replace(self.fitting, layout=self.layout)
            for tile, place in zip(self.tiles, places, strict=True):
                tile.place = place
            self._update_tiles_()
        return self

    @torch.no_grad()
    def start_(self, *, learning: bool) -> None:
        """Lets the network see the mosaic, or its dense weights."""
        self.started.fill_(learning)
        self.learning = learning
        self._update_tiles_()

    @torch.no_grad()
    def update_(self, usage: Int[Tensor, " k"] | None = None) -> None:
        """After motifs or indices have changed: the step of the grid, and every tile.

        `usage` is that of the indices, where it is known.
        """
        self.fit_step_(usage)
        self._update_tiles_()

    def _update_tiles_(self) -> None:
        stored = self.stored()
        for tile in self.tiles:
            tile.update_(stored)

    @property
    def on_grid(self) -> bool:
        """Whether motifs are stored as whole numbers of steps."""
        return self.config.bits <= 8

    @torch.no_grad()
    def fit_step_(self, usage: Int[Tensor, " k"] | None = None) -> None:
        """Chooses the step of the grid for the motifs as they are now."""
        if self.on_grid:
            if usage is None:
                usage = self.usage()
            self.step.copy_(grid_step(self.motifs, usage, self.config.bits))

    def usage(self) -> Int[Tensor, " k"]:
        """How many blocks use each motif."""
        return usage_of(self.indices, len(self.motifs))

    def scale(self, place: Placement) -> Float32[Tensor, " c"] | None:
        """What stored motifs are multiplied by in one parameter, if by anything."""
        if not self._spans:
            return self.step.float().reshape(1) if self.on_grid else None
        start, stop = self._spans[place.name]
        scale = self.scales[start:stop].float()
        return scale * self.step.float() if self.on_grid else scale

    def plain_scales(self) -> tuple[Float32[Tensor, " c"], ...] | None:
        """The scales of all parameters, without the step of the grid."""
        if not self._spans:
            return None
        return tuple(self.scales[start:stop] for start, stop in self._spans.values())

    def stored(self) -> Float[Tensor, "k s"]:
        """The values that are stored; gradients pass through the rounding (straight through)."""
        motifs = self.motifs.masked_fill(self.zeros, 0)  # the zero motif gets no gradient
        if self.on_grid:
            steps = motifs / self.step
            return straight_through(
                steps, whole_steps(motifs, self.step, self.config.bits).detach()
            )
        dtype = stored_dtype(self.config.bits, motifs.dtype)
        if dtype == motifs.dtype:
            return motifs
        return straight_through(motifs, motifs.detach().to(dtype).to(motifs.dtype))

    def weight(self, place: Placement) -> Tensor:
        """The values of one parameter, as the frozen network will have them, bit for bit."""
        indices = self.indices[place.start : place.stop]
        motifs, scale, wide = self._scaled(place, self.stored())
        flat = gather(motifs, indices).view(-1)[: place.num_weights]
        if scale is not None:
            count = place.num_weights
            flat = flat.to(wide) * spread(scale, count, 0, count).to(wide)
        return flat.to(place.dtype).view(place.shape)

    def write_(self, value: Tensor, place: Placement, stored: Float[Tensor, "k s"]) -> None:
        """Writes `weight(place)` into `value`, from what `stored` returned, without gradient."""
        motifs, scale, _ = self._scaled(place, stored)
        if scale is not None:
            value.copy_(self.weight(place))
            return
        indices = self.indices[place.start : place.stop]
        gather_(value.view(-1), motifs.to(place.dtype), indices)

    def _scaled(
        self, place: Placement, stored: Tensor
    ) -> tuple[Tensor, Tensor | None, torch.dtype]:
        """The motifs of one parameter, the scales still to be applied, and the dtype of both."""
        scale = self.scale(place)
        wide = torch.float64 if place.dtype == torch.float64 else torch.float32
        if scale is not None and len(scale) == 1:  # the same products, k·s instead of n
            return stored.to(wide) * scale.to(wide), None, wide
        return stored, scale, wide

    @torch.no_grad()
    def mosaic(self) -> Mosaic:
        """What the network is now; motifs that no block uses are dropped (not the zero motif).

        Raises:
            ValueError: if a motif is not finite, as after a diverged training.
        """
        if count := int((~torch.isfinite(self.motifs)).sum()):
            raise ValueError(
                f"motifs must be finite, got {count} of {self.motifs.numel()} NaN or infinite"
            )
        used = self.usage() > 0
        used[0] |= self.config.zero_motif
        number = used.cumsum(0).int() - 1
        dtype = stored_dtype(self.config.bits, self.motifs.dtype)
        scales = [self.scale(place) for place in self.layout.placements]
        return Mosaic(
            self.stored()[used].to(dtype),
            number.index_select(0, self.indices),
            self.layout,
            None if scales[0] is None else tuple(s for s in scales if s is not None),
            config=self.config,
        )

    def forward(self, *inputs: Any) -> Any:
        """The identity: in an nn.Sequential the bank is one more layer."""
        return inputs[0] if len(inputs) == 1 else inputs

    def extra_repr(self) -> str:
        k, s = self.motifs.shape
        return f"{k} motifs of {s}, {len(self.indices)} blocks, learn={self.learn!r}"
