"""From a .momos file back to a dense checkpoint, piece by piece."""

import json
import os
import struct

from momos.files.atomic import refuse_same, replacing
from momos.files.hashing import Hashing
from momos.files.manifest import Record
from momos.files.progress import Progress, quiet
from momos.files.reader import MosaicFile
from momos.sources import CODES

CODE_OF = {dtype: code for code, dtype in CODES.items()}


def expand(
    path: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    progress: Progress = quiet,
) -> None:
    """Writes the tensors of the .momos file at `path` to the safetensors file `output`.

    Tensors with several names are written under each. Buffers that `state_dict` leaves out are
    left out. All checksums are compared before `output` appears.

    Raises:
        FormatError: if the file is damaged or not a .momos file.
        ValueError: if safetensors has no code for a tensor's dtype; names the tensor.
        OSError: if a file cannot be read or written.
    """
    refuse_same(path, output)
    with MosaicFile(path) as file:
        file.check_sections(*file.file.sections)
        stored = {record.name: record for record in file.manifest.records}
        written = {
            name: stored[record.same_as or name]
            for name, record in stored.items()
            if record.persistent
        }
        header, starts = _header(written, file.manifest.metadata)
        copies: dict[str, list[int]] = {name: [] for name in stored}
        for name, record in written.items():
            copies[record.name].append(len(header) + starts[name])
        with replacing(output) as target:
            target.write(header)
            hashing = Hashing(stored.values(), progress)
            for record in hashing.stored:
                at = 0
                for values in file.pieces(record):
                    data = hashing.update(values)
                    for start in copies[record.name]:
                        target.seek(start + at)
                        target.write(data)
                    at += len(data)
            file.check_weights(hashing.hexdigest())


def _header(
    written: dict[str, Record], metadata: dict[str, str]
) -> tuple[bytes, dict[str, int]]:
    """A safetensors header, and where each tensor's values begin behind it.

    Wide values come first, so that all are aligned.
    """
    for name, record in written.items():
        if record.dtype not in CODE_OF:
            raise ValueError(
                f"a safetensors file can hold {', '.join(CODES)}, but tensor {name!r} is "
                f"{record.dtype}"
            )
    header: dict[str, object] = {"__metadata__": {"format": "pt"} | metadata}
    starts, position = {}, 0
    for name in sorted(written, key=lambda name: -written[name].dtype.itemsize):
        record = written[name]
        starts[name] = position
        header[name] = {
            "dtype": CODE_OF[record.dtype],
            "shape": record.shape,
            "data_offsets": [position, position + record.num_bytes],
        }
        position += record.num_bytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text = text.ljust(-(-len(text) // 8) * 8)
    return struct.pack("<Q", len(text)) + text, starts
