"""How fast indices are coded and decoded, on one core.

Streams of 2²⁰ blocks, as in a file; usage as exponential draws make it. Each index is 1, 2 or 4
bytes wide, as k needs. `learns`: the stream's tables follow its own counts (which the encoder
chooses only where it makes the stream shorter; here it is forced).
"""

import torch
from measure import seconds, table

from momos.codec import STREAM_SYMBOLS, Model
from momos.mosaic import index_dtype, usage_of


def indices(num_motifs: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    shares = torch.empty(num_motifs).exponential_(generator=generator)
    edges = (shares.double().cumsum(0) / shares.double().sum())[:-1]
    draws = torch.rand(STREAM_SYMBOLS, dtype=torch.float64, generator=generator)
    return torch.searchsorted(edges, draws).to(index_dtype(num_motifs))


def row(num_motifs: int, *, learns: bool) -> list[str]:
    symbols = indices(num_motifs)
    usage = usage_of(symbols, num_motifs)
    model = Model(usage)
    share = usage[usage > 0].double() / STREAM_SYMBOLS
    entropy = -float((share * share.log2()).sum())
    rate = 12 if learns else 0
    stream = model.encode(symbols, rate=rate)
    decoded = torch.empty_like(symbols)
    encode, decode, copy = seconds(
        lambda: model.encode(symbols, rate=rate),
        lambda: model.decode(stream, decoded),
        lambda: decoded.copy_(symbols),
    )
    assert torch.equal(decoded, symbols)
    return [
        f"{num_motifs}",
        "learns" if learns else "fixed",
        f"{entropy:.4f}",
        f"{8 * len(stream.data) / STREAM_SYMBOLS:.4f}",
        f"{STREAM_SYMBOLS / encode / 1e6:.0f} M/s",
        f"{STREAM_SYMBOLS / decode / 1e6:.0f} M/s",
        f"{decode / copy:.0f}",
    ]


def main() -> None:
    torch.set_num_threads(1)
    header = ["k", "shares", "entropy, bits/block", "stream, bits/block"]
    header += ["encode", "decode", "decode / copying the indices"]
    sizes = (16, 256, 4096, 24_665, 138_158)
    table(header, [row(size, learns=learns) for size in sizes for learns in (False, True)])


if __name__ == "__main__":
    main()
