"""The treatments by name, and how reports name and draw them.

A new treatment is a file, and a line here.
"""

from dataclasses import dataclass

from momos.study.treatments.learned_motifs import Learned
from momos.study.treatments.prune import Prune
from momos.study.treatments.quantize import QuantizeAware
from momos.study.treatments.sampled_motifs import Sampled
from momos.study.treatments.treatment import Dense, Published, Treatment


@dataclass(frozen=True)
class Known:
    """A treatment: its class; its label, colour (of the palette) and marker in figures.

    Those whose networks are mosaics have a `short` label, which their size and number follow.
    """

    kind: type[Treatment]
    label: str
    colour: int
    marker: str
    short: str = ""


TREATMENTS = {
    "dense": Known(Dense, "dense", 0, "*"),
    "published": Known(Published, "published", 0, "X"),
    "quantize_aware": Known(QuantizeAware, "QAT + entropy coding", 1, "s"),
    "prune": Known(Prune, "pruning + lossless coder", 3, "^"),
    "sampled": Known(Sampled, "sampled MoMos (the paper's)", 4, "D", "MoMos"),
    "learned": Known(Learned, "learned motifs", 2, "o", "learned"),
}
