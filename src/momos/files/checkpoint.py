"""What `load` gives back: a mosaic, and the tensors that are not blocks."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from momos.files.contents import Contents
from momos.files.manifest import Record
from momos.mosaic import Mosaic


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """All tensors of a network: those that are blocks as a mosaic, the others dense, by name.

    `mosaic` is None if no tensor is blocks. `metadata` is that of the checkpoint which was
    compressed, if it had any.
    """

    mosaic: Mosaic | None
    dense: dict[str, Tensor]
    records: tuple[Record, ...] = field(repr=False)
    metadata: dict[str, str] = field(default_factory=dict)

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor by every name it has; names of one tensor share it."""
        values = self.dense | (self.mosaic.dense() if self.mosaic else {})
        return {
            record.name: values[record.same_as or record.name] for record in self.records
        }

    def state_dict(self) -> dict[str, Tensor]:
        """As the saved model's: buffers that it left out of its own are left out here."""
        values = self.tensors()
        return {
            record.name: values[record.name] for record in self.records if record.persistent
        }

    def contents(self) -> Contents:
        """What is to be written to save this again.

        Raises:
            ValueError: if `dense` has other names, shapes or dtypes than `records`.
        """
        wanted = {r.name: (r.dtype, r.shape) for r in self.records if r.stored == "dense"}
        found = {name: (t.dtype, tuple(t.shape)) for name, t in self.dense.items()}
        for name in wanted | found:
            if found.get(name) != wanted.get(name):
                raise ValueError(
                    f"tensor {name!r} of a checkpoint must be {_described(wanted.get(name))}, "
                    f"as its record says, got {_described(found.get(name))}"
                )
        flat = {name: t.detach().contiguous().view(-1) for name, t in self.dense.items()}

        def read(name: str, start: int, stop: int) -> Tensor:
            return flat[name][start:stop].cpu()

        return Contents(self.records, self.mosaic, read, self.metadata)


def _described(about: tuple[torch.dtype, tuple[int, ...]] | None) -> str:
    return f"{about[0]} of shape {about[1]}" if about else "absent"
