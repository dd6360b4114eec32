"""One table for a network in any form: the measures of `complexity`, and a mosaic's own lengths."""

from momos.measures.instruments import SETS as SETS
from momos.measures.measuring import measure as measure
from momos.measures.rows import Measurement as Measurement
from momos.measures.rows import Row as Row
