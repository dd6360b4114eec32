"""Training a mosaic with Lightning's Trainer, each way by one callback."""

try:
    import lightning.pytorch  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "lightning":
        raise
    raise ImportError(
        'momos.integrations.lightning needs Lightning: pip install "mosaic-of-motifs[lightning]"'
    ) from None

from momos.integrations.lightning.epoch_callbacks import (
    ComplexityCallback as ComplexityCallback,
)
from momos.integrations.lightning.epoch_callbacks import MosaicCallback as MosaicCallback
from momos.integrations.lightning.learning_callback import (
    LearnedMosaicCallback as LearnedMosaicCallback,
)
