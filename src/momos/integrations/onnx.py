"""Exports a mosaic to ONNX as motifs and packed indices, from which the graph rebuilds the weights.

Only standard operators are used (Cast, Gather, Reshape, Mul), so that any runtime runs the file. Indices
are uint4, uint8, uint16 or int32; those of 12 bits are a uint8 and a uint4 each.
"""

import copy
import os
import tempfile
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from momos._util.atomic import replacing
from momos.blocks import Placement, memory
from momos.compact.bitpack import index_bits, pack
from momos.compact.compacting import expand_, is_compact, why_not_packed
from momos.mosaic import Mosaic

try:
    onnx: Any = import_module("onnx")
    helper: Any = import_module("onnx.helper")
    import_module("onnxscript")  # by which torch.onnx exports
except ModuleNotFoundError as error:
    if error.name not in ("onnx", "onnxscript"):
        raise
    raise ImportError(
        'momos.integrations.onnx needs onnx and onnxscript: pip install "mosaic-of-motifs[onnx]"'
    ) from None

__all__ = ("export",)

TensorProto = onnx.TensorProto
OPSET = 21  # the first that casts uint4
LARGEST = 2**31 - 2**20  # bytes of one file; beyond, tensors go to a file of their own
KINDS = {
    torch.int8: TensorProto.INT8,
    torch.float16: TensorProto.FLOAT16,
    torch.bfloat16: TensorProto.BFLOAT16,
    torch.float32: TensorProto.FLOAT,
    torch.float64: TensorProto.DOUBLE,
}


def export(
    model: nn.Module,
    inputs: Sequence[Any],
    path: str | os.PathLike[str],
    *,
    dynamic_shapes: Any = None,
    **options: Any,
) -> dict[str, str]:
    """Writes `model`, a mosaic or compact, to `path`, and returns which weights stayed dense and why.

    `inputs` are example arguments; `dynamic_shapes` and `options` are those of `torch.onnx.export`. A
    model that is compact is expanded first, in a copy. What the file computes is, but for the runtime's own
    rounding, what the dense mosaic computes: weights are the same bit for bit.

    Raises:
        ImportError: if onnx or onnxscript is not installed.
        ValueError: if `model` is not a mosaic.
        OSError: if `path` cannot be written.

    Example:
        >>> from momos.integrations import onnx
        >>> model = nn.Linear(64, 256).eval()
        >>> _ = momos.project_(model, momos.MosaicConfig(block_size=4, num_motifs=16, min_ndim=2))
        >>> onnx.export(model, (torch.randn(1, 64),), "net.onnx")
        {}
    """
    if is_compact(model):
        model = copy.deepcopy(model)
        expand_(model)
    mosaic = Mosaic.of(model)
    program = torch.onnx.export(
        model,
        tuple(inputs),
        dynamo=True,
        optimize=False,  # which would fold weights into others
        opset_version=OPSET,
        dynamic_shapes=dynamic_shapes,
        verbose=False,
        **options,
    )
    assert program is not None
    proto = program.model_proto
    dense = pack_weights_(proto, mosaic, _names(model, mosaic))
    _write(proto, Path(path))
    return dense


def pack_weights_(
    proto: Any, mosaic: Mosaic, names: Mapping[str, Placement]
) -> dict[str, str]:
    """Replaces initializers of `proto` that are weights of the mosaic; returns those that stay, and why."""
    graph, kept, nodes, added = proto.graph, [], [], []
    reasons = {
        place.name: "torch.onnx did not keep it as it is" for place in names.values()
    }
    for tensor in graph.initializer:
        place = names.get(tensor.name)
        if place is None:
            kept.append(tensor)
            continue
        reasons[place.name] = why_not_packed(place, mosaic.num_motifs)
        if reasons[place.name]:
            kept.append(tensor)
            continue
        tensors, operations = _rebuilding(tensor.name, place, mosaic)
        added += tensors
        nodes += operations
    if nodes:
        added.append(_initializer("momos.motifs", mosaic.motifs))
    nodes += graph.node
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend(kept + added)
    graph.node.extend(nodes)
    return {name: why for name, why in reasons.items() if why}


def _write(proto: Any, path: Path) -> None:
    """Writes one file; beyond `LARGEST`, the tensors into another next to it. Old files are replaced."""
    if proto.ByteSize() < LARGEST:
        with replacing(path) as file:
            file.write(proto.SerializeToString())
        return
    data = f"{path.name}.data"
    with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as name:
        new = Path(name)
        options = {"save_as_external_data": True, "location": data}
        onnx.save_model(proto, os.fspath(new / path.name), **options)
        for part in (data, path.name):
            (new / part).replace(path.parent / part)


