"""The bank of a network whose motifs are learned: motifs, indices, scales.

It is registered once, at the root of the network; the tiles of all parameters read from it.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from itertools import accumulate
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Float32, Float64, Int, Int32
from torch import Tensor, nn

from momos.blocks import Placement
from momos.learning import states
from momos.learning.fitting import Fitting, check_finite, finite_blocks
from momos.learning.fully_sharded import restart_
from momos.learning.latents import Whole
from momos.learning.sharding import Shards
from momos.learning.states import NAME as NAME
from momos.learning.states import refresh_, trace_of
from momos.learning.whole import round_tiles_, stretched
from momos.mosaic import Mosaic, usage_of
from momos.stored import grid_step, spread, stored_dtype, whole_steps
from momos.vq.gather import gather, gather_, straight_through

Learn = Literal["motifs", "weights"]


class Bank(nn.Module):
    """Motifs (k, s), indices (m,) and scales, in the order of `layout`.

    `motifs` is a parameter where motifs are learned by gradient, else a buffer. While `started`
    is 0 the network is still dense.

    With `selection="whole"` motifs are constant and scales are learned: `stretch` is the logarithm
    of the factor by which each has grown from `base`, and blocks up to `threshold` become zero.

    `counts`, `rate_weight` and `trace` describe the last re-assignment. They are buffers, so that
    anything that copies, averages or swaps the tensors of a network includes them.

    Example:
        >>> model = nn.Linear(64, 64)
        >>> config = momos.MosaicConfig(block_size=2, num_motifs=16)
        >>> bank = momos.parametrize_(model, config, learn="motifs")
        >>> bank.motifs.shape, bank.indices.shape
        (torch.Size([16, 2]), torch.Size([2048]))
        >>> [name for name, _ in model.named_parameters()]
        ['bias', 'momos.motifs']
    """

    motifs: Float[Tensor, "k s"]
    indices: Int32[Tensor, " m"]
    scales: Float32[Tensor, " c"]
    step: Float32[Tensor, ""]
    zeros: Bool[Tensor, "k 1"]
    started: Tensor
    settings: Tensor  # needed to interpret the other tensors
    counts: Float32[Tensor, " k"]  # usage; all 0 while the network is dense
    rate_weight: Float32[Tensor, ""]
    trace: Float64[Tensor, "2"]  # of latent weights that were averaged, else NaN
    stretch: Float32[
        Tensor, " c"
    ]  # this and the next two: only where motifs are whole numbers
    base: Float32[Tensor, " c"]
    threshold: Float32[Tensor, ""]

    def __init__(
        self,
        fitting: Fitting,
        learn: Learn,
        motifs: Float[Tensor, "k s"],
        indices: Int32[Tensor, " m"],
        scales: tuple[Float32[Tensor, " c"], ...] | None,
        step: Float32[Tensor, ""] | None = None,
    ) -> None:
        super().__init__()
        layout, config = fitting.layout, fitting.config
        self.fitting, self.layout, self.config, self.learn = fitting, layout, config, learn
        self.tiles: list[Any] = []  # tiles that read from the bank; not submodules
        if learn == "motifs":
            self.motifs = Whole(motifs)
        else:
            self.register_buffer("motifs", motifs)
        self.register_buffer("indices", indices)
        counts = [] if scales is None else [len(scale) for scale in scales]
        self.register_buffer("scales", torch.cat(scales) if scales else motifs.new_zeros(0))
        self.register_buffer("step", torch.ones((), device=motifs.device))
        if self.whole:
            self.register_buffer("base", self.scales.clone())
            self.register_buffer("threshold", torch.full_like(self.step, 0.5))
            self.stretch = Whole(torch.zeros_like(self.base))
        zeros = fitting.zero_motifs.to(motifs.device)
        self.register_buffer("zeros", zeros[:, None], persistent=False)
        self.register_buffer("started", motifs.new_ones((), dtype=torch.uint8))
        self.register_buffer(
            "settings",
            motifs.new_tensor([config.bits, config.zero_motif], dtype=torch.uint8),
        )
        self.register_buffer(
            "counts", motifs.new_zeros(len(motifs)).float(), persistent=False
        )
        self.register_buffer("rate_weight", torch.zeros((), device=motifs.device))
        unknown = torch.full((2,), torch.nan, dtype=torch.float64, device=motifs.device)
        self.register_buffer("trace", unknown, persistent=False)
        # `started` as a plain value, which compiled code can be guarded by
        self.learning = True
        self._shards: Shards | None = None  # of the latent weights, if they are sharded
        self.followed = (
            False  # whether motifs or indices were ever updated from the latent weights
        )
        self.began: list[float] | None = None  # trace of the latent weights at the start
        self.copied = False  # whether this is a deep copy that no `Reassign` follows
        self.origin: dict[str, Tensor] | None = None  # of such a copy, the constant buffers
        self.plain = (
            False  # whether a state of dense weights may be loaded, and the rest later
        )
        self.awaiting = False  # whether that rest is still to come
        # Weak references: the DistributedDataParallel that it is in, and the last that ran it.
        self.wrapper: Callable[[], Any] = _none
        self.seen: Callable[[], Any] = _none
        self.root: Callable[[], Any] = _none  # the network that it is the bank of
        ends = [0, *accumulate(counts)]
        self._spans = {
            place.name: (ends[i], ends[i + 1])
            for i, place in enumerate(layout.placements if counts else ())
        }
        if step is None:
            self.fit_step_()
        else:
            self.step.copy_(step)
        self.counts.copy_(self.usage())
        self._note()

    def __getstate__(self) -> dict[str, Any]:
        """All but what refers to the network around the bank, which a copy has not."""
        return self.__dict__ | {"wrapper": _none, "seen": _none, "root": _none}

    def __deepcopy__(self, memo: dict[int, Any]) -> "Bank":
        other = self.__class__.__new__(self.__class__)
        memo[id(self)] = other
        alone = self.__getstate__() | {"origin": None}
        other.__dict__ = copy.deepcopy(alone, memo)
        other.copied = True
        if self.learn == "motifs":
            other.origin = self.constants() if self.origin is None else self.origin
        other._note()
        return other

    def _note(self) -> None:
        """Records that the indices were written by the bank itself."""
        self._written = 0 if self.indices.is_inference() else self.indices._version

    @property
    def shards(self) -> Shards | None:
        """How the latent weights are sharded, if they are.

        The first time, on all ranks, the bank drops the indices that other ranks look after.
        """
        if self._shards is None and self.tiles and self.tiles[0].sharded:
            self._shards = Shards.of(self)
            self._shards.keep_(self)
            self._note()
        return self._shards

    def constants(self) -> dict[str, Tensor]:
        """The buffers that stay constant while motifs are learned by gradient."""
        return {"indices": self.indices, "scales": self.scales, "step": self.step}

    @property
    def overwritten(self) -> bool:
        """Whether the buffers were written by anything but the bank."""
        return not self.indices.is_inference() and self.indices._version != self._written

    @torch.no_grad()
    def begin(self) -> None:
        """Records the latent weights at the start of learning."""
        self.began = trace_of(self).tolist()

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        refresh_(self)
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.shards is not None:
            destination[f"{prefix}indices"] = self.shards.saved_indices(self)
        states.complete(self, destination, prefix.removesuffix(f"{NAME}."))

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
        if why := states.why_not(self, state_dict, prefix):
            error_msgs.append(why)  # which torch raises
            return
        root = prefix.removesuffix(f"{NAME}.")
        if states.is_plain(self, state_dict, root, unexpected_keys):
            states.accept_plain(self, root, missing_keys, unexpected_keys, error_msgs)
            return
        if self.shards is not None and f"{prefix}indices" in state_dict:
            given = self.shards.loaded_indices(self, state_dict[f"{prefix}indices"])
            state_dict = {**state_dict, f"{prefix}indices": given}
        super()._load_from_state_dict(
            state_dict,
            prefix,
            local_metadata,
            strict,
            missing_keys,
            unexpected_keys,
            error_msgs,
        )
        states.accept(self, root, missing_keys, unexpected_keys)
        if f"{prefix}motifs" in state_dict:
            self.awaiting = False
            self.followed = True  # where the state is from, they may have
        self.trace.fill_(torch.nan)
        self._mark()
        self.start_(learning=bool(self.started))
        if self.origin is not None:
            self.origin = {name: own.clone() for name, own in self.constants().items()}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Bank":
        """Motifs and scales move with the network, but only its weights change dtype."""

        def moved(tensor: Tensor) -> Tensor:
            found = fn(tensor)
            return found if found.dtype == tensor.dtype else tensor.to(found.device)

        super()._apply(moved, recurse)
        places = self.layout.placements
        found = {p.dtype: fn(self.motifs.new_empty(0, dtype=p.dtype)).dtype for p in places}
        if any(kept != new for kept, new in found.items()):
            if self._shards is not None:
                raise ValueError(
                    "weights must change dtype before fully_shard, not after it"
                )
            places = tuple(replace(place, dtype=found[place.dtype]) for place in places)
            self.layout = replace(self.layout, placements=places)
            self.fitting = replace(self.fitting, layout=self.layout)
            for tile, place in zip(self.tiles, places, strict=True):
                tile.place = place
            self.update_tiles_()
            if self.began is not None:
                self.begin()  # rounding is not training
        self._mark()
        self._note()
        return self

    def _mark(self) -> None:
        """Lets `fully_shard` know latent weights that torch has replaced."""
        for tile in self.tiles:
            tile.mark_()

    @torch.no_grad()
    def start_(self, *, learning: bool) -> None:
        """Makes the forward pass see the mosaic, or the dense weights."""
        self.started.fill_(learning)
        if self._shards is not None and self.learning != learning:
            restart_(self.root())
        self.learning = learning
        self.counts.copy_(self.usage() * learning)
        self.update_tiles_()
        self._note()

    @torch.no_grad()
    def update_(self, usage: Int[Tensor, " k"] | None = None) -> None:
        """Updates the step of the grid and every tile after motifs or indices have changed.

        `usage` is that of the indices, if it is known.
        """
        usage = self.usage() if usage is None else usage
        self.counts.copy_(usage)
        self.fit_step_(usage)
        self.update_tiles_()
        self._note()

    @torch.no_grad()
    def update_tiles_(self) -> None:
        """Recomputes the values of every tile from motifs and indices."""
        stored = self.stored()
        for tile in self.tiles:
            tile.update_(stored)

    @property
    def whole(self) -> bool:
        """Whether motifs are the whole numbers, and scales are learned."""
        return self.config.selection == "whole"

    @property
    def on_grid(self) -> bool:
        """Whether motifs are stored as whole numbers of steps."""
        return self.config.bits <= 8

    @torch.no_grad()
    def fit_step_(self, usage: Int[Tensor, " k"] | None = None) -> None:
        """Chooses the step of the grid for the present motifs."""
        if self.on_grid and not self.whole:
            if usage is None:
                usage = self.usage()
            self.step.copy_(grid_step(self.motifs, usage, self.config.bits))

    def blocks(
        self, scales: tuple[Float32[Tensor, " c"], ...] | None
    ) -> Float[Tensor, "m s"]:
        """The blocks of the latent weights, divided by `scales`.

        Raises:
            ValueError: if a weight is not finite (names the parameter).
        """
        if self.shards is not None:
            return self.shards.blocks(self, scales)
        weights = [tile.latent for tile in self.tiles]
        return finite_blocks(self.layout, weights, scales, self.motifs.dtype)

    @torch.no_grad()
    def follow_(
        self, usage: Int[Tensor, " k"], *, rate_weight: float, move_only: bool, revive: bool
    ) -> tuple[int, int]:
        """Re-assigns blocks, unless `move_only`, and moves motifs to the mean of theirs.

        Returns how many blocks changed their motif, and how many motifs are used. Code lengths
        are those of `usage`.
        """
        if self.whole:
            return self.round_latent_(rate_weight)
        blocks, indices = self.blocks(self.plain_scales()), self.indices
        if not move_only:
            indices = self.fitting.assign(
                blocks, self.motifs, usage=usage, rate_weight=rate_weight
            )
        usage = self.fitting.usage(indices, len(self.motifs))
        motifs = self.fitting.move(blocks, indices, self.motifs, revive=revive, usage=usage)
        changed = self.count(indices != self.indices)
        self.indices.copy_(indices)
        self.motifs.copy_(motifs)
        self.rate_weight.fill_(rate_weight)
        self.followed = True
        self.update_(usage)
        return changed, int((usage > 0).sum())

    @torch.no_grad()
    def round_latent_(self, rate_weight: float) -> tuple[int, int]:
        """Rounds the latent weights to whole motifs times the scales as they are now.

        Returns what `follow_` does.
        """
        scales, weights = stretched(self), [tile.latent for tile in self.tiles]
        if not bool(torch.isfinite(torch.stack([w.sum() for w in weights]).sum())):
            check_finite(self.layout, weights)
        self.scales.copy_(torch.cat(scales))
        changed = round_tiles_(self, scales)
        self.rate_weight.fill_(rate_weight)
        self.followed = True
        usage = self.usage()
        self.counts.copy_(usage)
        self._note()
        return changed, int((usage > 0).sum())

    def usage(self) -> Int[Tensor, " k"]:
        """How many blocks use each motif."""
        if self.shards is None:
            return usage_of(self.indices, len(self.motifs))
        own = self.shards.layout.counted(self.indices)
        return self.shards.ranks.sum(usage_of(own, len(self.motifs)))

    def count(self, which: Bool[Tensor, " m"]) -> int:
        """How many blocks there are of which something is true."""
        if self.shards is None:
            return int(which.sum())
        return int(self.shards.ranks.sum(self.shards.layout.counted(which).sum()))

    def scale(self, place: Placement) -> Float32[Tensor, " c"] | None:
        """Factors of the stored motifs in one parameter, if any."""
        if not self._spans:
            return self.step.float().reshape(1) if self.on_grid else None
        start, stop = self._spans[place.name]
        scale = self.scales[start:stop].float()
        return scale * self.step.float() if self.on_grid else scale

    def span(self, place: Placement) -> tuple[int, int]:
        """Which of the `scales` are those of a parameter: first and, exclusive, last."""
        return self._spans[place.name]

    def plain_scales(self) -> tuple[Float32[Tensor, " c"], ...] | None:
        """The scales of all parameters, without the step of the grid."""
        if not self._spans:
            return None
        return tuple(self.scales[start:stop] for start, stop in self._spans.values())

    def growth(self, place: Placement) -> Float32[Tensor, " n"]:
        """`stretch` of each weight, flat (or one number); its gradient is divided by √weights.

        The gradient of a scale is a sum over its weights, far larger than that of one weight
        (Esser et al. 2020).
        """
        start, stop = self._spans[place.name]
        own = self.stretch[start:stop]
        part = math.sqrt(max(1, place.num_weights // len(own)))
        own = own / part + (own - own / part).detach()
        return spread(own, place, 0, place.num_weights)

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
        return self.values(place, indices, 0, place.num_weights).view(place.shape)

    def values(self, place: Placement, indices: Tensor, start: int, stop: int) -> Tensor:
        """The weights `start` to `stop` of one parameter, flat, whose blocks have these indices."""
        motifs, scale, wide = self._scaled(place, self.stored())
        flat = gather(motifs, indices).view(-1)[: stop - start]
        if scale is not None:
            flat = flat.to(wide) * spread(scale, place, start, stop).to(wide)
        return flat.to(place.dtype)

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
        layout, scales = self.layout, [self.scale(p) for p in self.layout.placements]
        if self.shards is not None:
            layout, scales = self.shards.layout, self.shards.scales(scales)
        return Mosaic(
            self.stored()[used].to(dtype),
            number.index_select(0, self.indices),
            layout,
            None if scales[0] is None else tuple(s for s in scales if s is not None),
            config=self.config,
        )

    def forward(self, *inputs: Any) -> Any:
        """The identity: in an nn.Sequential the bank is one more layer."""
        return inputs[0] if len(inputs) == 1 else inputs

    def extra_repr(self) -> str:
        k, s = self.motifs.shape
        return f"{k} motifs of {s}, {len(self.indices)} blocks, learn={self.learn!r}"


def _none() -> None:
    """A reference to nothing."""
