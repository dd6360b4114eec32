"""The treatments by name."""

from collections.abc import Callable

from momos.study.baselines import (
    Dense,
    Prune,
    Published,
    QuantizeAware,
    Sampled,
    Treatment,
)
from momos.study.learned import Learned

PUBLISHED = "published"  # the one that trains nothing
TREATMENTS: dict[str, Callable[..., Treatment]] = {
    "dense": Dense,
    PUBLISHED: Published,
    "quantize_aware": QuantizeAware,
    "prune": Prune,
    "sampled": Sampled,
    "learned": Learned,
}