def _names(model: nn.Module, mosaic: Mosaic) -> dict[str, Placement]:
    """Every name of each parameter of the mosaic."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    places = {memory(parameters[place.name]): place for place in mosaic.layout.placements}
    return {
        name: places[memory(parameter)]
        for name, parameter in parameters.items()
        if memory(parameter) in places
    }


def _rebuilding(name: str, place: Placement, mosaic: Mosaic) -> tuple[list[Any], list[Any]]:
    """The initializers and nodes that give the weight `name`."""
    indices = mosaic.indices[place.start : place.stop].cpu()
    tensors, nodes = _indices(name, indices, index_bits(mosaic.num_motifs))

    def step(kind: str, inputs: list[str], output: str, **about: Any) -> str:
        nodes.append(helper.make_node(kind, inputs, [f"{name}.{output}"], **about))
        return f"{name}.{output}"

    def constant(values: list[int], what: str) -> str:
        tensors.append(_initializer(f"{name}.{what}", torch.tensor(values)))
        return f"{name}.{what}"

    value = step("Gather", ["momos.motifs", f"{name}.indices"], "blocks", axis=0)
    if place.num_weights < place.num_blocks * mosaic.layout.block_size:
        flat = step("Reshape", [value, constant([-1], "flat")], "padded")
        ends = [constant([0], "first"), constant([place.num_weights], "last")]
        value = step("Slice", [flat, *ends], "values")
    value = step("Reshape", [value, constant(list(place.shape), "shape")], "shaped")
    kind, scale = mosaic.motifs.dtype, mosaic.scale(place)
    if scale is not None:
        wide = torch.float64 if place.dtype == torch.float64 else torch.float32
        if kind != wide:
            value = step("Cast", [value], "wide", to=KINDS[wide])
        shape = [-1 if dim == place.axis else 1 for dim in range(len(place.shape))]
        factors = scale.cpu().to(wide)
        factors = factors if len(factors) == 1 else factors.view(shape)
        tensors.append(_initializer(f"{name}.scales", factors))
        value, kind = step("Mul", [value, f"{name}.scales"], "scaled"), wide
    last = ("Identity", {}) if kind == place.dtype else ("Cast", {"to": KINDS[place.dtype]})
    nodes.append(helper.make_node(last[0], [value], [name], **last[1]))
    return tensors, nodes


def _indices(name: str, indices: Tensor, bits: int) -> tuple[list[Any], list[Any]]:
    """Packed indices, and the nodes that make them the int32 `<name>.indices`."""
    whole = f"{name}.indices"
    wide = indices.int()

    def cast(part: str, output: str) -> Any:
        return helper.make_node("Cast", [part], [output], to=TensorProto.INT32)

    if bits == 12:
        low, high = (f"{name}.indices_{part}" for part in ("low", "high"))
        tensors = [
            _packed(low, TensorProto.UINT8, wide & 255, 8),
            _packed(high, TensorProto.UINT4, wide >> 8, 4),
            _initializer(f"{name}.256", torch.tensor(256, dtype=torch.int32)),
        ]
        nodes = [
            cast(low, f"{low}_int"),
            cast(high, f"{high}_int"),
            helper.make_node("Mul", [f"{high}_int", f"{name}.256"], [f"{high}_above"]),
            helper.make_node("Add", [f"{low}_int", f"{high}_above"], [whole]),
        ]
        return tensors, nodes
    kinds = {4: TensorProto.UINT4, 8: TensorProto.UINT8, 16: TensorProto.UINT16}
    if bits == 32:
        return [_initializer(whole, wide)], []
    packed = _packed(f"{name}.packed", kinds[bits], wide, bits)
    return [packed], [cast(f"{name}.packed", whole)]


def _packed(name: str, kind: int, indices: Tensor, bits: int) -> Any:
    raw = bytes(pack(indices, bits).numpy())
    return helper.make_tensor(name, kind, [len(indices)], raw, raw=True)


def _initializer(name: str, values: Tensor) -> Any:
    kinds = KINDS | {torch.int32: TensorProto.INT32, torch.int64: TensorProto.INT64}
    flat = values.detach().cpu().contiguous()
    raw = bytes(flat.view(-1).view(torch.uint8).numpy())
    return helper.make_tensor(name, kinds[flat.dtype], list(flat.shape), raw, raw=True)
