"""The manifest of a file: its tensors, and the length of each coded part.

Version 2 is written; `Manifest` also holds what is read from version 1.
"""

import json
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from momos.blocks import Layout

DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        *(torch.bool, torch.uint8, torch.uint16, torch.uint32, torch.uint64),
        *(torch.int8, torch.int16, torch.int32, torch.int64),
        *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
        *(torch.complex64, torch.complex128),
        *(torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz),
        *(torch.float8_e5m2fnuz, torch.float8_e8m0fnu),
    )
}
GROWTH = 64  # the manifest grows at most this many times when it is inflated,
LEAST_GROWTH = 1 << 16  # or to this many bytes
MOST_BYTES = 1 << 27  # of the section; the header of a safetensors file has at most 100 MB
SCALE_BYTES = 4

# The text that every manifest of version 2 is deflated with (a preset dictionary of zlib). Most
# manifests repeat most of it, so small files get shorter by a few hundred bytes. It is part of the
# format (docs/format.md, §9): if a byte of it changes, no file of version 2 can be read.
NAMES = (
    '"float16","float64","int64","bool","uint8",'
    ".self_attn.in_proj_weight.out_proj.embed_tokens.q_proj.k_proj.v_proj."
    "attention.query.key.value.mlp.fc1.fc2.gate_proj.up_proj.down_proj.norm1.LayerNorm.ln_1"
    ".lstm.weight_ih_l0.weight_hh_l0.bias_ih_l0.bias_hh_l0"
    ".encoder.decoder.head.classifier.features.downsample.layer4.2.conv1.layer3.1.conv2"
    '.layer2.0.bn1.bn2.running_mean.running_var.num_batches_tracked","stored":"dense",'
    '"shape":[],"dtype":"int64","why":"not floating","why":"not chosen","why":"frozen",'
    '"why":"empty","why":"buffer","why":"buffer that state_dict leaves out",'
    '"stored":"same","as":","persistent":false,"scales":64,"axis":1,'
    '"distortion":0.0,"energy":1.0'
)
SETTINGS = (
    '"config":{"block_size":2,"capacity":null,"num_motifs":64,"include":["*"],"exclude":[],'
    '"zero_motif":true,"selection":"kmeans","seed":0,"min_ndim":2,"scales":"tensor",'
    '"rate_weight":0.5,"bits":8,"dense_dtype":"bfloat16","groups":[]}}'
    '"config":{"step":0.07,"rate_weight":0.1,"block_size":1,"unit":"auto",'
    '"channel_axis":"first","states":null,"balance":true,"include":["*"],"exclude":[],'
    '"min_ndim":2,"dense_dtype":"bfloat16"}}'
    '"metadata":{"format":"pt"}}'
)
FRAME = (
    '{"producer":"momos 0.1.0","motifs":{"block_size":1,"num_motifs":256,"dtype":"int8",'
    '"packs":[[[0,256]]],"order":"whole","scales":[[[32,11],[32,11],[32,11],[32,11]]],'
    '"states":64,"usage":{"significant":4,"streams":[[1,168]]}},"tensors":['
    '{"name":"bn1.running_mean","stored":"dense","shape":[16],"dtype":"float32",'
    '"why":"running statistics, rounded to bfloat16"},'
    '{"name":"fc.bias","stored":"dense","shape":[64],"dtype":"float32",'
    '"why":"fewer than 2 dimensions, rounded to bfloat16"},'
    '{"name":"conv1.weight","stored":"blocks","shape":[64,64,3,3],"dtype":"float32",'
    '"streams":[[11,100]],"distortion":0.01,"energy":1.0}],'
    '"dense":[{"dtype":"float32","packs":[[[5,0],[5,0],[0,100],[32,100]]]}],"sha256":"'
)
DICTIONARY = (NAMES + SETTINGS + FRAME).encode()

Coded = tuple[int, int]  # the rate of a stream or plane, and its length in bytes
Packs = tuple[tuple[Coded, ...], ...]  # of each pack, its planes


