"""Configuration of a mosaic."""

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

Selection = Literal["sample", "distinct", "kmeans"]
Whole = Literal["whole"]  # motifs that are not selected, but the whole numbers
Scales = Literal["none", "tensor", "channel"]
DenseDtype = Literal["float32", "float16", "bfloat16"]
Unit = Literal["auto", "network", "channel"]
ChannelAxis = Literal["first", "last"]
TRELLISES = (1, 8, 16, 32, 64, 256)
BITS = (*range(2, 9), 16, 32)  # in which a motif value may be stored


@dataclass(frozen=True, kw_only=True)
class MosaicConfig:
    """Settings of a mosaic, checked once.

    Give either `capacity` (motifs per block, k / m) or `num_motifs` (k). Parameters are chosen
    by name: those that match a pattern of `include` and none of `exclude` (`fnmatch` patterns).

    `selection` says where motifs come from: "sample" draws blocks uniformly by position, as in
    the paper (Bakhtiarifard et al. 2026, Algorithm 1); "distinct" does the same but takes no
    block twice; "kmeans" minimizes the distortion. With `zero_motif`, motif 0 is all zeros.
    "whole" is for learned motifs of one weight: they are the whole numbers nearest to 0, and what
    is learned are the scales that they are multiplied by (Oktay et al. 2020 learn such a step).

    The rest is for motifs that are learned (`MosaicConfig.learned` has defaults for them):

    - `min_ndim`: parameters of fewer dimensions stay dense. None means 2 where motifs are
      learned (biases and norms stay dense) and 1 elsewhere (all but single numbers).
    - `scales`: blocks are compared, and stored, relative to the root mean square of their
      tensor or of their output channel (the first dimension).
    - `rate_weight`: λ of entropy-constrained vector quantization (Chou, Lookabaugh and Gray
      1989). A block takes the motif of least squared distance + λ·(−log2 of its share of the
      usage), in units of the mean square of the scaled weights per bit.
    - `bits`: of a stored motif value: 32 (as is), 16 (float16), or 2 to 8 (whole numbers
      times one step).
    - `dense_dtype`: what the floating tensors that stay dense are rounded to; "float32" leaves
      them, of whatever dtype, as they are.
    - `groups`: name patterns of parameters that share a bank of `num_motifs` of their own;
      those in no group share one more.

    Raises:
        ValueError: if a value is out of range or both or neither of `capacity` and `num_motifs`
            are given.

    Example:
        >>> momos.MosaicConfig(block_size=2, capacity=0.05).motifs_for(10_000)
        500
        >>> config = momos.MosaicConfig(block_size=4, num_motifs=256, exclude=("*bias",))
        >>> learned = momos.MosaicConfig.learned(rate_weight=0.5)  # more: a smaller file
        >>> learned.block_size, learned.num_motifs, learned.scales
        (2, 64, 'tensor')
    """

    block_size: int = 2
    capacity: float | None = None
    num_motifs: int | None = None
    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    zero_motif: bool = True
    selection: Selection | Whole = "sample"
    seed: int = 0
    min_ndim: int | None = None
    scales: Scales = "none"
    rate_weight: float = 0.0
    bits: int = 32
    dense_dtype: DenseDtype = "float32"
    groups: tuple[tuple[str, ...], ...] = ()

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
        for name, kind in (
            ("scales", Scales),
            ("dense_dtype", DenseDtype),
        ):
            _check_option(name, getattr(self, name), get_args(kind))
        _check_option("selection", self.selection, (*get_args(Selection), *get_args(Whole)))
        for name in ("include", "exclude"):
            object.__setattr__(self, name, _patterns(name, getattr(self, name)))
        if self.min_ndim is not None:
            check_whole("min_ndim", self.min_ndim, least=0)
        object.__setattr__(self, "rate_weight", _rate_weight(self.rate_weight))
        check_whole("bits", self.bits, least=2)
        if self.bits not in BITS:
            raise ValueError(f"bits must be 2 to 8, 16 or 32, got {self.bits}")
        if isinstance(self.groups, str):
            raise TypeError(f"groups must be a sequence of groups, got {self.groups!r}")
        groups = tuple(_patterns("a group", group) for group in self.groups)
        object.__setattr__(self, "groups", groups)
        if self.selection == "whole":
            self._check_whole_motifs()

    def _check_whole_motifs(self) -> None:
        for name, wanted in (("block_size", 1), ("zero_motif", True), ("groups", ())):
            if (found := getattr(self, name)) != wanted:
                raise ValueError(
                    f"{name} must be {wanted} for selection='whole', got {found}"
                )
        if self.scales == "none":
            raise ValueError(
                "scales must be 'tensor' or 'channel' for selection='whole', got 'none'"
            )
        if self.bits > 8:
            raise ValueError(
                f"bits must be at most 8 for selection='whole', got {self.bits}"
            )
        most = 2**self.bits - 1
        if self.num_motifs is None or self.num_motifs > most:
            raise ValueError(
                f"num_motifs must be at most {most}, the whole numbers of {self.bits} bits, "
                f"got {self.num_motifs}"
            )
        if self.num_motifs % 2 == 0 or self.num_motifs < 3:
            raise ValueError(
                "num_motifs must be odd and at least 3 for selection='whole' (0, and as many "
                f"numbers of either sign), got {self.num_motifs}"
            )

    @classmethod
    def learned(cls, **settings: Any) -> "MosaicConfig":
        """Settings for learned motifs; docs/learning.md says why the defaults are what they are.

        With `selection="whole"` the defaults are those for the smallest files.
        """
        whole = settings.get("selection") == "whole"
        if "capacity" not in settings:
            most = 2 ** min(settings.get("bits", LEARNED["bits"]), 8) - 1
            settings.setdefault("num_motifs", most if whole else 64)
        return cls(**(LEARNED | (WHOLE if whole else {}) | settings))

    def motifs_for(self, num_blocks: int) -> int:
        """Number of motifs for a network of `num_blocks` blocks: max(1, floor(capacity · m))."""
        if self.num_motifs is not None:
            return self.num_motifs
        assert self.capacity is not None
        return max(1, int(self.capacity * num_blocks))


