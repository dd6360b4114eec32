"""Measures networks against initializations: `python tools/zoo_page.py CHECKPOINT... -o docs`.

A checkpoint has no code, so its start is drawn by the shapes and names of its weights: torch's defaults for
linear, convolution, recurrent and embedding layers, from several seeds. Weights of two dimensions and more
are measured. What the network's authors really started from may differ, and then so does
*value distribution*; *arrangement* depends on the trained weights and their shuffles alone.
"""

import argparse
import math
import re
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import torch
from gallery_page import ABOUT, FIXED
from matplotlib.figure import Figure
from torch import Tensor

import momos
from momos.checkpoints.opening import open_source
from momos.study.report.figure import MARKERS, SERIES, STYLE
from momos.study.training.surroundings import commit

MEASURES = ("signs, order 4", "signs, lzma", "4-bit codes", "4-bit split", "float fields")
NOTES = {  # what a reader would otherwise take for a finding
    "digits-vit": "`nn.TransformerEncoder` copies its first layer, so all layers start equal and many "
    "signs still are: that is what lzma sees.",
}
RECURRENT = re.compile(r"weight_[ih]h|lstm|gru|rnn", re.IGNORECASE)
EMBEDDING = re.compile(r"embed|characters|positions|wte|wpe", re.IGNORECASE)


def initialized(state: dict[str, Tensor], seed: int) -> dict[str, Tensor]:
    """Weights of the same names and shapes, as torch draws them for the layers that names tell."""
    generator = torch.Generator().manual_seed(seed)
    drawn = {}
    for name, weight in state.items():
        if EMBEDDING.search(name):
            values = torch.randn(weight.shape, generator=generator)
        else:
            recurrent = RECURRENT.search(name)
            inputs = weight.shape[0] // 4 if recurrent else weight[0].numel()
            bound = 1 / math.sqrt(inputs)
            values = bound * (2 * torch.rand(weight.shape, generator=generator) - 1)
        drawn[name] = values.to(weight.dtype)
    return drawn


