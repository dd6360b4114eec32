"""Checkpoints as they lie on disk: names, shapes, dtypes, and values read piece by piece."""

from momos.sources.opening import open_source as open_source
from momos.sources.running import is_statistics as is_statistics
from momos.sources.safetensors import CODES as CODES
from momos.sources.safetensors import MOST_HEADER as MOST_HEADER
from momos.sources.source import Source as Source
from momos.sources.source import SourceTensor as SourceTensor
