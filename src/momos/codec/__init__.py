"""Codes indices, their usage, and values of any dtype as bytes.

Everything is one kind of stream, which docs/format.md defines by integers, so that a file means the
same everywhere and for ever.
"""

from momos.codec.lattice import Geometry as Geometry
from momos.codec.lattice import Numbering as Numbering
from momos.codec.lattice import distances as distances
from momos.codec.lattice import in_order as in_order
from momos.codec.lattice import whole_numbers as whole_numbers
from momos.codec.planes import DEFLATE as DEFLATE
from momos.codec.planes import PACK_VALUES as PACK_VALUES
from momos.codec.planes import Pack as Pack
from momos.codec.planes import inflate as inflate
from momos.codec.planes import pack as pack
from momos.codec.planes import unpack as unpack
from momos.codec.streams import RATES as RATES
from momos.codec.streams import SIGNIFICANT as SIGNIFICANT
from momos.codec.streams import STREAM_SYMBOLS as STREAM_SYMBOLS
from momos.codec.streams import CorruptError as CorruptError
from momos.codec.streams import Model as Model
from momos.codec.streams import Stream as Stream
from momos.codec.streams import UsageTable as UsageTable
from momos.codec.streams import choose_usage_table as choose_usage_table
from momos.codec.streams import raw as raw
from momos.codec.streams import read_usage_table as read_usage_table
