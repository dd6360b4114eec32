"""Averages of a network whose motifs are learned.

`torch.optim.swa_utils.AveragedModel`, and what is built like it, copies a network deeply and then
overwrites the copy's parameters, and perhaps its buffers, by averages. An average of latent weights
means something; one of indices does not, and neither belongs to the other. So a copy that was
written from outside is made a mosaic again before anything reads it: blocks of the averaged weights
take their best motif, and motifs move to the mean of their blocks.
"""

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float64
from torch import Tensor

if TYPE_CHECKING:
    from momos.learning.bank import Bank


def trace_of(bank: "Bank") -> Float64[Tensor, "2"]:
    """Sum and norm of the latent weights, which tell whether anything moved them."""
    weights = (
        [tile.latent.detach() for tile in bank.tiles] if bank.learn == "weights" else []
    )
    if not weights:
        return torch.zeros_like(bank.trace)
    sums = [weight.sum(dtype=torch.float64) for weight in weights]
    norms = [torch.linalg.vector_norm(weight, dtype=torch.float64) for weight in weights]
    return torch.stack((torch.stack(sums).sum(), torch.stack(norms).square().sum()))


def refresh_(bank: "Bank") -> None:
    """Makes a copy that was written from outside since it was last read a mosaic again."""
    if not bank.copied:
        return
    if torch.compiler.is_compiling():
        torch.compiler.disable(refresh_)(bank)  # so that no graph does without
    elif bank.overwritten:
        settle_(bank)


@torch.inference_mode(False)
@torch.no_grad()
def settle_(bank: "Bank") -> None:
    """Makes the network a mosaic of its latent weights, whatever was written into its tensors.

    The rate weight and the usage that code lengths are by are those that the network has, which
    may be averages too. Nothing is done for latent weights that this was done for before.

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
