"""Training a mosaic with Lightning's Trainer, each way by one callback."""

try:
    import lightning.pytorch  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "lightning":
        raise
    raise ImportError(
        'momos.integrations.lightning needs Lightning: pip install "mosaic-of-motifs[lightning]"'
    ) from None

from momos.integrations.lightning.callbacks import (
    ComplexityCallback as ComplexityCallback,
)
from momos.integrations.lightning.callbacks import (
    LearnedMosaicCallback as LearnedMosaicCallback,
)
from momos.integrations.lightning.callbacks import MosaicCallback as MosaicCallback
