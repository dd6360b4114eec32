"""One number for all values of a network, whatever file they came from."""

import hashlib
from collections.abc import Callable, Iterable

from torch import Tensor

from momos._util.work import Progress, quiet
from momos.codec import raw
from momos.files.manifest import Record


class Hashing:
    """SHA-256 of the bytes of all stored values, tensor after tensor in the order of the file."""

    def __init__(
        self,
        records: Iterable[Record],
        progress: Progress = quiet,
        doing: str = "checking weights",
    ) -> None:
        self.stored = [record for record in records if record.stored != "same"]
        self._total = sum(record.num_weights for record in self.stored)
        self._done = 0
        self._progress, self._doing = progress, doing
        self._digest = hashlib.sha256()

    def update(self, values: Tensor) -> memoryview:
        """Takes in the next values; their bytes."""
        data = raw(values).numpy().data
        self._digest.update(data)
        self._done += len(values)
        self._progress(self._doing, self._done, self._total)
        return data

    def hexdigest(self) -> str:
        return self._digest.hexdigest()


def sha256_of(
    records: Iterable[Record],
    pieces: Callable[[Record], Iterable[Tensor]],
    progress: Progress = quiet,
) -> str:
    """The SHA-256 of all values, which `pieces` gives for each record."""
    hashing = Hashing(records, progress)
    for record in hashing.stored:
        for values in pieces(record):
            hashing.update(values)
    return hashing.hexdigest()
