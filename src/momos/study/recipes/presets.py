"""What the recipes `sizes` and `ablations` run on a task where nothing else is said.

A task that is not named here has what stands as the default.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from momos.study.recipes.variations import Settings, Variation

PAIRS: tuple[Settings, ...] = (  # block size and number of motifs
    {"block_size": 2, "capacity": 0.05},
    *({"block_size": size, "num_motifs": 256} for size in (2, 4, 8)),
)


@dataclass(frozen=True, kw_only=True)
class Sizing:
    """Settings of `sizes`, named like its fields.

    `learned` are those of learned motifs beside the rate weight, which train at `learning_rate`;
    `quantized` those of quantization beside the bits. `more` is trained as well. Epochs and
    rates are the task's own where None.
    """

    seeds: int = 3
    epochs: float | None = None
    tuning: float | None = None
    learned: Settings = field(default_factory=lambda: {"sensitive": True})
    learning_rate: float | None = None
    rate_weights: tuple[float, ...] = (0.05, 0.3, 0.7, 1.2, 2.0, 3.0, 5.0, 8.0)
    bits: tuple[int, ...] = (2, 3, 4, 8)
    quantized: Settings = field(default_factory=dict)
    sparsities: tuple[float, ...] = (0.5, 0.7, 0.8, 0.9, 0.95, 0.98)
    sampled: tuple[Settings, ...] = (*PAIRS, {"block_size": 8, "num_motifs": 32})
    more: tuple[Variation, ...] = ()


def _learned(rate_weight: float, settings: Settings, **others) -> Variation:
    named = {"rate_weight": rate_weight} | settings
    return Variation(treatment="learned", settings=named, **others)


LARGE = _learned(0.02, {"num_motifs": 1024, "sensitive": True})
PATIENT: Settings = {"sensitive": True, "power": 0.5}
RESNET20: Settings = {
    "num_motifs": 128,
    "fold": True,
    "ramp": 0.3,
    "power": 0.75,
    "fixed": 0.1,
    "sensitive": True,
}
SIZES: Mapping[str, Sizing] = {
    "digits": Sizing(tuning=20, more=(LARGE,)),
    "fashion": Sizing(
        epochs=12,
        tuning=3,
        more=(
            LARGE,
            *(_learned(rate, {"sensitive": True}, epochs=8) for rate in (0.7, 1.2)),
        ),
    ),
    "shakespeare": Sizing(
        epochs=1.25,
        tuning=0.75,
        learned=PATIENT | {"every": 4},
        learning_rate=0.0015,
        rate_weights=(0.06,),
        bits=(),
        sparsities=(),
        sampled=(),
        more=(  # the same further training without motifs, and both for longer
            Variation(treatment="dense", once=True),
            Variation(treatment="dense", epochs=2, learning_rate=0.0025, once=True),
            *(
                _learned(0.06, PATIENT, epochs=2, learning_rate=rate, once=True)
                for rate in (0.0025, 0.005)
            ),
        ),
    ),
    "resnet20": Sizing(
        seeds=1,
        tuning=0.12,
        learned=RESNET20,
        learning_rate=0.01,
        rate_weights=(0.02, 0.05, 0.14, 0.25, 0.4, 0.6, 0.9),
        quantized={"scale": "learned"},
        sparsities=(0.5, 0.7, 0.8, 0.9, 0.95),
        sampled=tuple(pair | {"every": 20} for pair in PAIRS),
        more=(
            _learned(0.005, RESNET20 | {"num_motifs": 1024}, learning_rate=0.01),
            _learned(0.4, RESNET20, epochs=1, learning_rate=0.01),
            _learned(0.14, RESNET20, epochs=1.5, learning_rate=0.01),
        ),
    ),
}


COMMON: Mapping[str, Settings] = {
    "no sensitivities": {"sensitive": False},
    "sensitivities to the power 1/2": {"power": 0.5},
    "no rate (λ = 0)": {"rate_weight": 0},
    "full λ from the start": {"ramp": 0},
    "indices never fixed": {"fixed": 0},
}
ANY: Mapping[str, Settings] = COMMON | {
    "no scales": {"scales": "none"},
    "channel scales": {"scales": "channel"},
    "s=1, k=16": {"block_size": 1, "num_motifs": 16},
    "s=4, k=256": {"block_size": 4, "num_motifs": 256},
    "s=8, k=256": {"block_size": 8, "num_motifs": 256},
    "motifs of 16 bits": {"bits": 16},
    "motifs of 4 bits": {"bits": 4},
    "dense tensors in float32": {"dense_dtype": "float32"},
    "re-assigned every 10 steps": {"every": 10},
    "motifs by gradient, indices fixed": {"learn": "motifs", "num_motifs": 64},
}


@dataclass(frozen=True, kw_only=True)
class Ablating:
    """Settings of `ablations`, named like its fields.

    `reference` is what learned motifs have, beside the rate weight, and `changes` what is
    otherwise in each row.
    """

    seeds: int = 3
    epochs: float | None = None
    tuning: float | None = None
    rate_weight: float = 1.2
    reference: Settings = field(default_factory=lambda: {"sensitive": True})
    changes: Mapping[str, Settings] = field(default_factory=lambda: ANY)


ABLATIONS: Mapping[str, Ablating] = {
    "digits": Ablating(
        tuning=10,
        changes=ANY
        | {
            "a bank for each layer": {
                "groups": [["1.*"], ["3.*"], ["5.*"], ["7.*"], ["9.*"]],
                "num_motifs": 16,
            }
        },
    ),
    "resnet20": Ablating(
        seeds=1,
        tuning=0.12,
        rate_weight=0.25,
        reference={
            "num_motifs": 128,
            "fold": True,
            "ramp": 0.3,
            "fixed": 0.1,
            "sensitive": True,
        },
        changes=COMMON
        | {
            "channel scales not folded": {"fold": False},
            "s=4, k=256": {"block_size": 4, "num_motifs": 256},
        },
    ),
}
