"""One table for a network in any form: the measures of `complexity`, and a mosaic's own lengths."""

from momos.measures.instruments import SETS as SETS
from momos.measures.measuring import Measurement as Measurement
from momos.measures.measuring import Row as Row
from momos.measures.measuring import measure as measure
