"""Re-assignment without waiting for the device: a few launches for all parameters of a bank.

`Following.follow_` does what `Bank.follow_` does. Indices are the same; means of motifs are from
sums in another, fixed order. What is not finite is kept out: motifs and indices then stay.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float32, Float64, Int, Int64
from torch import Tensor

from momos.learning.fitting import check_finite
from momos.stored import SHRINK, whole_steps
from momos.vq.nearest import code_lengths

if TYPE_CHECKING:
    from momos.learning.bank import Bank

CHECK_EVERY = 64  # steps
DTYPES = (torch.float16, torch.bfloat16, torch.float32)


@dataclass(eq=False)
class Following:
    """The tables of a bank's parameters on the device, one for each dtype."""

    bank: "Bank"
    tables: list[
        tuple[Any, Float64[Tensor, "t k"], Int64[Tensor, " t"]]
    ]  # which parameters
    scales: list[Float32[Tensor, " c"]]
    flags: Int[
        Tensor, " p"
    ]  # parameters that were not finite since they were last looked at
    phases: Bool[Tensor, "2"]  # false and true, on the device
    memory: tuple[int, ...]

    @classmethod
    def of(cls, bank: "Bank", last: "Following | None") -> "Following | None":
        """That of a bank, the `last` one if its memory is where it was; None if it has none."""
        if not supported(bank):
            return None
        memory = _memory(bank)
        if last is not None and last.bank is bank and last.memory == memory:
            return last
        from momos.vq import together  # compiled on first use, so imported on first use

        device, tables, scales = bank.motifs.device, [], []
        for dtype in dict.fromkeys(place.dtype for place in bank.layout.placements):
            numbers = [
                n for n, place in enumerate(bank.layout.placements) if place.dtype == dtype
            ]
            parts = [_part(bank, number) for number in numbers]
            table = together.Table.of(parts, bank.layout.block_size)
            which = torch.tensor(numbers, device="cpu").to(device)
            tables.append((table, _inverse(bank, numbers), which))
            plain = bank.plain_scales()
            none = torch.zeros(0, device=device)
            scales.append(none if plain is None else torch.cat([plain[n] for n in numbers]))
        flags = torch.zeros(len(bank.layout.placements), dtype=torch.int32, device=device)
        phases = torch.tensor([False, True], device="cpu").to(device)
        return cls(bank, tables, scales, flags, phases, memory)

    @torch.no_grad()
    def follow_(
        self,
        *,
        rate_weight: float | Float64[Tensor, ""],
        move_only: bool | Bool[Tensor, ""],
        revive: bool,
        check: bool,
    ) -> Int64[Tensor, "2"]:
        """Re-assigns, unless `move_only`, and moves motifs; how many blocks changed, motifs used.

        Both may be numbers on the device, which are then not waited for.

        Raises:
            ValueError: if this is a `check`, and a weight was not finite (names the parameter).
        """
        from momos.vq import together

        bank, motifs = self.bank, self.bank.motifs
        indices = bank.indices.clone()
        sums = motifs.new_zeros(motifs.shape, dtype=torch.float64)
        total, usage = sums[:, 0].clone(), bank.counts.new_zeros(len(motifs)).long()
        lengths = self._lengths(rate_weight)
        if not isinstance(move_only, Tensor):
            move_only = self.phases[int(move_only)]
        flags = torch.zeros_like(self.flags)
        for (table, inverse, numbers), scales in zip(self.tables, self.scales, strict=True):
            done = together.assign(
                table,
                motifs,
                _roots(lengths, inverse, motifs.dtype),
                scales,
                out=indices,
                kept=bank.indices,
                fixed=move_only,
            )
            sums, total, usage = sums + done.sums, total + done.total, usage + done.usage
            flags.index_copy_(0, numbers, done.flags)
        moved = self._moved(sums, total)
        if revive:
            self._revive(indices, usage, moved)
        self.flags |= flags
        good = ~flags.any()
        changed = torch.where(good, (indices != bank.indices).sum(), 0)
        bank.indices.copy_(torch.where(good, indices, bank.indices))
        motifs.copy_(torch.where(good, moved, motifs))
        bank.counts.copy_(torch.where(good, usage, bank.counts))
        if isinstance(rate_weight, Tensor):
            bank.rate_weight.copy_(rate_weight)
        else:
            bank.rate_weight.fill_(rate_weight)
        bank.followed = True
        if bank.on_grid:
            bank.step.copy_(_grid_step(motifs, bank.counts, bank.config.bits))
        stored = bank.stored()
        for (table, _, _), scales in zip(self.tables, self.scales, strict=True):
            together.write(table, stored, scales, bank.step, bank.indices)
        bank._note()
        if check:
            self.check()
        return torch.stack([changed, (bank.counts > 0).sum()])

    def check(self) -> None:
        """Refuses weights that were not finite in a step since the last check.

        Raises:
            ValueError: if there were any; names the parameter.
        """
        found = self.flags.tolist()
        self.flags.zero_()
        if not any(found):
            return
        check_finite(self.bank.layout, [tile.latent for tile in self.bank.tiles])
        name = self.bank.layout.placements[found.index(1)].name
        raise ValueError(
            f"weights must be finite relative to their scales, got others in {name!r}"
        )

    def _lengths(self, rate_weight: float | Tensor) -> Float64[Tensor, " k"]:
        """The penalty of each motif, by its share of its group."""
        bank = self.bank
        penalties = bank.motifs.new_zeros(len(bank.motifs), dtype=torch.float64)
        if isinstance(rate_weight, Tensor) or rate_weight > 0:
            for share in bank.fitting.shares:
                usage = bank.counts[share.motifs].long()
                penalties[share.motifs] = rate_weight * code_lengths(usage)
        return penalties

    def _moved(self, sums: Tensor, total: Tensor) -> Float32[Tensor, "k s"]:
        means = sums / total.clamp(min=torch.finfo(total.dtype).tiny)[:, None]
        motifs = self.bank.motifs
        moved = torch.where(total[:, None] > 0, means.to(motifs.dtype), motifs)
        return moved.masked_fill(self.bank.zeros, 0)

    def _revive(self, indices: Tensor, usage: Tensor, moved: Tensor) -> None:
        """Moves unused motifs to the farthest blocks; waits for the device."""
        bank = self.bank
        if bool((usage > 0).all()) or bool(self.flags.any()):
            return
        blocks = bank.blocks(bank.plain_scales())
        for share in bank.fitting.shares:
            bank.fitting._revive(share, blocks, bank.motifs, usage, moved)
        moved.masked_fill_(bank.zeros, 0)


