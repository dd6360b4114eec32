"""Chooses the parameters of a model by name, and refuses those that are not whole weights.

A weight is whole if this process holds all of it, and the network computes with it directly.
"""

from collections.abc import Iterable
from fnmatch import fnmatchcase
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import ParametrizationList

from momos.shards import is_fully_sharded, is_sharded, local

FSDP = "FullyShardedDataParallel has sharded it"
SUMMON = "do this inside FullyShardedDataParallel.summon_full_params"
GATHER = (
    "gather it first, into a model that is not sharded: DTensor.full_tensor, or "
    "get_model_state_dict with StateDictOptions(full_state_dict=True)"
)
PARAMETRIZE = "torch.nn.utils.parametrize"
# What turns parameters with these endings, by which hooks compute a weight, into the weight.
REMEDIES = {
    "g": "remove_weight_norm",
    "v": "remove_weight_norm",
    "orig": "remove_spectral_norm",
    "mask": "prune.remove",
}


def chosen_parameters(
    model: nn.Module, include: tuple[str, ...], exclude: tuple[str, ...], min_ndim: int
) -> dict[str, nn.Parameter]:
    """The parameters that the patterns choose, under the first name of each.

    They may be sharded: whoever needs them whole calls `check_whole_tensors` before.
    """
    for kind, patterns in (("include", include), ("exclude", exclude)):
        if isinstance(patterns, str):
            raise TypeError(
                f"{kind} must be a sequence of patterns, got the string {patterns!r}"
            )
    names: dict[object, list[str]] = {}
    parameters: dict[object, nn.Parameter] = {}
    frozen: set[object] = set()
    for name, parameter in model.named_parameters(remove_duplicate=False):
        key = memory(parameter)
        names.setdefault(key, []).append(name)
        parameters[key] = parameter
        small = not is_lazy(parameter) and (
            not parameter.numel() or parameter.ndim < min_ndim
        )
        if small or not parameter.requires_grad:
            frozen.add(key)
    chosen = {
        aliases[0]: parameters[key]
        for key, aliases in names.items()
        if key not in frozen
        and any(matches(name, include) for name in aliases)
        and not any(matches(name, exclude) for name in aliases)
    }
    if not chosen:
        raise ValueError(
            f"at least one trainable parameter must be chosen, got none for "
            f"include={include}, exclude={exclude} among {len(names) - len(frozen)} trainable "
            "parameters" + (f" of at least {min_ndim} dimensions" if min_ndim else "")
        )
    _check_memory(chosen)
    return chosen


def _check_memory(chosen: dict[str, nn.Parameter]) -> None:
    for name, parameter in chosen.items():
        if is_lazy(parameter):
            raise ValueError(
                f"parameter {name!r} must be initialised (run one forward pass first), got an "
                "uninitialised one"
            )
        if any(
            n > 1 and step == 0
            for n, step in zip(parameter.shape, parameter.stride(), strict=True)
        ):
            raise ValueError(
                f"weights must be apart in memory, but those of {name!r} share memory "
                "(clone it or exclude it)"
            )
    devices = {parameter.device: name for name, parameter in chosen.items()}
    if len(devices) > 1:
        found = " and ".join(f"{device} ({name!r})" for device, name in devices.items())
        raise ValueError(f"all chosen parameters must be on one device, got {found}")
    held = {name: local(parameter) for name, parameter in chosen.items()}
    spans = sorted(
        (tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes, name)
        for name, tensor in held.items()
        if not tensor.is_meta and torch.ops.aten.is_non_overlapping_and_dense(tensor)
    )
    for (_, end, name), (start, _, other) in pairwise(spans):
        if start < end:
            raise ValueError(
                f"parameters must be one or apart in memory, but {min(name, other)!r} and "
                f"{max(name, other)!r} share memory (exclude one of them)"
            )


