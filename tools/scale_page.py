"""Fills the tables of docs/scale.md on large models: `python tools/scale_page.py docs/scale.md`.

Networks are built on torch's `meta` device, where tensors have shapes and no values, and cut into
blocks by `momos.Layout`. Shards are those of `fully_shard`: rows of every tensor, in equal parts
but for the last ranks'.
"""

import argparse
from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import nn

import momos
from page_parts import fill, markdown

LLAMA_7B = {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32}
LLAMA_7B |= {"num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 32000}
LLAMA_70B = {"hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80}
LLAMA_70B |= {"num_attention_heads": 64, "num_key_value_heads": 8, "vocab_size": 32000}
MODELS = {"7 B": LLAMA_7B, "70 B": LLAMA_70B}
RANKS = (8, 64)
BANKS = ((4, 4096), (8, 65536))  # block size and motifs: 3 and 2 bits a weight
STATE = 16  # bytes a weight while training: latent, gradient and two moments, in float32
INDEX, VALUE = 4, 4  # bytes of an index and of a value of a motif while training
SUMS, COUNT = 24, 8  # bytes of float64: three for each value of a motif, one for its count
FEW = 256  # motifs, up to which an index travels as one byte
COMPUTED = 2  # bytes of a weight in bfloat16, as it is gathered for a layer
GIB, MIB = 2**30, 2**20


def llama(shape: dict[str, Any]) -> nn.Module:
    """A Llama of that shape without values."""
    from transformers import LlamaConfig, LlamaForCausalLM

    with torch.device("meta"):
        return LlamaForCausalLM(LlamaConfig(**shape, tie_word_embeddings=False))


@dataclass(frozen=True)
class Plan:
    """A model cut into blocks and spread over ranks; numbers are those of the rank with most."""

    layout: momos.Layout
    dense: tuple[tuple[int, ...], ...]  # shapes of parameters that are no blocks
    num_motifs: int
    ranks: int
    largest_layer: int  # weights that are gathered at once

    @classmethod
    def of(cls, model: nn.Module, block_size: int, num_motifs: int, ranks: int) -> "Plan":
        layout = momos.Layout.of(model, block_size=block_size, min_ndim=2)
        inside = {place.name for place in layout.placements}
        named = dict(model.named_parameters())
        dense = tuple(tuple(p.shape) for name, p in named.items() if name not in inside)
        layers = (
            m
            for module in model.modules()
            if isinstance(module, nn.ModuleList)
            for m in module
        )
        largest = max(
            (sum(p.numel() for p in layer.parameters()) for layer in layers), default=0
        )
        return cls(layout, dense, num_motifs, ranks, largest)

    @property
    def held(self) -> int:
        """Weights of one rank."""
        shapes = [place.shape for place in self.layout.placements] + list(self.dense)
        return sum(rows_of(shape[0], self.ranks) * prod(shape[1:]) for shape in shapes)

    @property
    def rows(self) -> int:
        """Blocks of which one rank holds weights."""
        size = self.layout.block_size
        return sum(
            -(-rows_of(place.shape[0], self.ranks) * prod(place.shape[1:]) // size)
            for place in self.layout.placements
        )

    @property
    def cut(self) -> int:
        """Blocks whose weights are on several ranks."""
        found = set()
        for place in self.layout.placements:
            width, part = prod(place.shape[1:]), rows_of(place.shape[0], self.ranks)
            for row in range(part, place.shape[0], part):
                if row * width % self.layout.block_size:
                    found.add(place.start + row * width // self.layout.block_size)
        return len(found)

    @property
    def bank(self) -> int:
        """Bytes of all motifs, which every rank holds."""
        return VALUE * self.num_motifs * self.layout.block_size

    @property
    def memory(self) -> int:
        """Bytes of one rank beside what layers compute."""
        return STATE * self.held + INDEX * self.rows + self.bank

    def sent(self, num_bytes: int) -> float:
        """Bytes that one rank sends to gather so many, or to scatter their sums, in a ring."""
        return num_bytes * (self.ranks - 1) / self.ranks

    @property
    def plain(self) -> float:
        """Bytes that one rank sends in a step without motifs: weights twice, gradients once."""
        everything = self.layout.num_weights + sum(map(prod, self.dense))
        return self.sent((2 * COMPUTED + VALUE) * everything)

    @property
    def learned(self) -> float:
        """The same while motifs are learned: indices are gathered in place of weights in blocks."""
        index = 1 if self.num_motifs <= FEW else INDEX
        weights, others = self.layout.num_weights, sum(map(prod, self.dense))
        gathered = 2 * (index * self.layout.num_blocks + COMPUTED * others)
        return self.sent(gathered + VALUE * (weights + others))

    @property
    def projection(self) -> float:
        """Bytes that one rank sends in a projection: drawn blocks and cut blocks."""
        drawn = self.bank + VALUE * self.cut * self.layout.block_size
        return 2 * self.sent(drawn)

    @property
    def reassignment(self) -> float:
        """Bytes that one rank sends when motifs move: sums and counts, and cut blocks."""
        sums = SUMS * self.num_motifs * self.layout.block_size + COUNT * self.num_motifs
        return 2 * self.sent(sums + VALUE * self.cut * self.layout.block_size)


def rows_of(rows: int, ranks: int) -> int:
    """Rows of a tensor that the first rank holds; no other holds more."""
    return -(-rows // ranks)


def networks(plans: Iterable[tuple[str, Plan]]) -> str:
    header = ["model", "block size", "motifs", "weights in blocks", "others", "blocks"]
    header += ["bank, MiB", "file at most, GiB", "bits a weight"]
    rows = []
    for name, plan in plans:
        layout = plan.layout
        bits = momos.description_bound(
            num_blocks=layout.num_blocks,
            num_motifs=plan.num_motifs,
            block_size=layout.block_size,
            bits=16,
        )
        rows.append(
            [
                *(name, str(layout.block_size), whole(plan.num_motifs)),
                *(whole(layout.num_weights), whole(sum(map(prod, plan.dense)))),
                *(whole(layout.num_blocks), f"{plan.bank / MIB:.2f}"),
                *(f"{bits / 8 / GIB:.2f}", f"{bits / layout.num_weights:.2f}"),
            ]
        )
    return markdown(header, rows, left=1)


def memory(plans: Iterable[tuple[str, Plan]]) -> str:
    header = ["model", "GPUs", "block size", "training state", "indices", "bank, MiB"]
    header += ["together", "more than an equal share", "a layer while it computes"]
    rows = []
    for name, plan in plans:
        everything = plan.layout.num_weights + sum(map(prod, plan.dense))
        even = (STATE * everything + INDEX * plan.layout.num_blocks) / plan.ranks
        rows.append(
            [
                *(name, str(plan.ranks), str(plan.layout.block_size)),
                *(gib(STATE * plan.held), gib(INDEX * plan.rows), f"{plan.bank / MIB:.2f}"),
                gib(plan.memory),
                f"{100 * (plan.memory - even) / even:.2f} %",
                gib(COMPUTED * plan.largest_layer),
            ]
        )
    return markdown(header, rows, left=1)


def traffic(plans: Iterable[tuple[str, Plan]]) -> str:
    header = ["model", "GPUs", "block size", "motifs", "cut blocks", "plain step, GiB"]
    header += ["learned step, GiB", "motifs moved, MiB", "projection, MiB"]
    rows = [
        [
            *(name, str(plan.ranks), str(plan.layout.block_size), whole(plan.num_motifs)),
            *(whole(plan.cut), f"{plan.plain / GIB:.1f}", f"{plan.learned / GIB:.1f}"),
            *(f"{sent / MIB:.2f}" for sent in (plan.reassignment, plan.projection)),
        ]
        for name, plan in plans
    ]
    return markdown(header, rows, left=1)


def whole(number: int) -> str:
    return f"{number:,}".replace(",", " ")


def gib(num_bytes: float) -> str:
    return f"{num_bytes / GIB:.3f} GiB"


def parts(models: dict[str, nn.Module]) -> dict[str, str]:
    """The tables by the names of their places."""

    def plans(*ranks: int) -> list[tuple[str, Plan]]:
        return [
            (name, Plan.of(model, *bank, number))
            for name, model in models.items()
            for number in ranks
            for bank in BANKS
        ]

    spread = plans(*RANKS)
    return {
        "networks": networks(plans(1)),
        "memory": memory(spread),
        "traffic": traffic(spread),
    }


def main(arguments: Any = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", type=Path)
    page: Path = parser.parse_args(arguments).page
    found = parts({name: llama(shape) for name, shape in MODELS.items()})
    page.write_text(fill(page.read_text("utf-8"), found), "utf-8")


if __name__ == "__main__":
    main()
