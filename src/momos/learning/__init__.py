"""Learned motifs: training a network through its mosaic.

`parametrize_` replaces the weights by the mosaic, `Reassign` updates it as they change, `freeze_`
makes it the network's weights.
"""

from momos.learning.bank import Bank as Bank
from momos.learning.bank import Learn as Learn
from momos.learning.parametrize import freeze_ as freeze_
from momos.learning.parametrize import parametrize_ as parametrize_
from momos.learning.rate import code_length as code_length
from momos.learning.schedule import Reassign as Reassign
from momos.learning.schedule import Reassignment as Reassignment
