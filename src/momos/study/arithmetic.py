"""(a + b) mod 97, which networks first learn by heart and much later understand.

Power et al. 2022; half of all pairs to train on, as in arXiv 2605.15551.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from momos.study.archives import Images

MODULUS = 97
SPLIT_SEED = 0
TRAIN = 0.5  # share of the pairs


def additions(
    modulus: int = MODULUS, *, share: float = TRAIN, seed: int = SPLIT_SEED
) -> tuple[Images, Images]:
    """All pairs of numbers below `modulus` and their sums, in two parts without a common pair."""
    pairs = torch.cartesian_prod(*2 * [torch.arange(modulus)])
    order = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(seed))
    train, test = (pairs[rows] for rows in order.tensor_split([int(share * len(pairs))]))
    return Images(train, train.sum(1) % modulus), Images(test, test.sum(1) % modulus)


class PairNetwork(nn.Module):
    """The grokking network of arXiv 2605.15551: two numbers by one embedding, side by side.

    181 089 weights at the width 256; 624 225 at 512, the paper's.
    """

    def __init__(self, width: int, *, modulus: int = MODULUS) -> None:
        super().__init__()
        if width < 1:
            raise ValueError(f"width must be at least 1, got {width}")
        self.embedding = nn.Embedding(modulus, width)
        self.hidden = nn.Linear(2 * width, width)
        self.output = nn.Linear(width, modulus)

    def forward(self, pairs: Int[Tensor, "n 2"]) -> Float[Tensor, "n modulus"]:
        return self.output(self.hidden(self.embedding(pairs).flatten(1)).relu())