@dataclass(frozen=True)
class Record:
    """One tensor: its name, and whether it is stored as blocks, dense, or as an alias."""

    name: str
    stored: Literal["blocks", "dense", "same"]
    shape: tuple[int, ...] = ()
    dtype: torch.dtype = torch.float32
    streams: tuple[Coded, ...] = ()
    num_scales: int = 1  # of blocks, where there are scales
    axis: int = 0  # of blocks: the dimension of the output channels
    distortion: float | None = None
    energy: float | None = None  # sum of squares of the weights before
    same_as: str = ""
    why: str = ""
    persistent: bool = True

    @property
    def num_weights(self) -> int:
        return math.prod(self.shape)

    @property
    def num_bytes(self) -> int:
        """Bytes of the tensor itself; none for an alias."""
        return 0 if self.stored == "same" else self.num_weights * self.dtype.itemsize

    def padded_bytes(self, block_size: int) -> int:
        """Bytes of the tensor; of blocks, with their padding."""
        if self.stored != "blocks":
            return self.num_bytes
        return -(-self.num_weights // block_size) * block_size * self.dtype.itemsize


@dataclass(frozen=True)
class CodedBank:
    """The motifs, their scales and their usage, as coded; `significant` 0 means no table.

    `ordered` motifs are whole numbers in the order 0, −1, 1, −2, 2, …, coded by their distances.
    With `states`, blocks are coded by value, on a trellis of that many states.
    """

    block_size: int
    num_motifs: int
    dtype: torch.dtype
    packs: Packs
    scales: Packs | None = None
    num_scales: int = 0
    significant: int = 0
    usage: tuple[Coded, ...] = ()
    ordered: bool = False
    states: int = 0

    @property
    def num_bytes(self) -> int:
        """Bytes of motifs, usage and scales in memory."""
        motif_bytes = self.block_size * self.dtype.itemsize
        return self.num_motifs * (motif_bytes + 8) + SCALE_BYTES * self.num_scales


@dataclass(frozen=True)
class Manifest:
    """Everything known about a file before anything is decoded."""

    records: tuple[Record, ...]
    bank: CodedBank | None
    dense: tuple[tuple[torch.dtype, Packs], ...]
    sha256: str
    config: dict[str, Any] | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    producer: str = ""

    def of_kind(self, stored: str) -> Iterator[Record]:
        return (record for record in self.records if record.stored == stored)

    @property
    def num_bytes(self) -> int:
        """Bytes in memory of everything in the file, blocks padded."""
        bank = self.bank.num_bytes if self.bank else 0
        size = self.bank.block_size if self.bank else 1
        return bank + sum(record.padded_bytes(size) for record in self.records)

    def layout(self) -> Layout | None:
        """The layout of the mosaic, if there is one."""
        if self.bank is None:
            return None
        return Layout.cut(
            self.bank.block_size,
            (
                (record.name, record.shape, record.dtype)
                for record in self.of_kind("blocks")
            ),
            {record.name: record.axis for record in self.of_kind("blocks")},
        )


def num_packed(packs: Packs) -> int:
    """Bytes of coded packs."""
    return sum(length for planes in packs for _, length in planes)


def write_manifest(manifest: Manifest) -> bytes:
    """The section of `manifest`: JSON, deflated.

    Raises:
        ValueError: if it is longer than readers accept.
    """
    value: dict[str, Any] = {"producer": manifest.producer}
    if manifest.bank is not None:
        value["motifs"] = _bank(manifest.bank)
    value["tensors"] = [_record(record) for record in manifest.records]
    value["dense"] = [
        {"dtype": name_of(dtype), "packs": packs} for dtype, packs in manifest.dense
    ]
    value["sha256"] = manifest.sha256
    if manifest.config is not None:
        value["config"] = manifest.config
    if manifest.metadata:
        value["metadata"] = manifest.metadata
    text = json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
    deflated = _deflated(text, 9)
    if len(text) > max(LEAST_GROWTH, GROWTH * len(deflated)):
        deflated = _deflated(text, 0)
    if len(deflated) > MOST_BYTES:
        raise ValueError(
            f"names, shapes and metadata must deflate to at most {MOST_BYTES} bytes, got "
            f"{len(deflated)}"
        )
    return deflated


def _deflated(text: bytes, level: int) -> bytes:
    deflater = zlib.compressobj(level, memLevel=9, zdict=DICTIONARY)
    return deflater.compress(text) + deflater.flush()


def _bank(bank: CodedBank) -> dict[str, Any]:
    value: dict[str, Any] = {
        "block_size": bank.block_size,
        "num_motifs": bank.num_motifs,
        "dtype": name_of(bank.dtype),
        "packs": bank.packs,
    }
    if bank.ordered:
        value["order"] = "whole"
    if bank.scales is not None:
        value["scales"] = bank.scales
    if bank.states:
        value["states"] = bank.states
    if bank.significant:
        value["usage"] = {"significant": bank.significant, "streams": bank.usage}
    return value


def _record(record: Record) -> dict[str, Any]:
    value: dict[str, Any] = {"name": record.name, "stored": record.stored}
    if record.stored == "same":
        return value | {"as": record.same_as}
    value |= {"shape": record.shape, "dtype": name_of(record.dtype)}
    if record.stored == "blocks":
        value["streams"] = record.streams
        if record.num_scales > 1:
            value["scales"] = record.num_scales
        if record.axis:
            value["axis"] = record.axis
    for key in ("distortion", "energy"):  # for a share in percent
        number = getattr(record, key)
        if number is not None and math.isfinite(number):
            value[key] = float(f"{number:.4g}")
    if record.why:
        value["why"] = record.why
    if not record.persistent:
        value["persistent"] = False
    return value


def name_of(dtype: torch.dtype) -> str:
    """The name of a dtype in a file."""
    return str(dtype).removeprefix("torch.")
