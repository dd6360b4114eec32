"""Work while other processes keep every core busy, as data-loader workers do, against quiet cores.

A busy process on each core is started here and stopped again. A short parallel region must not wait
for a thread that is not running. With one thread twice the quiet time is the fair share of a
core. Quiet and loaded times are taken in turn; what else the machine did is said below.
"""

import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack, contextmanager

import torch
from measure import milliseconds, table
from torch import nn

import momos
from momos.study.tasks.architectures import mlp, resnet20
from momos.vq.gather import gather, sum_by_motif

ROUNDS, SECONDS = 5, 0.6  # of each work, quiet and loaded in turn


def main() -> None:
    torch.manual_seed(0)
    before = os.getloadavg()[0]
    rows = []
    for name, work in works():
        quiet, loaded = times(work)
        cells = [milliseconds(quiet), milliseconds(loaded), f"{loaded / quiet:.1f}"]
        rows.append([name, *cells])
    table(["work", "quiet", "loaded", "loaded ÷ quiet"], rows)
    print(f"\nOthers' load when it began: {before:.1f} processes.")


def works() -> list[tuple[str, Callable[[], object]]]:
    model = resnet20()
    config = momos.MosaicConfig(block_size=2, capacity=0.05)
    weights = list(model.parameters())
    first = [weight.detach().clone() for weight in weights]

    def project() -> None:
        """Of weights that are no mosaic, as after a step of an optimizer."""
        with torch.no_grad():
            for weight, values in zip(weights, first, strict=True):
                weight.copy_(values)
        momos.project_(model, config)

    motifs, indices = torch.randn(6745, 2), torch.randint(6745, (134_898,)).int()
    few = indices % 64
    rows = torch.randn(134_898, 2)
    return [
        ("project_, 270 k weights, s=2, c=5 %", project),
        ("gather of 270 k weights", lambda: gather(motifs, indices)),
        ("torch's gather of the same", lambda: motifs.index_select(0, indices)),
        ("sum_by_motif of the same, k=64", lambda: sum_by_motif(rows, few, 64)),
        ("nearest of the same", lambda: momos.nearest(rows, motifs)),
        ("re-assignment of the MLP, 987 k weights", reassignment(mlp())),
    ]


def reassignment(model: nn.Module) -> Callable[[], object]:
    config = momos.MosaicConfig.learned(rate_weight=0.5)
    momos.parametrize_(model, config, learn="weights")
    return momos.Reassign(model, total_steps=10**6).step


def times(work: Callable[[], object]) -> tuple[float, float]:
    """Median seconds of one call, on quiet cores and on busy ones."""
    found: list[list[float]] = [[], []]
    for _ in range(ROUNDS):
        for kind, own in enumerate(found):
            with busy(os.cpu_count() or 1) if kind else ExitStack():
                work()
                end = time.perf_counter() + SECONDS
                while time.perf_counter() < end:
                    begun = time.perf_counter()
                    work()
                    own.append(time.perf_counter() - begun)
    quiet, loaded = (statistics.median(own) for own in found)
    return quiet, loaded


@contextmanager
def busy(count: int):
    """That many processes that compute without end."""
    context = multiprocessing.get_context("fork")
    spinning = [context.Process(target=spin, daemon=True) for _ in range(count)]
    for process in spinning:
        process.start()
    try:
        time.sleep(0.1)
        yield
    finally:
        for process in spinning:
            process.kill()
            process.join()


def spin() -> None:
    while True:
        pass


if __name__ == "__main__":
    main()
