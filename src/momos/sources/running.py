"""Running statistics by the names that frameworks give them: floating tensors that are no weights.

A variance that becomes a motif may come back negative or zero, and then the network is lost.
"""

import math
import re

PARTS = re.compile(r"[./:|]+")
OF_HOLDERS = ("value", "raw_value")  # last parts that say nothing, of Flax's variables
COLLECTIONS = (  # of Flax, Haiku; all that lies in them is statistics
    "batch_stats",
    "mean_ema",
    "var_ema",
)
# The last part of the name, or the end of it as in "bn0_moving_var" of MXNet.
ENDS = tuple(
    f"{kind}_{what}"
    for kind in ("running", "moving", "rolling", "avg")
    for what in ("mean", "var", "variance", "std")
)
# Of vectors alone: Paddle's names, and those that others use within a module of their own.
OF_VECTORS = ("mean", "var", "variance", "std", "_mean", "_variance")


def is_statistics(name: str, shape: tuple[int, ...]) -> bool:
    """Whether a tensor of this name and shape is known to be running statistics."""
    parts = [part for part in PARTS.split(name.lower()) if not part.isdigit()]
    while parts and parts[-1] in OF_HOLDERS:
        parts.pop()
    if not parts:
        return False
    if parts[-1].endswith(ENDS) or any(part in COLLECTIONS for part in parts):
        return True
    return parts[-1] in OF_VECTORS and math.prod(shape) == max(shape, default=1)