def matches(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether a name matches one of the patterns, as include and exclude do."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def memory(tensor: Tensor) -> object:
    """A key that two names share if they are one tensor: the object, or its memory."""
    if is_lazy(tensor) or tensor.is_meta or not tensor.numel() or is_sharded(tensor):
        return id(tensor)
    return (
        tensor.device,
        tensor.data_ptr(),
        tensor.dtype,
        tuple(tensor.shape),
        tensor.stride(),
        tensor.is_conj(),
        tensor.is_neg(),
    )


def check_whole_tensors(model: nn.Module) -> None:
    """Refuses a model of which this process holds only shards, or only packed indices.

    Raises:
        ValueError: if a parameter or buffer is a shard, which is named, or the model is compact.
    """
    for prefix, module in model.named_modules():
        if is_fully_sharded(module):
            name = next((name for name, _ in module.named_parameters()), "")
            raise _sharded(_joined(prefix, name), "fully_shard has sharded it", GATHER)
    check_held_tensors(model)
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        check_whole_tensor(name, tensor)


def check_held_tensors(model: nn.Module) -> None:
    """Refuses a model whose tensors are neither whole nor DTensors.

    Raises:
        ValueError: if FullyShardedDataParallel has sharded one, which is named, or the model is
            compact.
    """
    check_dense(model)
    in_sight = False
    for prefix, module in model.named_modules():
        handle = vars(module).get("_handle")
        if type(handle).__name__ == "FlatParamHandle":
            in_sight = True
            _check_handle(prefix, handle)
    tensors = [*model.named_parameters(), *model.named_buffers()]
    for name, tensor in tensors:
        _check_not_flat(name, tensor)
    if not in_sight:
        _check_flattened(tensors)


def check_dense(model: nn.Module) -> None:
    """Refuses a compact model, and one with a compact layer.

    Raises:
        ValueError: if it is.
    """
    if any(type(m).__module__.startswith("momos.compact.") for m in model.modules()):
        raise ValueError(
            f"model must have dense weights, but {type(model).__name__} is compact "
            "(momos.expand_ makes it dense)"
        )


def check_whole_tensor(name: str, tensor: Tensor) -> None:
    """Refuses a DTensor, and the flat parameter of FullyShardedDataParallel.

    Raises:
        ValueError: if the tensor is one.
    """
    if is_sharded(tensor):
        number = tensor.device_mesh.size()  # pyright: ignore[reportAttributeAccessIssue]
        raise _sharded(name, f"it is a DTensor on {number} processes", GATHER)
    _check_not_flat(name, tensor)


def _check_not_flat(name: str, tensor: Tensor) -> None:
    if getattr(tensor, "_is_flat_param", False):
        raise _sharded(name, FSDP, SUMMON)


def _check_handle(prefix: str, handle: Any) -> None:
    """Refuses parameters sharded by FullyShardedDataParallel, except inside `summon_full_params`.

    Between a forward and a backward pass weights may be whole too, but changes would be lost.
    """
    summoned = handle._training_state.name == "SUMMON_FULL_PARAMS"
    if handle.uses_sharded_strategy and not summoned:
        raise _sharded(_joined(prefix, handle.flat_param._fqns[0]), FSDP, SUMMON)


def _check_flattened(tensors: list[tuple[str, Tensor]]) -> None:
    """Refuses parameters inside a FullyShardedDataParallel that contains `model`.

    Shards have one dimension, so one parameter of more dimensions shows that they are whole.
    """
    found = [one for one in tensors if getattr(one[1], "_fsdp_flattened", False)]
    if found and all(tensor.ndim < 2 for _, tensor in found):
        raise _sharded(found[0][0], FSDP, SUMMON)


def _sharded(name: str, found: str, advice: str) -> ValueError:
    return ValueError(f"tensor {name!r} must be whole, but {found} ({advice})")


def _joined(prefix: str, name: str) -> str:
    return f"{prefix}.{name}".strip(".")


def check_used(model: nn.Module, names: Iterable[str]) -> None:
    """Refuses parameters from which the network computes its weights.

    These are the originals of a parametrization (weight normalization and the like), of its
    older form with hooks, and of pruning.

    Raises:
        ValueError: if one of `names` is such a parameter.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    for name in names:
        if found := _computed_from(name, modules):
            used, patterns, remedy = found
            raise ValueError(
                f"parameter {name!r} must be a weight that the network uses, not what {used} is "
                f"computed from ({remedy} ends that; or leave it dense, with "
                f"exclude={patterns!r})"
            )


def _computed_from(
    name: str, modules: dict[str, nn.Module]
) -> tuple[str, tuple[str, ...], str] | None:
    """What is computed from a parameter, the patterns that exclude it, and how to end that."""
    parts = name.split(".")
    if "parametrizations" in parts[:-2]:
        at = parts.index("parametrizations")
        holder = modules.get(".".join(parts[: at + 2]))
        if isinstance(holder, ParametrizationList):
            learned = len(holder) and type(holder[0]).__module__.startswith("momos.")
            remedy = (
                "momos.freeze_" if learned else f"{PARAMETRIZE}.remove_parametrizations"
            )
            used = ".".join([*parts[:at], parts[at + 1]])
            return repr(used), (".".join([*parts[: at + 2], "*"]),), remedy
    owner = modules.get(".".join(parts[:-1]))  # none where a wrapper renames parameters
    if type(owner).__module__.startswith("momos.learning"):
        return "every learned weight", (name,), "momos.freeze_"
    stem, _, kind = parts[-1].rpartition("_")
    if owner is not None and kind in REMEDIES and isinstance(vars(owner).get(stem), Tensor):
        remedy = REMEDIES["mask" if f"{stem}_mask" in owner._buffers else kind]
        used = ".".join([*parts[:-1], stem])
        return repr(used), (f"{used}_*",), f"torch.nn.utils.{remedy}"
    return None
