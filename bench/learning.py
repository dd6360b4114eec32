"""What learning motifs costs: a training step, and the optimizer's memory, against plain training.

Each time is that of ten steps at batch 128 (AdamW; ResNet-20: SGD with momentum), divided by
ten: with `learn="weights"` one re-assignment in ten steps is in it, at every step all ten.
"""

from collections.abc import Callable

import torch
from measure import milliseconds, seconds, table
from torch import Tensor, nn

import momos
from momos.learning import Learn
from momos.study.tasks.architectures import mlp, resnet20

STEPS = 10
CONFIGS = {
    "s=2, k=64": momos.MosaicConfig.learned(),
    "s=4, k=256": momos.MosaicConfig.learned(block_size=4, num_motifs=256),
}
WAYS = {
    'learn="motifs"': {"learn": "motifs"},
    'learn="weights", every=10': {"learn": "weights", "every": 10},
    'learn="weights", every=1': {"learn": "weights", "every": 1},
}


def main() -> None:
    rows = []
    for name, build, inputs, repeat in (
        ("ResNet-20", resnet20, torch.randn(128, 3, 32, 32), 2),
        ("MLP, 986 634 weights", mlp, torch.randn(128, 3072), 15),
    ):
        labels = torch.randint(10, (128,))
        runs = {"plain": run(build, inputs, labels)}
        for sizes, config in CONFIGS.items():
            for what, options in WAYS.items():
                made = run(build, inputs, labels, config=config, **options)
                runs[f"{what}, {sizes}"] = made
        taken = seconds(*(steps for steps, _ in runs.values()), repeat=repeat)
        for (what, (_, optimizer)), time in zip(runs.items(), taken, strict=True):
            cells = [milliseconds(time / STEPS), f"{time / taken[0]:.3f}"]
            rows.append([name, what, *cells, f"{held(optimizer):,}"])
    table(["network", "training", "step", "÷ plain", "optimizer state, bytes"], rows)


def run(
    build: Callable[[], nn.Module],
    inputs: Tensor,
    labels: Tensor,
    *,
    config: momos.MosaicConfig | None = None,
    learn: Learn = "motifs",
    every: int | None = None,
) -> tuple[Callable[[], None], torch.optim.Optimizer]:
    """Ten steps of training, and the optimizer that takes them."""
    torch.manual_seed(0)
    model = build()
    schedule = None
    if config is not None:
        momos.parametrize_(model, config, learn=learn)
    if every is not None:
        schedule = momos.Reassign(model, total_steps=10**6, every=every)
    if inputs.ndim == 4:
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    else:
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def steps() -> None:
        for _ in range(STEPS):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs), labels).backward()
            optimizer.step()
            if schedule is not None:
                schedule.step()

    return steps, optimizer


def held(optimizer: torch.optim.Optimizer) -> int:
    """Bytes of the tensors that an optimizer keeps, steps not counted."""
    return sum(
        value.nbytes
        for state in optimizer.state.values()
        for value in state.values()
        if isinstance(value, Tensor) and value.ndim
    )


if __name__ == "__main__":
    main()
