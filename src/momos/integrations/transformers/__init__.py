"""Compact networks in Hugging Face Transformers: importing this registers the quantization method `momos`.

import momos.integrations.transformers
model = AutoModelForCausalLM.from_pretrained(folder)  # made by momos compress … --for transformers
"""

try:
    import transformers  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "transformers":
        raise
    raise ImportError(
        "momos.integrations.transformers needs Transformers: "
        'pip install "mosaic-of-motifs[transformers]"'
    ) from None

__all__ = (  # MomosQuantizer is for Transformers, which it is registered with
    "MomosConfig",
    "MosaicTrainerCallback",
    "compact_",
    "write_folder",
)

from momos.integrations.transformers.folder import write_folder as write_folder
from momos.integrations.transformers.quantizer import MomosConfig as MomosConfig
from momos.integrations.transformers.quantizer import MomosQuantizer as MomosQuantizer
from momos.integrations.transformers.quantizer import compact_ as compact_
from momos.integrations.transformers.trainer_callback import (
    MosaicTrainerCallback as MosaicTrainerCallback,
)
