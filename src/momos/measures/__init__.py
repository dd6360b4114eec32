"""Measures a network in any form: the measures of `complexity`, and the lengths of a mosaic."""

from momos.measures.instruments import SETS as SETS
from momos.measures.measuring import Measurement as Measurement
from momos.measures.measuring import Row as Row
from momos.measures.measuring import measure as measure
