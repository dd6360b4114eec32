"""A projection after every training step: ResNet-20 at batch 128, s = 2, c = 5 %."""

import torch
from measure import milliseconds, seconds, table

import momos
from momos.study.tasks.architectures import resnet20


def main() -> None:
    torch.manual_seed(0)
    model = resnet20()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    projector = momos.Projector(model, momos.MosaicConfig(block_size=2, capacity=0.05))
    images, labels = torch.randn(128, 3, 32, 32), torch.randint(10, (128,))

    def step() -> None:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()

    def constrained() -> None:
        step()
        projector.step()

    plain, with_projection, projection = seconds(
        step, constrained, projector.step, repeat=15
    )
    rows = [
        ["plain step", milliseconds(plain), "1"],
        [
            "step and projection",
            milliseconds(with_projection),
            f"{with_projection / plain:.3f}",
        ],
        ["the projection alone", milliseconds(projection), f"{projection / plain:.3f}"],
    ]
    table(["what", "time", "÷ plain step"], rows)


if __name__ == "__main__":
    main()
