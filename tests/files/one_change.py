"""The file that all hostile ones are made of, by one change."""

from collections.abc import Callable, Iterator
from pathlib import Path

from mutants import Draft

GOLDEN = Path(__file__).parent / "golden" / "v1"
BASE = (GOLDEN / "everything.momos").read_bytes()

Files = Iterator[tuple[str, bytes]]  # what is wrong with each


def changed(change: Callable[[Draft], object]) -> bytes:
    draft = Draft.of(BASE)
    change(draft)
    return draft.file()
