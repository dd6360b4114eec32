"""Second moments of what weights are multiplied with: which errors in them matter.

An error δ of a weight whose inputs have the second moment h changes what its layer computes by
h·δ² on average, the inputs being uncorrelated (Stock et al. 2020, "And the bit goes down",
§3.1, of which this is the diagonal).
"""

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from functools import reduce
from itertools import product
from math import prod
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from momos.blocks import matches, memory
from momos.observation import undisturbed

KINDS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Embedding)


def input_moments(
    model: nn.Module,
    batches: Iterable[Tensor | tuple | Mapping[str, Any]],
    *,
    include: tuple[str, ...] = ("*",),
    exclude: tuple[str, ...] = (),
) -> dict[str, Tensor]:
    """E[x²] of what each weight is multiplied with, in the weight's shape, float32.

    Of the weights of `nn.Linear`, `nn.Conv1d` to `3d` (padding counts as inputs, as it is
    multiplied too) and `nn.Embedding` (how large a share of look-ups each row has), under the
    names `model.named_parameters` has for them; those are chosen by `include` and `exclude`.
    The mean is over the batch and all positions. Uses add up: a weight read twice in one run,
    by one layer or by tied ones, has the sum of both. Other weights are left out, those of
    transposed convolutions, attention and recurrent layers among them.

    Moments are the same for all outputs of a layer (of one group) and, for embeddings, along a
    row: the tensors are expanded views and take memory for one of them only, but for grouped
    convolutions and tied weights. `clone` what is written to.

    The model is called on each of `batches`, a tensor or a tuple of arguments or a mapping of
    named ones, in evaluation mode without gradients, and left as it was.

    Raises:
        TypeError: if a batch is none of these.
        ValueError: if there is no batch, no weight is chosen, an input is not finite, or a
            chosen weight was not reached (names them all).
    """
    uses = _chosen(model, include, exclude)
    runs = 0
    with undisturbed(model), ExitStack() as stack:
        for use in (use for same in uses.values() for use in same):
            hook = use.module.register_forward_pre_hook(use.add, with_kwargs=True)
            stack.callback(hook.remove)
        for batch in batches:
            _run(model, batch)
            runs += 1
    if not runs:
        raise ValueError("batches must hold at least one, got none")
    return _added(uses, runs)


class _Use:
    """Sums of squares of what one module's weight is multiplied with."""

    def __init__(self, module: Any) -> None:
        self.module = module
        self.calls = 0
        self.positions = 0
        self.total = torch.zeros((), device="cpu")

    def add(self, _: nn.Module, args: tuple, options: dict[str, Any]) -> None:
        inputs = args[0] if args else options["input"]
        total, positions = _squares(self.module, inputs)
        if positions:
            self.total = self.total.to(total) + total
            self.positions += positions
            self.calls += 1

    def moment(self, runs: int) -> Tensor:
        """The mean over positions, times uses per run, expanded to the weight's shape."""
        mean = (self.total / self.positions * (self.calls / runs)).float()
        shape = self.module.weight.shape
        groups = getattr(self.module, "groups", 1)
        return (
            mean if groups == 1 else mean.repeat_interleave(shape[0] // groups, 0)
        ).expand(shape)


def _chosen(
    model: nn.Module, include: tuple[str, ...], exclude: tuple[str, ...]
) -> dict[str, list[_Use]]:
    """The modules that each chosen weight is used by, under the weight's first name."""
    names: dict[object, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(memory(parameter), []).append(name)
    uses: dict[str, list[_Use]] = {}
    for prefix, module in model.named_modules():
        # Attention reads the weight of its own kind of linear layer without calling it.
        if not isinstance(module, KINDS) or isinstance(
            module, NonDynamicallyQuantizableLinear
        ):
            continue
        weight = module._parameters.get("weight")  # absent where parametrized
        own = [f"{prefix}.weight".lstrip(".")]
        aliases = own if weight is None else names[memory(weight)]
        if any(matches(name, include) for name in aliases) and not any(
            matches(name, exclude) for name in aliases
        ):
            uses.setdefault(aliases[0], []).append(_Use(module))
    if not uses:
        raise ValueError(
            f"at least one weight of a linear, convolution or embedding layer must be chosen, "
            f"got none for include={include}, exclude={exclude}"
        )
    return uses


def _added(uses: dict[str, list[_Use]], runs: int) -> dict[str, Tensor]:
    missed = [name for name, same in uses.items() if not any(use.calls for use in same)]
    if missed:
        raise ValueError(
            f"weights must be reached by the batches, got no input for {', '.join(missed)} "
            "(exclude them)"
        )
    moments = {}
    for name, same in uses.items():
        moments[name] = reduce(torch.add, [use.moment(runs) for use in same if use.calls])
        if not bool(torch.isfinite(moments[name]).all()):
            raise ValueError(f"inputs must have finite moments, got others for {name!r}")
    return moments


def _run(model: nn.Module, batch: Tensor | tuple | Mapping[str, Any]) -> None:
    if isinstance(batch, Tensor):
        model(batch)
    elif isinstance(batch, tuple):
        model(*batch)
    elif isinstance(batch, Mapping):
        model(**batch)
    else:
        raise TypeError(
            f"a batch must be a tensor, a tuple or a mapping, got a {type(batch).__name__}"
        )


def _squares(module: Any, inputs: Tensor) -> tuple[Tensor, int]:
    """Σx² over batch and positions, in float64, and how many positions these are."""
    if isinstance(module, nn.Embedding):
        rows = torch.bincount(inputs.reshape(-1), minlength=module.num_embeddings)
        return rows.double()[:, None], inputs.numel()
    if isinstance(module, nn.Linear):
        rows = inputs.reshape(-1, module.in_features).double()
        return rows.square().sum(0)[None], len(rows)
    if inputs.ndim < module.weight.ndim:
        inputs = inputs[None]
    squares = _padded(module, inputs.double().square().sum(0, keepdim=True))[0]
    total, positions = _windows(module, squares)
    shape = (module.groups, module.in_channels // module.groups, *module.kernel_size)
    return total.reshape(shape), positions * len(inputs)


def _padded(conv: Any, image: Float[Tensor, "1 c ..."]) -> Float[Tensor, "1 c ..."]:
    if conv.padding == "valid":
        return image
    edges = []
    for at in reversed(
        range(len(conv.kernel_size))
    ):  # `pad` takes the last dimension first
        if conv.padding == "same":
            both = conv.dilation[at] * (conv.kernel_size[at] - 1)
            edges += [both // 2, both - both // 2]
        else:
            edges += [conv.padding[at]] * 2
    mode = "constant" if conv.padding_mode == "zeros" else conv.padding_mode
    return pad(image, edges, mode=mode)


def _windows(conv: Any, image: Float[Tensor, "c ..."]) -> tuple[Tensor, int]:
    """Sums over the windows of `image` for each place in the kernel, and their number."""
    counts = [
        (size - step * (kernel - 1) - 1) // stride + 1
        for size, kernel, stride, step in zip(
            image.shape[1:], conv.kernel_size, conv.stride, conv.dilation, strict=True
        )
    ]
    sums = []
    for place in product(*map(range, conv.kernel_size)):
        cut = [slice(None)]
        for at, count, stride, step in zip(
            place, counts, conv.stride, conv.dilation, strict=True
        ):
            cut.append(slice(at * step, at * step + (count - 1) * stride + 1, stride))
        sums.append(image[tuple(cut)].flatten(1).sum(1))
    return torch.stack(sums, 1), prod(counts)
