"""How long work tells what it does: a function called now and then."""

from collections.abc import Callable

Progress = Callable[[str, int, int], None]  # what is being done, how far, of how much


def quiet(doing: str, done: int, total: int) -> None:
    """Tells nobody."""
