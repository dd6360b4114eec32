"""Running from a mosaic: layers hold packed indices, and one bank of motifs serves them all."""

from momos.compact.compacting import Compacted as Compacted
from momos.compact.compacting import compact_ as compact_
from momos.compact.compacting import expand_ as expand_
