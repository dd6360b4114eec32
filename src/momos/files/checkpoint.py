"""What `load` gives back: a mosaic, and the tensors that are not blocks."""

from dataclasses import dataclass, field

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
        """What is to be written to save this again."""

        def read(name: str, start: int, stop: int) -> Tensor:
            return self.dense[name].contiguous().view(-1)[start:stop].cpu()

        return Contents(self.records, self.mosaic, read, self.metadata)
