"""Keeps a network whose motifs are learned consistent with state dicts and averaged copies.

Its state has what learning needs (latent weights, motifs, indices, scales) and, under their
ordinary names, the weights that the forward pass sees. So loading it by name into an ordinary
network gives the mosaic, not random weights. Latent weights that several modules share have one
name, since safetensors files cannot hold a tensor twice.

`torch.optim.swa_utils.AveragedModel` and similar classes deep-copy a network, then overwrite the
parameters of the copy, and perhaps its buffers, by averages. An average of latent weights is
meaningful, one of indices is not. So a copy that was written from outside is made a mosaic again
before anything reads it: blocks of the averaged weights take their best motif, and motifs move to
the mean of their blocks.
"""

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float64
from torch import Tensor

from momos.learning.latents import held
from momos.learning.replicas import join_
from momos.learning.sharding import like
from momos.shards import local

if TYPE_CHECKING:
    from momos.learning.bank import Bank

NAME = "momos"  # under which the bank is registered in a network


def latent_name(name: str) -> str:
    """The name under which torch keeps the original of the parametrized weight `name`."""
    module, _, weight = name.rpartition(".")
    return f"{module}.parametrizations.{weight}.original".lstrip(".")


def learning_names(bank: "Bank", root: str) -> Iterator[str]:
    """All names in a state that only learning needs."""
    for tile in bank.tiles:
        yield from (root + latent_name(name) for name in tile.names)
    held = (*bank._parameters, *bank._buffers)
    yield from (
        f"{root}{NAME}.{name}"
        for name in held
        if name not in bank._non_persistent_buffers_set
    )


def complete(bank: "Bank", state: dict[str, Any], root: str) -> None:
    """Adds the weights that the forward pass sees, and keeps one name of each latent weight."""
    for tile in bank.tiles:
        names = [name for name in tile.names if root + latent_name(name) in state]
        for name in names[1:]:
            del state[root + latent_name(name)]
        if names and bank.shards is not None:
            whole = like(tile.latent, held(tile.latent))
            state[root + latent_name(names[0])] = whole
        if names or bank.learn == "motifs":
            value = _value(bank, tile)
            state.update({root + name: value for name in tile.names})


def _value(bank: "Bank", tile: Any) -> Tensor:
    if bank.learn == "motifs":
        return bank.weight(tile.place).detach()
    if bank.shards is not None:
        return (
            tile.sharded_value() if bank.learning else like(tile.latent, held(tile.latent))
        )
    # A copy of the latent weight: safetensors files cannot share memory.
    return tile.value if bank.learning else tile.latent.detach().clone()


def is_plain(
    bank: "Bank", state: Mapping[str, Any], root: str, unexpected: list[str]
) -> bool:
    """Whether the state being loaded is that of a network without learned motifs."""
    return f"{root}{NAME}.motifs" not in state and bool(_plain(bank, root, unexpected))


def accept_plain(
    bank: "Bank", root: str, missing: list[str], unexpected: list[str], errors: list[str]
) -> None:
    """Refuses a plain state, unless the rest will be loaded afterwards."""
    names = _plain(bank, root, unexpected)
    if not bank.plain:
        errors.append(
            f"the state must be of a network whose motifs are learned, got one with dense "
            f"weights {min(names)!r} (load it before momos.parametrize_)"
        )
        return
    bank.awaiting = True
    _drop(missing, set(learning_names(bank, root)))
    _drop(unexpected, names)


def accept(bank: "Bank", root: str, missing: list[str], unexpected: list[str]) -> None:
    """Makes the weights that the forward pass sees optional in a state with what learning needs."""
    _drop(missing, {f"{root}{NAME}.rate_weight"})  # older states have none
    for tile in bank.tiles:
        latent = {root + latent_name(name) for name in tile.names}
        if bank.learn == "motifs" or not latent <= set(missing):
            _drop(missing, latent)
            _drop(unexpected, {root + name for name in tile.names})


def _plain(bank: "Bank", root: str, unexpected: list[str]) -> set[str]:
    names = {root + name for tile in bank.tiles for name in tile.names}
    return names & set(unexpected)


