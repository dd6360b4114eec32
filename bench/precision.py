"""A training step in bfloat16 and in channels-last, against float32 in torch's usual memory format.

As a cell of the study takes it: forward in autocast, the optimizer in float32. Half precision helps
where the processor multiplies it (AVX-512 BF16 or AMX; the second table says what this one has);
channels-last is for convolutions. One thread, as in a run of the study.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from measure import milliseconds, seconds, table
from torch import Tensor, nn

from momos.study.tasks.architectures import CharacterTransformer, mlp, resnet20
from momos.study.training.learner import channels_last_of, loss_of

THREADS = 1
INSTRUCTIONS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")


def main() -> None:
    torch.set_num_threads(THREADS)
    rows = []
    images, characters = torch.randn(128, 3, 32, 32), torch.randint(65, (8, 128))
    labels = torch.randint(10, (128,))
    for name, build, inputs, targets, repeat in (
        ("ResNet-20, 32 images", resnet20, images[:32], labels[:32], 5),
        ("MLP, 128 images", mlp, images, labels, 9),
        ("transformer, 8 × 128", transformer, characters, characters, 5),
    ):
        formats = (False, True) if inputs.ndim == 4 else (False,)
        ways = {
            (precision, last): step(build, inputs, targets, precision, last)
            for last in formats
            for precision in ("float32", "bfloat16")
        }
        taken = seconds(*ways.values(), repeat=repeat)
        for (precision, last), time in zip(ways, taken, strict=True):
            layout = "channels-last" if last else "usual"
            ratio = f"{time / taken[0]:.2f}"
            rows.append([name, precision, layout, milliseconds(time), ratio])
    table(["network", "precision", "memory format", "step", "÷ plain"], rows)
    print()
    table(["instructions", "here"], [[name, had(name)] for name in INSTRUCTIONS])


def transformer() -> nn.Module:
    return CharacterTransformer(65)


def step(
    build: Callable[[], nn.Module],
    inputs: Tensor,
    targets: Tensor,
    precision: str,
    channels_last: bool,
) -> Callable[[], None]:
    """One step of training, to be taken again and again."""
    torch.manual_seed(0)
    network = build()
    if channels_last:
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if inputs.ndim == 4 and any(weight.ndim == 4 for weight in network.parameters()):
        optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9)
    else:
        optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=True)

    def taken() -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            given = channels_last_of(inputs) if channels_last else inputs
            loss = loss_of(network, given, targets)
        loss.backward()
        optimizer.step()

    return taken


def had(instruction: str) -> str:
    """Whether the processor has it, as far as the system tells."""
    try:
        return "yes" if instruction in Path("/proc/cpuinfo").read_text().split() else "no"
    except OSError:
        return "not known"


if __name__ == "__main__":
    main()
