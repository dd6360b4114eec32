"""Timing and tables for the scripts beside this one."""

import os
import platform
import resource
import statistics
import time
from collections.abc import Callable

import torch


def seconds(*actions: Callable[[], object], repeat: int = 7) -> list[float]:
    """Median time of each action; they are run in turn, so that all see the same machine.

    Each waits until the thread pools of the one before have stopped spinning on the cores.
    """
    taken: list[list[float]] = [[] for _ in actions]
    for round_ in range(repeat + 1):
        for action, times in zip(actions, taken, strict=True):
            time.sleep(0.02)
            start = time.perf_counter()
            action()
            if round_ or repeat == 1:  # the first round warms up
                times.append(time.perf_counter() - start)
        if repeat == 1:
            break
    return [statistics.median(times) for times in taken]


def table(header: list[str], rows: list[list[str]]) -> None:
    """Prints a Markdown table with aligned columns."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in (header, ["-" * width for width in widths], *rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("| " + " | ".join(cells) + " |", flush=True)


def milliseconds(value: float) -> str:
    return f"{value * 1e3:.3g} ms" if value < 1 else f"{value:.3g} s"


def peak_bytes() -> int:
    """The most memory this process has had resident so far."""
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def machine() -> str:
    """One line: processor, cores and threads used, versions."""
    name = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as info:
            name = next(line for line in info if line.startswith("model name"))
            name = name.split(":")[1].strip()
    except (OSError, StopIteration):
        pass
    return (
        f"{name}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, "
        f"Python {platform.python_version()}, torch {torch.__version__}"
    )