def _drop(keys: list[str], names: set[str]) -> None:
    keys[:] = [key for key in keys if key not in names]


def trace_of(bank: "Bank") -> Float64[Tensor, "2"]:
    """Sum and norm of the latent weights, by which changes are detected."""
    weights = [held(tile.latent) for tile in bank.tiles] if bank.learn == "weights" else []
    if not weights:
        return torch.zeros_like(bank.trace)
    if bank.whole:
        weights.append(bank.stretch.detach())
    sums = [weight.sum(dtype=torch.float64) for weight in weights]
    norms = [torch.linalg.vector_norm(weight, dtype=torch.float64) for weight in weights]
    return torch.stack((torch.stack(sums).sum(), torch.stack(norms).square().sum()))


def refresh_(bank: "Bank") -> None:
    """Makes a copy a mosaic again if it was written from outside since it was last read.

    The first forward pass of a replica makes it agree with the others.
    """
    if not torch.compiler.is_compiling():
        join_(bank)
    if not bank.copied:
        return
    if torch.compiler.is_compiling():
        torch.compiler.disable(refresh_)(bank)  # so that every graph does this
    elif bank.overwritten:
        settle_(bank)


@torch.inference_mode(False)
@torch.no_grad()
def settle_(bank: "Bank") -> None:
    """Makes the network a mosaic of its latent weights, whatever was written into its tensors.

    Code lengths go by the rate weight and the usage in its buffers, which may be averages too.
    Latent weights that were settled before are skipped.

    Raises:
        ValueError: if a weight is not finite (names the parameter).
    """
    config = bank.config
    settings = [config.bits, config.zero_motif]
    bank.settings.copy_(torch.tensor(settings, dtype=torch.uint8, device="cpu"))
    bank.zeros.copy_(bank.fitting.zero_motifs[:, None])
    if bank.learn == "motifs":
        for name, tensor in (bank.origin or {}).items():
            bank.get_buffer(name).copy_(tensor)
        bank.start_(learning=True)
        return
    if not bool(bank.counts.any()):
        bank.start_(learning=False)
        return
    bank.started.fill_(1)
    bank.learning = True
    trace = trace_of(bank)
    if torch.equal(trace, bank.trace):
        bank.update_()
        return
    bank.follow_(
        bank.counts.round().long(),
        rate_weight=float(bank.rate_weight),
        move_only=False,
        revive=False,
    )
    bank.trace.copy_(trace)


@torch.no_grad()
def moved(bank: "Bank") -> bool:
    """Whether the latent weights have changed since the start of learning."""
    if bank.began is None:
        return False
    now = trace_of(bank).tolist()
    # Another device adds in another order.
    tolerance = 1e-9 * math.sqrt(bank.layout.num_weights * bank.began[1])
    pairs = zip(bank.began, now, strict=True)
    return any(not abs(one - two) <= tolerance for one, two in pairs)


def why_not(bank: "Bank", state: Mapping[str, Tensor], prefix: str) -> str:
    """Why a state cannot be loaded into a bank; empty if it can."""
    for name, own in (*bank._parameters.items(), *bank._buffers.items()):
        given = state.get(prefix + name)
        if own is None or given is None or name in bank._non_persistent_buffers_set:
            continue
        shape = (bank.layout.num_blocks,) if name == "indices" else tuple(own.shape)
        if tuple(given.shape) != shape:
            return (
                f"{prefix}{name} must have shape {shape}, got {tuple(given.shape)} of another "
                "config"
            )
        if name == "settings" and given.tolist() != own.tolist():
            return (
                f"bits and zero_motif must be {own.tolist()}, got {given.tolist()} of another "
                "config"
            )
        if name == "indices" and (most := _largest(given)) >= len(bank.motifs):
            return f"{prefix}{name} must be below {len(bank.motifs)}, got {most}"
    return ""


def _largest(indices: Tensor) -> int:
    """The largest index, of those that this rank has."""
    own = local(indices)
    return int(own.max()) if own.numel() else 0
