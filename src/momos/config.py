"""What a mosaic shall be: block size, number of motifs, which weights, how motifs are chosen."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

Selection = Literal["sample", "distinct", "kmeans"]


@dataclass(frozen=True, kw_only=True)
class MosaicConfig:
    """Settings of a mosaic, checked once.

    Give either `capacity` (motifs per block, k / m) or `num_motifs` (k). Parameters are chosen
    by name: those that match a pattern of `include` and none of `exclude` (`fnmatch` patterns).

    `selection` says where motifs come from: "sample" draws blocks uniformly by position, as in
    the paper (Bakhtiarifard et al. 2026, Algorithm 1); "distinct" does the same but takes no
    block twice; "kmeans" minimizes the distortion. With `zero_motif`, motif 0 is all zeros.

    Raises:
        ValueError: if a value is out of range or both or neither of `capacity` and `num_motifs`
            are given.
    """

    block_size: int = 2
    capacity: float | None = None
    num_motifs: int | None = None
    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    zero_motif: bool = True
    selection: Selection = "sample"
    seed: int = 0

    def __post_init__(self) -> None:
        check_whole("block_size", self.block_size, least=1)
        check_whole("seed", self.seed, least=0)
        if self.seed >= 1 << 63:
            raise ValueError(f"seed must be below 2**63, got {self.seed}")
        if self.capacity is None and self.num_motifs is None:
            raise ValueError("one of capacity and num_motifs must be given, got neither")
        if self.capacity is not None and self.num_motifs is not None:
            raise ValueError(
                f"one of capacity and num_motifs must be given, got both: "
                f"capacity={self.capacity}, num_motifs={self.num_motifs}"
            )
        if isinstance(self.capacity, bool):
            raise TypeError(f"capacity must be a number, got {self.capacity}")
        if self.capacity is not None and not 0 < self.capacity <= 1:
            raise ValueError(f"capacity must be above 0 and at most 1, got {self.capacity}")
        if self.capacity is not None:
            object.__setattr__(self, "capacity", float(self.capacity))
        if self.num_motifs is not None:
            check_whole("num_motifs", self.num_motifs, least=1)
        if self.selection not in get_args(Selection):
            options = ", ".join(get_args(Selection))
            raise ValueError(f"selection must be one of {options}, got {self.selection!r}")
        for name in ("include", "exclude"):
            object.__setattr__(self, name, _patterns(name, getattr(self, name)))

    def motifs_for(self, num_blocks: int) -> int:
        """Number of motifs for a network of `num_blocks` blocks: max(1, floor(capacity · m))."""
        if self.num_motifs is not None:
            return self.num_motifs
        assert self.capacity is not None
        return max(1, int(self.capacity * num_blocks))


def check_whole(name: str, value: int, *, least: int) -> None:
    """Refuses what is no whole number of at least `least`.

    Raises:
        TypeError: if it is no int.
        ValueError: if it is too small.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, got {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")


def _patterns(name: str, value: Iterable[str]) -> tuple[str, ...]:
    if isinstance(value, str):
        raise TypeError(f"{name} must be a sequence of patterns, got the string {value!r}")
    patterns = tuple(value)
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise TypeError(f"{name} must hold patterns as strings, got {pattern!r}")
    return patterns
