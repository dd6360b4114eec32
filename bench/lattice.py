"""How fast whole numbers are chosen, coded and decoded, on one core.

A stream of 2²⁰ weights, normal, with scales of output and input channels; the step is `step` times
the root mean square (on a trellis, half steps are .65 of it). `order 0` codes whole steps by
their usage alone. `bits + log2 rms error` is what counts: it hardly changes with the step.
"""

from math import log2

import torch
from measure import seconds, table

from momos.codec import STREAM_SYMBOLS, Model
from momos.codec.lattice import Geometry, decode, encode, quantize
from momos.mosaic import usage_of

ROW = 1024
HALF_STEP = 0.65


def weights() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    rows = STREAM_SYMBOLS // ROW
    values = torch.randn(rows, ROW, generator=generator)
    values *= (0.3 * torch.randn(rows, 1, generator=generator)).exp()
    values *= (0.3 * torch.randn(1, ROW, generator=generator)).exp()
    return values.view(-1) / values.square().mean().sqrt()


def order_zero(scaled: torch.Tensor) -> tuple[float, float]:
    """Bits of a weight in whole steps by symbols' own streams, and the seconds of decoding."""
    values = quantize(scaled, memory=0, rate_weight=0.1)
    symbols = (values - values.min()).to(torch.int16)
    model = Model(usage_of(symbols, int(symbols.max()) + 1))
    stream = model.encode_best(symbols)
    decoded = torch.empty_like(symbols)
    (time,) = seconds(lambda: model.decode(stream, decoded))
    return 8 * len(stream.data) / len(values), time


def row(original: torch.Tensor, memory: int, step: float) -> list[str]:
    unit = HALF_STEP if memory else 1.0
    scaled, rate_weight = original / (step * unit), 0.1 / unit**2
    values = quantize(scaled, memory=memory, rate_weight=rate_weight)
    geometry, decoded = Geometry(ROW), torch.empty_like(values)
    stream = encode(values, geometry, memory=memory)
    choose, write, read = seconds(
        lambda: quantize(scaled, memory=memory, rate_weight=rate_weight),
        lambda: encode(values, geometry, memory=memory),
        lambda: decode(stream, decoded, geometry, memory=memory),
    )
    assert torch.equal(decoded, values)
    bits = 8 * len(stream) / STREAM_SYMBOLS
    plain, plain_read = order_zero(original / step)
    error = float((original - values * step * unit).double().square().mean())
    rates = [f"{STREAM_SYMBOLS / time / 1e6:.0f} M/s" for time in (choose, write, read)]
    return [
        f"{step}",
        f"2^{memory}" if memory else "none",
        f"{bits:.3f}",
        f"{bits / plain:.3f}",
        f"{bits + log2(error) / 2:.3f}",
        *rates,
        f"{read / plain_read:.1f}",
    ]


def main() -> None:
    torch.set_num_threads(1)
    header = ["step", "memory", "bits/weight", "/ order 0", "bits + log2 rms error"]
    header += ["quantize", "encode", "decode", "decode / order 0"]
    original = weights()
    table(header, [row(original, v, step) for step in (0.1, 0.3) for v in (0, 3, 6, 8)])


if __name__ == "__main__":
    main()
