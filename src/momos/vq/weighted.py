"""Finds the nearest motif where errors in some weights matter more than in others.

The definition is `weighted_nearest_reference`, in float64, ties to the lowest index.
`weighted_nearest` returns the same indices. Matrix products, with a bound on their rounding errors
and on the definition's, almost always leave one motif for a block; the definition decides among
several. Where float64 would over- or underflow, the definition is computed piece by piece.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

PIECE = 1 << 19  # costs taken at once, so that memory stays bounded
LARGEST = 1e290  # costs above might overflow in float64
SMALLEST = 1e-240  # costs of single weights below might underflow, differences squared too


def weighted_nearest(
    blocks: Float[Tensor, "m s"],
    motifs: Float[Tensor, "k s"],
    importance: Float[Tensor, "m s"],
    *,
    penalty: Float[Tensor, " k"] | None = None,
) -> Int[Tensor, " m"]:
    """Index of the motif with the least Σ importance · (block − motif)² + penalty, for each block.

    With an importance of one everywhere and no penalty it is `nearest`.

    Raises:
        ValueError: if there are no motifs, shapes or devices do not fit, a value is not finite,
            or an importance negative.
    """
    _check(blocks, motifs, importance, penalty)
    blocks, importance, motifs = (
        blocks.detach(),
        importance.detach(),
        motifs.detach().double(),
    )
    costs = motifs.new_zeros(len(motifs)) if penalty is None else penalty.detach().double()
    rows = max(1, PIECE // len(motifs))
    decide = _filtered if _in_range(blocks, motifs, importance, costs) else _defined
    pieces = zip(blocks.split(rows), importance.split(rows), strict=True)
    found = [
        decide(some.double(), motifs, weight.double(), costs) for some, weight in pieces
    ]
    return torch.cat(found)


def weighted_nearest_reference(
    blocks: Float[Tensor, "m s"],
    motifs: Float[Tensor, "k s"],
    importance: Float[Tensor, "m s"],
    *,
    penalty: Float[Tensor, " k"] | None = None,
) -> Int[Tensor, " m"]:
    """The definition of `weighted_nearest`; m·k float64 values in memory."""
    cost = blocks.new_zeros(len(blocks), len(motifs), dtype=torch.float64)
    columns = zip(importance.double().T, blocks.double().T, motifs.double().T, strict=True)
    for weight, block, motif in columns:
        cost += weight[:, None] * (block[:, None] - motif).square()
    return (cost if penalty is None else cost + penalty.double()).argmin(1)


def weighted_means(
    blocks: Float[Tensor, "m s"],
    importance: Float[Tensor, "m s"],
    indices: Int[Tensor, " m"],
    *,
    unused: Float[Tensor, "k s"],
) -> Float[Tensor, "k s"]:
    """The motifs of least weighted distortion: each the mean of its blocks, weighted by importance.

    Where no block has any importance, values are those of `unused`. The result has its dtype and is
    computed from float64 sums.

    Raises:
        ValueError: if shapes or devices do not fit, a value is not finite, an importance
            negative, or an index not one of a motif.
    """
    _check(blocks, unused, importance, None)
    if indices.shape != blocks.shape[:1]:
        raise ValueError(
            f"indices must have shape {tuple(blocks.shape[:1])}, got {tuple(indices.shape)}"
        )
    outside = indices[(indices < 0) | (indices >= len(unused))]
    if len(outside):
        raise ValueError(f"indices must be 0 to {len(unused) - 1}, got {int(outside[0])}")
    weight, rows = importance.detach().double(), indices.long()
    shape = {"dtype": torch.float64, "device": blocks.device}
    sums = torch.zeros(unused.shape, **shape).index_add_(0, rows, weight * blocks.detach())
    total = torch.zeros(unused.shape, **shape).index_add_(0, rows, weight)
    return torch.where(total > 0, sums / total, unused.detach().double()).to(unused.dtype)


def _defined(blocks: Tensor, motifs: Tensor, importance: Tensor, penalty: Tensor) -> Tensor:
    return weighted_nearest_reference(blocks, motifs, importance, penalty=penalty)


def _filtered(
    blocks: Tensor, motifs: Tensor, importance: Tensor, penalty: Tensor
) -> Tensor:
    """`_defined` by way of Σ h·z² − 2·Σ h·b·z + p, which differs from the cost by Σ h·b².

    With M = Σ h·(|b| + max |z|)² + max |p| and u = 2⁻⁵³, this is off by at most (2s + 4)·u·M
    to first order, and the definition by (s + 4)·u·M. So where the definition's choice is j,
    no other motif is below j by more than twice both, (6s + 16)·u·M. The margin is above that.
    """
    size = blocks.shape[1]
    left = torch.cat([importance, -2 * importance * blocks], 1)
    score = left @ torch.cat([motifs.square(), motifs], 1).T
    score += penalty
    reach = blocks.abs() + motifs.abs().amax(0)
    bound = (importance * reach.square()).sum(1) + penalty.abs().max()
    best = score.amin(1)
    near = score <= (best + (size + 4) * 2.0**-49 * bound)[:, None]
    found = near.byte().argmax(1)
    unsure = (near.sum(1) > 1).nonzero()[:, 0]
    if len(unsure):
        found[unsure] = _decided(
            blocks[unsure], motifs, importance[unsure], penalty, near[unsure]
        )
    return found


def _decided(
    blocks: Tensor, motifs: Tensor, importance: Tensor, penalty: Tensor, near: Tensor
) -> Tensor:
    """The definition, among the motifs that are `near` each block."""
    rows, columns = near.nonzero(as_tuple=True)
    cost = blocks.new_zeros(len(rows))
    for weight, block, motif in zip(importance.T, blocks.T, motifs.T, strict=True):
        cost += weight[rows] * (block[rows] - motif[columns]).square()
    costs = torch.full(near.shape, torch.inf, dtype=cost.dtype, device=cost.device)
    costs[rows, columns] = cost + penalty[columns]
    return costs.argmin(1)


def _in_range(blocks: Tensor, motifs: Tensor, importance: Tensor, penalty: Tensor) -> bool:
    """Whether no product of these rounds otherwise than in proportion to itself."""
    low = min(_smallest(blocks), _smallest(motifs))
    high = 2 * max(_largest(blocks), _largest(motifs))
    least, most = _smallest(importance), _largest(importance)
    smallest = min(least, low * low, least * (low * low))
    largest = max(most, high * high, most * (high * high) * blocks.shape[1])
    return smallest >= SMALLEST and max(largest, _largest(penalty)) <= LARGEST


def _smallest(values: Tensor) -> float:
    """The smallest magnitude above zero; 1 where there is none."""
    sizes = values.abs()
    return float(torch.where(sizes > 0, sizes, torch.inf).amin()) if sizes.any() else 1.0


def _largest(values: Tensor) -> float:
    return float(values.abs().amax()) if values.numel() else 0.0


def _check(
    blocks: Tensor, motifs: Tensor, importance: Tensor, penalty: Tensor | None
) -> None:
    if motifs.ndim != 2 or 0 in motifs.shape:
        raise ValueError(
            f"motifs must have at least one row and one value, got shape {tuple(motifs.shape)}"
        )
    if blocks.ndim != 2 or blocks.shape[1] != motifs.shape[1]:
        raise ValueError(
            f"blocks must have shape (m, {motifs.shape[1]}) as motifs have, got "
            f"{tuple(blocks.shape)}"
        )
    if importance.shape != blocks.shape:
        raise ValueError(
            f"importance must have the shape {tuple(blocks.shape)} of blocks, got "
            f"{tuple(importance.shape)}"
        )
    if penalty is not None and penalty.shape != motifs.shape[:1]:
        raise ValueError(
            f"penalty must have shape {tuple(motifs.shape[:1])}, got {tuple(penalty.shape)}"
        )
    given = {"blocks": blocks, "motifs": motifs, "importance": importance}
    for name, values in (
        given if penalty is None else given | {"penalty": penalty}
    ).items():
        if not values.is_floating_point():
            raise TypeError(f"{name} must be floating, got {values.dtype}")
        if values.device != blocks.device:
            raise ValueError(
                f"{name} must be on {blocks.device} as blocks are, got {values.device}"
            )
        if count := int((~torch.isfinite(values)).sum()):
            raise ValueError(
                f"{name} must be finite, got {count} values that are NaN or infinite"
            )
    if bool((importance < 0).any()):
        raise ValueError(f"importance must be at least 0, got {float(importance.min())}")
