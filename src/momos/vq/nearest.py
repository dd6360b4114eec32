"""Finds the motif nearest to each block.

The definition is `nearest_reference`: squared Euclidean distance in float64, summed in order of
position, ties to the lowest index. `nearest` returns the same indices, faster. Every engine is
held to equality with the reference, not to closeness (tests/test_vq_nearest.py). The device decides
the engine: `cpu` (compiled) or, on CUDA, `triton`. Blocks on other devices are searched on the CPU.

A motif may also cost its code length: a block takes the motif of least squared distance + λ·(bits
of its index) (entropy-constrained vector quantization; Chou, Lookabaugh and Gray 1989). The second
term is the square of one more coordinate, 0 for every block and √(λ·bits) for a motif. So the answer
is the nearest of these longer motifs, which the same engines find exactly.

`weighted_nearest` is the same where errors in some weights matter more than in others: its
definition is `weighted_nearest_reference`. Matrix products, with a bound on their rounding errors
and on the definition's, almost always leave one motif for a block; the definition decides among
several. Where float64 would over- or underflow, the definition is computed piece by piece.
"""

import warnings
from collections.abc import Callable, Sequence
from functools import cache

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor
from torch.nn.functional import pad

from momos.vq import cpu
from momos.vq.exact import Grid

UNUSED = 0.5  # usage assumed of a motif that no block uses


def nearest(
    blocks: Float[Tensor, "m s"], motifs: Float[Tensor, "k s"]
) -> Int[Tensor, " m"]:
    """Index of the motif nearest to each block, on the device of `blocks`.

    float64 distances that overflow or underflow compare as they come out, as in the reference.

    Raises:
        ValueError: if there are no motifs, the block sizes or devices differ, or a value is not
            finite.

    Example:
        >>> blocks = torch.tensor([[0.1, 0.0], [0.9, 1.2]])
        >>> momos.nearest(blocks, torch.tensor([[0.0, 0.0], [1.0, 1.0]]))
        tensor([0, 1])
    """
    return searcher(motifs)(blocks).long()


def nearest_reference(
    blocks: Float[Tensor, "m s"], motifs: Float[Tensor, "k s"]
) -> Int[Tensor, " m"]:
    """The definition of `nearest`; m·k float64 values in memory.

    Example:
        >>> blocks, motifs = torch.randn(100, 4), torch.randn(8, 4)
        >>> torch.equal(momos.nearest_reference(blocks, motifs), momos.nearest(blocks, motifs))
        True
    """
    distance = blocks.new_zeros(len(blocks), len(motifs), dtype=torch.float64)
    for block, motif in zip(blocks.double().T, motifs.double().T, strict=True):
        distance += (block[:, None] - motif).square()
    return distance.argmin(1)


def searcher(
    motifs: Float[Tensor, "k s"], *, padded: bool = False
) -> Callable[[Tensor], Tensor]:
    """`nearest` with the motifs prepared once, for blocks that arrive piece by piece.

    Indices are returned in the integer type that the engine works in. With `padded`, blocks
    have one value less than motifs, and a 0 is appended to each.
    """
    check_motifs(motifs)
    motifs = motifs.detach()
    size = motifs.shape[1] - padded
    make = _MAKERS.get(motifs.device.type, _hosted_searcher)
    search = make(motifs, padded=padded)

    def checked(blocks: Tensor) -> Tensor:
        _check("blocks", blocks)
        if blocks.shape[1] != size:
            raise ValueError(
                f"blocks and motifs must share one block size, got {blocks.shape[1]} and {size}"
            )
        if blocks.device != motifs.device:
            raise ValueError(
                f"blocks and motifs must be on one device, got {blocks.device} and "
                f"{motifs.device}"
            )
        try:
            return search(blocks.detach())
        except FloatingPointError:
            raise not_finite([blocks]) from None

    return checked


def code_lengths(usage: Int[Tensor, " k"]) -> Float64[Tensor, " k"]:
    """Bits that an ideal code spends on each motif: −log2 of its share of the usage.

    A motif that no block uses counts as used half a time: expensive, but still selectable.
    """
    counts = usage.double().clamp(min=UNUSED)
    return counts.sum().log2() - counts.log2()


def longer_motifs(
    motifs: Float[Tensor, "k s"], penalties: Float64[Tensor, " k"]
) -> Float[Tensor, "k s+1"]:
    """`motifs` with the root of their penalty as one more coordinate.

    The least penalty is subtracted from all of them, which changes no comparison.
    """
    roots = (penalties - penalties.min()).sqrt()
    return torch.cat([motifs, roots.to(motifs.dtype)[:, None]], 1)


def penalized_searcher(
    motifs: Float[Tensor, "k s"], penalties: Float64[Tensor, " k"]
) -> Callable[[Tensor], Tensor]:
    """Like `searcher`, but minimizes squared distance + penalty of the motif.

    By definition the nearest of `longer_motifs` to the blocks with a 0 appended; ties go to the
    lowest index.
    """
    return searcher(longer_motifs(motifs, penalties), padded=True)


