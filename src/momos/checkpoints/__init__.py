"""Checkpoints on disk and modules: reading them piece by piece, compressing, expanding."""

from momos.checkpoints.compression import compress as compress
from momos.checkpoints.expansion import expand as expand
from momos.checkpoints.search import CompressionReport as CompressionReport
from momos.checkpoints.search import Trial as Trial
