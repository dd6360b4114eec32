"""The .momos file: a network as a mosaic, small, checked on the way in.

docs/format.md defines it. A file is written whole or not at all, and read without trusting it.
"""

from momos.files.api import Checkpoint as Checkpoint
from momos.files.api import inspect as inspect
from momos.files.api import load as load
from momos.files.api import load_ as load_
from momos.files.api import save as save
from momos.files.reader import MosaicFile as MosaicFile
from momos.files.report import SaveReport as SaveReport
from momos.files.report import TensorReport as TensorReport