@dataclass(frozen=True)
class Factor:
    """A mean and the ends of its interval: two standard deviations each way."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Factor":
        mean, deviation = statistics.fmean(values), statistics.stdev(values)
        return cls(mean, mean - 2 * deviation, mean + 2 * deviation)

    def __str__(self) -> str:
        if f"{self.low:.3f}" == f"{self.high:.3f}":
            return f"{self.mean:.3f}"
        return f"{self.mean:.3f} ({self.low:.3f}–{self.high:.3f})"


@dataclass(frozen=True)
class Measured:
    """One measure of one network."""

    network: str
    num_weights: int
    measure: str
    arrangement: Factor
    distribution: Factor
    z: float | None


def measured(path: Path, *, seeds: int, shuffles: int) -> Iterator[Measured]:
    """All measures of a checkpoint: trained over shuffles, shuffles over initializations."""
    state = {
        name: tensor.read(0, tensor.num_weights).view(tensor.shape).float()
        for name, tensor in open_source(path).tensors.items()
        if tensor.dtype.is_floating_point
        and len(tensor.shape) >= 2
        and not FIXED.search(name)
    }
    trained = momos.measure(state, measures=MEASURES, controls=shuffles)
    starts = [
        momos.measure(initialized(state, seed), measures=MEASURES, controls=0)
        for seed in range(seeds)
    ]
    for row in trained.rows:
        if row.value is None:
            continue
        control = row.control
        middle = control.mean if control else row.value
        spread = control.deviation / control.mean if control and control.mean else 0.0
        arrangement = row.value / middle
        ratios = [middle / value for one in starts if (value := one[row.name].value)]
        yield Measured(
            path.stem,
            sum(weight.numel() for weight in state.values()),
            row.name,
            Factor(arrangement, arrangement - 2 * spread, arrangement + 2 * spread),
            Factor.of(ratios),
            control.z if control else None,
        )


def picture(rows: Sequence[Measured], path: Path) -> None:
    """Arrangement and value distribution of every network, a panel for each measure."""
    networks = list(dict.fromkeys(row.network for row in rows))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.5, 0.32 * len(networks) + 1.4), layout="constrained")
        panels = figure.subplots(1, 3, sharey=True)
        shown = ("signs, order 4", "4-bit split", "float fields")
        for axes, measure in zip(panels, shown, strict=True):
            own = {row.network: row for row in rows if row.measure == measure}
            for place, network in enumerate(networks):
                if network not in own:
                    continue
                row = own[network]
                for factor, kind in ((row.arrangement, 0), (row.distribution, 1)):
                    axes.plot(
                        (factor.low, factor.high), (place, place), color=SERIES[1 + kind]
                    )
                    axes.plot(factor.mean, place, MARKERS[1 + kind], color=SERIES[1 + kind])
            axes.axvline(1, color=SERIES[0], linewidth=0.8)
            axes.set_title(measure)
        panels[0].set_yticks(range(len(networks)), labels=networks, fontsize=9)
        panels[0].invert_yaxis()
        names = ("arrangement", "value distribution")
        handles = [
            panels[0].plot([], [], MARKERS[1 + kind], color=SERIES[1 + kind], label=name)[0]
            for kind, name in enumerate(names)
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=2)
        figure.savefig(path, dpi=110)


def page(
    rows: Sequence[Measured], command: str, *, seeds: int, shuffles: int, seconds: float
) -> Iterator[str]:
    """Markdown of the zoo."""
    count = len({row.network for row in rows})
    yield from ("# A zoo of measurements", "")
    yield (
        f"{count} trained networks against {seeds} initializations each of the same shapes. Trained / start = "
        f"*arrangement* (against {shuffles} shuffles within each tensor) × *value distribution* "
        "(shuffles against starts). Below 1 means a shorter code. In brackets: two deviations each way, of shuffles or of "
        "starts."
    )
    yield from ("", "![Arrangement and value distribution by network](zoo.png)", "")
    yield (
        "**Starts are drawn by shape**, as torch draws them by default, since a checkpoint has no code; what its authors "
        "started from may differ, and then so does the value distribution. Weights of two dimensions and more only. "
        "[What each measure can and cannot see](measures.md)."
    )
    for network in dict.fromkeys(row.network for row in rows):
        own = [row for row in rows if row.network == network]
        what, source = ABOUT.get(network, (network, "a checkpoint"))
        yield from ("", f"## {network}", "")
        text = f"{what[0].upper()}{what[1:]}; {source}."
        note = NOTES.get(network, "")
        yield from (f"{text} {own[0].num_weights:,} weights. {note}".rstrip(), "")
        yield "| measure | arrangement | z | value distribution |"
        yield "|---|--:|--:|--:|"
        for row in own:
            z = "blind" if row.z is None else f"{row.z:.0f}".replace("inf", "∞")
            arrangement = "1" if row.z is None else str(row.arrangement)
            yield f"| {row.measure} | {arrangement} | {z} | {row.distribution} |"
    yield ""
    yield f"Made in {seconds / 60:.1f} minutes, at commit {commit()}, by"
    yield from ("", "```bash", command, "```")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoints", nargs="+", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True, help="docs")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--shuffles", type=int, default=10)
    given = parser.parse_args()
    begun = time.perf_counter()
    rows: list[Measured] = []
    for path in given.checkpoints:
        rows += measured(path, seeds=given.seeds, shuffles=given.shuffles)
        print(path.name, flush=True)
    picture(rows, given.output / "zoo.png")
    names = " ".join(path.name for path in given.checkpoints)
    command = f"python tools/zoo_page.py {names} -o docs --seeds {given.seeds} --shuffles {given.shuffles}"
    seconds = time.perf_counter() - begun
    text = page(rows, command, seeds=given.seeds, shuffles=given.shuffles, seconds=seconds)
    (given.output / "zoo.md").write_text("\n".join(text) + "\n")


if __name__ == "__main__":
    main()