@dataclass(frozen=True, kw_only=True)
class LatticeConfig:
    """Settings of a mosaic whose motifs are whole numbers of steps (`momos.compress`).

    Weights are rounded to whole steps, so that large ones are kept however rare they are, and
    the motifs are the different results.

    - `step`: relative to the weights, as `unit` says. Halving it costs about one bit a weight.
    - `unit`: "network" takes one step for the whole network, so that the error is the same
      everywhere: `step` times the geometric mean, over all weights, of the root mean square of
      their output channel. "channel" takes `step` times the root mean square of each output channel.
      "auto" takes the channel's in a network with recurrent layers, known by their names, and
      for embeddings; elsewhere the network's.
    - `rate_weight`: squares of a step that one bit less is worth.
    - `block_size`: longer blocks do not lower the error; they serve what runs from blocks.
    - `states`: of the trellis on which blocks of one weight are rounded. 1 rounds each on its own.
      8 to 256 use half steps (0.65 of `step`), of which each weight may take every other one,
      depending on those before it (trellis-coded quantization, Marcellin and Fischer 1990): a fifth
      to a quarter less squared error at the same size. None means 256, but 64 for more than a
      million weights and 8 for more than ten million.
    - `balance`: makes the errors of neighbouring weights cancel: the squared sum of the errors in each
      kernel and in each output channel counts too. Inputs at neighbouring positions are alike,
      and inputs after a ReLU have a mean, so outputs depend on these sums. Blocks of one weight only.
    - `channel_axis`: which dimension of a tensor holds its output channels: the "first", as
      PyTorch has it, or the "last", as Flax and Keras do (embeddings apart).
    - `include`, `exclude`, `min_ndim`, `dense_dtype` are those of `MosaicConfig`.

    Raises:
        ValueError: if a value is out of range.

    Example:
        >>> config = momos.LatticeConfig(step=0.14, exclude=("*embedding*",))
        >>> model = nn.Linear(100, 100)
        >>> coarse = momos.compress(model, "coarse.momos", config)
        >>> coarse.num_bytes < momos.compress(model, "net.momos").num_bytes
        True
    """

    step: float = 0.07
    rate_weight: float = 0.1
    block_size: int = 1
    unit: Unit = "auto"
    channel_axis: ChannelAxis = "first"
    states: int | None = None
    balance: bool = True
    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    min_ndim: int = 2
    dense_dtype: DenseDtype = "bfloat16"

    def __post_init__(self) -> None:
        object.__setattr__(self, "step", _positive("step", self.step))
        object.__setattr__(self, "rate_weight", _rate_weight(self.rate_weight))
        check_whole("block_size", self.block_size, least=1)
        check_whole("min_ndim", self.min_ndim, least=0)
        if not isinstance(self.balance, bool):
            raise TypeError(f"balance must be a bool, got {self.balance!r}")
        if self.states is not None:
            check_whole("states", self.states, least=1)
            if self.states not in TRELLISES:
                raise ValueError(f"states must be one of {TRELLISES}, got {self.states}")
            if self.states > 1 and self.block_size > 1:
                raise ValueError(
                    f"states must be 1 where blocks are longer than 1, got {self.states}"
                )
        _check_option("unit", self.unit, get_args(Unit))
        _check_option("channel_axis", self.channel_axis, get_args(ChannelAxis))
        _check_option("dense_dtype", self.dense_dtype, get_args(DenseDtype))
        for name in ("include", "exclude"):
            object.__setattr__(self, name, _patterns(name, getattr(self, name)))


def known_config(settings: Mapping[str, Any]) -> MosaicConfig | LatticeConfig | None:
    """Settings written by this or another version; None if this version does not know them."""
    kind = LatticeConfig if "step" in settings else MosaicConfig
    names = kind.__dataclass_fields__.keys() & settings.keys()
    try:
        return kind(**{name: settings[name] for name in names})
    except (ValueError, TypeError):
        return None


LEARNED: dict[str, Any] = {
    "block_size": 2,
    "selection": "kmeans",
    "min_ndim": 2,
    "scales": "tensor",
    "rate_weight": 0.5,
    "bits": 8,
    "dense_dtype": "bfloat16",
}
WHOLE: dict[str, Any] = {"selection": "whole", "block_size": 1, "rate_weight": 1e-6}


def check_whole(name: str, value: int, *, least: int) -> None:
    """Refuses anything but whole numbers of at least `least`.

    Raises:
        TypeError: if it is not an int.
        ValueError: if it is too small.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, got {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")


def _check_option(name: str, value: object, options: tuple[str, ...]) -> None:
    if value not in options:
        raise ValueError(f"{name} must be one of {', '.join(options)}, got {value!r}")


def _rate_weight(value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"rate_weight must be a number, got {value!r}")
    if not 0 <= value <= sys.float_info.max:
        raise ValueError(f"rate_weight must be at least 0 and finite, got {value}")
    return float(value)


def _positive(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if not 0 < value <= sys.float_info.max:
        raise ValueError(f"{name} must be above 0 and finite, got {value}")
    return float(value)


def _patterns(name: str, value: Iterable[str]) -> tuple[str, ...]:
    if isinstance(value, str):
        raise TypeError(f"{name} must be a sequence of patterns, got the string {value!r}")
    patterns = tuple(value)
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise TypeError(f"{name} must hold patterns as strings, got {pattern!r}")
    return patterns