def rated_searcher(
    motifs: Float[Tensor, "k s"], usage: Int[Tensor, " k"], rate_weight: float
) -> Callable[[Tensor], Tensor]:
    """Like `searcher`, but minimizes squared distance + `rate_weight` · code length.

    With a weight of 0 it is `searcher`.

    Raises:
        ValueError: if the shapes do not fit each other, or the weight is negative.
    """
    if tuple(usage.shape) != (len(motifs),):
        raise ValueError(
            f"usage must have one count for each of {len(motifs)} motifs, got shape "
            f"{tuple(usage.shape)}"
        )
    if rate_weight < 0:
        raise ValueError(f"rate_weight must be at least 0, got {rate_weight}")
    if rate_weight == 0:
        return searcher(motifs)
    return penalized_searcher(motifs, rate_weight * code_lengths(usage))


def add_differences(
    blocks: Float[Tensor, "m s"],
    indices: Int[Tensor, " m"],
    motifs: Float[Tensor, "k s"],
    grid: Grid,
    *,
    sums: Float64[Tensor, "2 k s"],
    counts: Float64[Tensor, " k"],
) -> None:
    """Adds the two terms of block − motif to `sums`, and 1 to `counts`, of each block's motif.

    As differences, so that the mean of equal blocks is that block exactly. On a `grid`, so that
    the order of the blocks changes nothing.
    """
    if blocks.device.type == "cpu":
        cpu.add_differences(blocks, indices, motifs, grid, sums, counts)
        return
    rows = indices.long()
    for total, term in zip(
        sums, grid.split(blocks.double() - motifs[rows].double()), strict=True
    ):
        total.index_add_(0, rows, term)
    counts.index_add_(0, rows, torch.ones_like(rows, dtype=torch.float64))


def check_motifs(motifs: Tensor) -> None:
    """Refuses motifs that nothing can be nearest to.

    Raises:
        TypeError: if they are not floating.
        ValueError: if there are none, or a value is not finite.
    """
    _check("motifs", motifs)
    if len(motifs) == 0 or motifs.shape[1] == 0:
        raise ValueError(
            f"motifs must have at least one row and one value, got shape {tuple(motifs.shape)}"
        )
    if motifs.is_meta:
        raise ValueError("motifs must hold values, got a meta tensor")
    if motifs.device.type == "cpu" and cpu.finite(motifs):
        return
    if count := int((~torch.isfinite(motifs)).sum()):
        raise ValueError(
            f"motifs must be finite, got {count} values that are NaN or infinite"
        )


def not_finite(blocks: Sequence[Tensor]) -> ValueError:
    """The error that names how many values of blocks are not finite."""
    count = sum(int((~torch.isfinite(some)).sum()) for some in blocks)
    return ValueError(f"blocks must be finite, got {count} values that are NaN or infinite")


def _check(name: str, rows: Tensor) -> None:
    if not rows.is_floating_point() or rows.itemsize < 2:
        raise TypeError(
            f"{name} must be float16, bfloat16, float32 or float64, got {rows.dtype}"
        )
    if rows.ndim != 2:
        raise ValueError(f"{name} must have two dimensions, got shape {tuple(rows.shape)}")


def has_kernels(device: torch.device) -> bool:
    """Whether there are kernels for a device."""
    return device.type == "cuda" and device.type in _MAKERS


def _cuda_searcher(motifs: Tensor, *, padded: bool) -> Callable[[Tensor], Tensor]:
    from momos.vq import grid, triton  # compiled on first use, so imported on first use

    made = grid.Grid.of(motifs) if motifs.shape[1] <= 2 else None
    if made is not None and float(made.candidates()) <= grid.MOST_CANDIDATES:

        def find(blocks: Tensor) -> Tensor:
            found, flag = grid.search(made, blocks)
            if bool(flag):
                raise FloatingPointError("blocks must be finite")
            return found

        return find
    search = triton.searcher(motifs)

    def finite(blocks: Tensor) -> Tensor:
        if not bool(torch.isfinite(blocks).all()):
            raise FloatingPointError("blocks must be finite")
        return search(pad(blocks, (0, 1)) if padded else blocks)

    return finite


def _hosted_searcher(motifs: Tensor, *, padded: bool) -> Callable[[Tensor], Tensor]:
    """On devices without an engine: the CPU's, since not all of them have float64."""
    warn_of_host(motifs.device.type)
    search = cpu.searcher(motifs.cpu(), padded=padded)
    return lambda blocks: search(blocks.cpu()).to(motifs.device)


@cache
def warn_of_host(kind: str) -> None:
    """Warns once that a kind of device has its blocks searched by the CPU."""
    warnings.warn(
        f"momos has no engine for {kind}: blocks are copied to the CPU and searched there, "
        "which is slow",
        UserWarning,
        stacklevel=5,
    )


_MAKERS = {"cpu": cpu.searcher, "cuda": _cuda_searcher}


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
    _check_weighted(blocks, motifs, importance, penalty)
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
    _check_weighted(blocks, unused, importance, None)
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


def _check_weighted(
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
