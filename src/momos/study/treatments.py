"""The treatments by name."""

from collections.abc import Callable

from momos.study.baselines import Dense, Prune, QuantizeAware, Sampled, Treatment
from momos.study.learned import Learned

TREATMENTS: dict[str, Callable[..., Treatment]] = {
    "dense": Dense,
    "quantize_aware": QuantizeAware,
    "prune": Prune,
    "sampled": Sampled,
    "learned": Learned,
}
