"""The .momos file: a network as a mosaic, small, checked on the way in.

docs/format.md defines it. A file is written whole or not at all, and read without trusting it.
"""

from momos.files.checkpoint import Checkpoint as Checkpoint
from momos.files.loading import inspect as inspect
from momos.files.loading import load as load
from momos.files.loading import load_ as load_
from momos.files.reader import MosaicFile as MosaicFile
from momos.files.report import SaveReport as SaveReport
from momos.files.report import TensorReport as TensorReport
from momos.files.saving import save as save
