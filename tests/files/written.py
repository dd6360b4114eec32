"""A second writer, of mosaics alone."""

import struct

from mutants import Draft, encode


def written(
    motifs: list[float],
    tensors: list[tuple[str, list[int], list[int]]],
    *,
    block_size: int = 1,
    usage: list[int] | None = None,
    significant: int = 1,
) -> Draft:
    """A file of float32 blocks without checksum; `usage` are the symbols of §4."""
    k = len(motifs) // block_size
    bank = {"block_size": block_size, "num_motifs": k, "dtype": "float32"}
    values = struct.pack(f"<{len(motifs)}f", *motifs)
    bank["packs"] = [[[0, len(motifs)]] * 4]
    sections = {"motifs": b"".join(values[i::4] for i in range(4)), "usage": b""}
    weights = [1] * k
    if usage is not None:
        sections["usage"] = encode(usage, [1] * (48 * 2 ** (significant - 1) + 1))
        bank["usage"] = {
            "significant": significant,
            "streams": [[0, len(sections["usage"])]],
        }
    entries, parts = [], []
    for name, shape, indices in tensors:
        parts.append(encode(indices, weights))
        streams = [[0, len(parts[-1])]]
        entry = {"name": name, "stored": "blocks", "shape": shape, "dtype": "float32"}
        entries.append(entry | {"streams": streams})
    sections |= {"mosaic": b"".join(parts), "dense": b""}
    manifest = {"producer": "test", "motifs": bank, "tensors": entries, "dense": []}
    return Draft(manifest | {"sha256": "0" * 64}, sections)
