"""One number for all values of a network, whatever file they came from."""

import hashlib
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from momos.files.manifest import Record
from momos.files.progress import Progress, quiet


def sha256_of(
    records: Iterable[Record],
    pieces: Callable[[Record], Iterable[Tensor]],
    progress: Progress = quiet,
) -> str:
    """SHA-256 of the bytes of all values, tensor after tensor in the order of the file."""
    stored = [record for record in records if record.stored != "same"]
    total, done = sum(record.num_weights for record in stored), 0
    digest = hashlib.sha256()
    for record in stored:
        for values in pieces(record):
            digest.update(values.view(torch.uint8).numpy().data)
            done += len(values)
            progress("checking weights", done, total)
    return digest.hexdigest()