def supported(bank: "Bank") -> bool:
    """Whether the kernels do all that the bank asks for."""
    importance, motifs = bank.fitting.importance, bank.motifs
    return (
        runs_on(motifs.device)
        and bank.shards is None  # they are reduced over ranks
        and not bank.whole  # those are rounded (`Bank.round_latent_`)
        and motifs.dtype == torch.float32
        and (importance is None or importance.by_weight is None)
        # Without scales λ is relative to the mean square, which the host would wait for.
        and (bank.config.scales != "none" or not bank.config.rate_weight)
        and all(
            tile.latent.is_contiguous() and tile.latent.dtype == tile.place.dtype
            for tile in bank.tiles
        )
        and all(place.dtype in DTYPES for place in bank.layout.placements)
    )


def runs_on(device: torch.device) -> bool:
    """Whether there are kernels for a device."""
    return device.type == "cuda"


def _memory(bank: "Bank") -> tuple[int, ...]:
    own = (bank.scales, bank.motifs)
    tiles = ((tile.latent, tile.value) for tile in bank.tiles)
    return tuple(each.data_ptr() for each in (*own, *(t for pair in tiles for t in pair)))


def _part(bank: "Bank", number: int) -> Any:
    from momos.vq import together

    tile, place = bank.tiles[number], bank.layout.placements[number]
    importance, plain = bank.fitting.importance, bank.plain_scales()
    share = next(each for each in bank.fitting.shares if place in each.members)
    return together.Part(
        tile.latent.detach(),
        tile.value,
        place.start,
        share.first,
        share.num_motifs,
        0 if plain is None else len(plain[number]),
        1.0 if importance is None else importance.by_tensor[place.name],
    )


def _inverse(bank: "Bank", numbers: list[int]) -> Float64[Tensor, "t k"]:
    """1 where a parameter may use a motif, else infinity; its importance times that."""
    rows = torch.full(
        (len(numbers), len(bank.motifs)), torch.inf, dtype=torch.float64, device="cpu"
    )
    importance = bank.fitting.importance
    for row, number in zip(rows, numbers, strict=True):
        place = bank.layout.placements[number]
        share = next(each for each in bank.fitting.shares if place in each.members)
        row[share.motifs] = 1.0 if importance is None else importance.by_tensor[place.name]
    return rows.to(bank.motifs.device)


def _roots(
    lengths: Float64[Tensor, " k"], importance: Float64[Tensor, "t k"], dtype: torch.dtype
) -> Float32[Tensor, "t k"]:
    """As `longer_motifs` has them: of penalties above the least of the parameter's group."""
    allowed = torch.isfinite(importance)
    penalties = lengths / importance
    least = torch.where(allowed, penalties, torch.inf).amin(1, keepdim=True)
    return torch.where(allowed, penalties - least, 0).sqrt().to(dtype)


def _grid_step(motifs: Tensor, usage: Tensor, bits: int) -> Tensor:
    """`stored.grid_step`, whose refusals would wait; 1 where all motifs are 0."""
    most = 2 ** (bits - 1) - 1
    largest = motifs.abs().max()
    steps = torch.stack(
        [(largest * shrink / most * (1 + 2**-8)).bfloat16() for shrink in SHRINK]
    )
    tried = steps.to(motifs.dtype)[:, None, None]
    rounded = whole_steps(motifs, tried, bits) * tried
    errors = ((rounded - motifs).double().square().sum(2) * usage).sum(1)
    found = tried[:, 0, 0].gather(0, errors.argmin()[None])[0]
    return torch.where(largest > 0, found, 1.0)
