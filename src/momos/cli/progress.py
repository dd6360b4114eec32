"""A progress bar for whatever takes long enough to need one."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import Progress, TaskID

from momos._util.work import Progress as Report
from momos.cli.terminal import console

PATIENCE = 1.0  # seconds before a bar appears


@contextmanager
def bars() -> Iterator[Report]:
    """A function that shows how far work is, on standard error, where that is a terminal."""
    started = time.monotonic()
    shown: dict[str, TaskID] = {}
    progress = Progress(console=console(error=True), transient=True)

    def report(doing: str, done: int, total: int) -> None:
        if time.monotonic() - started < PATIENCE or not progress.console.is_terminal:
            return
        if doing not in shown:
            progress.start()
            shown[doing] = progress.add_task(doing, total=total)
        progress.update(shown[doing], completed=done, total=total)

    try:
        yield report
    finally:
        if shown:
            progress.stop()
