"""Neural networks as mosaics: every block of weights is one of a few shared motifs."""

from momos.assign import nearest as nearest
from momos.assign import nearest_reference as nearest_reference
from momos.blocks import Layout as Layout
from momos.blocks import Placement as Placement
from momos.config import MosaicConfig as MosaicConfig
from momos.description import DescriptionLength as DescriptionLength
from momos.description import description_bound as description_bound
from momos.description import description_length as description_length
from momos.files import Checkpoint as Checkpoint
from momos.files import FormatError as FormatError
from momos.files import MosaicFile as MosaicFile
from momos.files import SaveReport as SaveReport
from momos.files import TensorReport as TensorReport
from momos.files import load as load
from momos.files import load_ as load_
from momos.files import save as save
from momos.mosaic import Mosaic as Mosaic
from momos.motifs import distinct_motifs as distinct_motifs
from momos.motifs import kmeans_motifs as kmeans_motifs
from momos.motifs import sample_motifs as sample_motifs
from momos.projection import Projection as Projection
from momos.projection import Projector as Projector
from momos.projection import project_ as project_
from momos.version import __version__ as __version__
