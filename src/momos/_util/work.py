"""Long work: reporting its progress, and spreading it over threads."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")

Progress = Callable[
    [str, int, int], None
]  # what is being done, how much of it is done, and of how much


def quiet(doing: str, done: int, total: int) -> None:
    """Reports nothing."""


def in_parallel(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """The results of `work` for each item, in order, on as many threads as torch uses.

    Items are drawn as they are needed, so only a few are in memory at a time. Meanwhile torch uses
    one thread for each of its own calls: more of them, on top of these, would wait for each other.
    """
    threads = torch.get_num_threads()
    if threads == 1:
        yield from map(work, items)
        return
    torch.set_num_threads(1)
    running: deque[Future[Result]] = deque()
    try:
        with ThreadPoolExecutor(threads) as pool:
            try:
                for item in items:
                    running.append(pool.submit(work, item))
                    if len(running) > 2 * threads:
                        yield running.popleft().result()
                while running:
                    yield running.popleft().result()
            finally:
                for future in running:
                    future.cancel()
    finally:
        torch.set_num_threads(threads)
