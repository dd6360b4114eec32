"""Working on several parts at once, with few of them in memory."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_parallel(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """`work` of each item, in order, on as many threads as torch uses.

    Items are taken as they are needed, so only a few are in memory at a time. Meanwhile torch has
    one thread for each of its own calls: more of them, on top of these, wait for one another.
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
