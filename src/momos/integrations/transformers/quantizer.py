"""The quantization method `momos` of Transformers: `from_pretrained` loads compact networks.

Before weights are loaded, layers are replaced by compact ones of the same kind, and the bank becomes a
submodule of the base model, so that heads can be added and removed as with dense checkpoints.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightRenaming, rename_source_key
from transformers.quantizers.auto import register_quantization_config, register_quantizer
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from momos.blocks import Layout
from momos.compact.bitpack import index_bits, num_packed_bytes
from momos.compact.compacting import (
    Compacted,
    bank_of,
    check_not_compact,
    expand_,
    install_packed_,
    packed_weights,
    report_on,
)
from momos.compact.compacting import compact_ as compact_plain_
from momos.compact.packed_weight import NAME
from momos.config import check_whole
from momos.files.manifest import name_of

METHOD = "momos"
DTYPES = ("float16", "bfloat16", "float32", "float64")
MOTIF_DTYPES = ("int8", *DTYPES)


class MomosConfig(QuantizationConfigMixin):
    """What `config.json` says of a compact network: the bank, and which weights are packed.

    `weights` has a mapping for the name of each: `scales`, how many it has (absent: none), `axis`,
    the dimension that they go along (absent: 0), and `dtype`, which its values are rounded to.

    Raises:
        ValueError: if a value is out of range.

    Example:
        >>> from momos.integrations.transformers import MomosConfig
        >>> MomosConfig(block_size=4, num_motifs=256).to_dict()["num_motifs"]
        256
    """

    def __init__(
        self,
        *,
        block_size: int = 1,
        num_motifs: int = 1,
        motif_dtype: str = "float32",
        weights: dict[str, dict[str, Any]] | None = None,
        exact: bool = False,
        **others: Any,
    ) -> None:
        self.quant_method = METHOD  # pyright: ignore[reportAttributeAccessIssue]
        check_whole("block_size", block_size, least=1)
        check_whole("num_motifs", num_motifs, least=1)
        if motif_dtype not in MOTIF_DTYPES:
            raise ValueError(
                f"motif_dtype must be one of {', '.join(MOTIF_DTYPES)}, got {motif_dtype!r}"
            )
        self.block_size, self.num_motifs = block_size, num_motifs
        self.motif_dtype = motif_dtype
        self.weights = {} if weights is None else weights
        self.exact = exact
        for name, about in self.weights.items():
            if about.get("dtype", "float32") not in DTYPES:
                raise ValueError(
                    f"dtype of weight {name!r} must be one of {', '.join(DTYPES)}, got "
                    f"{about['dtype']!r}"
                )
            check_whole(f"axis of weight {name!r}", about.get("axis", 0), least=0)
            check_whole(f"scales of weight {name!r}", about.get("scales", 1), least=1)

    @classmethod
    def of(cls, model: nn.Module, prefix: str = "") -> "MomosConfig":
        """That of a compact network, whose weights have names that begin with `prefix`."""
        bank = bank_of(model)
        weights = {}
        for name, packed in packed_weights(model):
            about: dict[str, Any] = {"dtype": name_of(packed.stored)}
            if packed.scales is not None:
                about |= {"scales": len(packed.scales)}
            if packed.axis:
                about |= {"axis": packed.axis}
            weights[prefix + name] = about
        count, size = bank.motifs.shape
        return cls(
            block_size=size,
            num_motifs=count,
            motif_dtype=name_of(bank.motifs.dtype),
            weights=weights,
            exact=bank.exact,
        )


class MomosQuantizer(HfQuantizer):
    """Makes a network compact before its weights are loaded."""

    requires_calibration = True  # a dense checkpoint is compressed by `momos compress`
    quantization_config: MomosConfig

    def validate_environment(self, *args: Any, **kwargs: Any) -> None:
        """Refuses to spread a network over devices: its one bank serves every layer.

        Raises:
            ValueError: if the `device_map` has several.
        """
        device_map = kwargs.get("device_map")
        devices = device_map.values() if isinstance(device_map, dict) else ()
        if len(found := dict.fromkeys(map(str, devices))) > 1:
            raise ValueError(
                "device_map must have one device for a compact network, whose bank of motifs serves "
                f"every layer, got {', '.join(found)}"
            )

    def _process_model_before_weight_loading(
        self, model: PreTrainedModel, **kwargs: Any
    ) -> None:
        """Replaces the layers of the weights that the config names.

        Raises:
            ValueError: if the model lacks one, or must hold it dense.
        """
        config = self.quantization_config
        parameters = dict(model.named_parameters(remove_duplicate=False))
        chosen = _named(model, parameters, config)
        layout = Layout.cut(
            config.block_size,
            ((n, parameters[n].shape, parameters[n].dtype) for n in chosen),
            {name: about.get("axis", 0) for name, about in chosen.items()},
        )
        ties: dict[str, str] = {}
        for target, source in _tied(model).items():  # those tied after weights are loaded
            ties |= {target: source} if source in chosen else {source: target}
        report = install_packed_(
            model,
            *_without_values(config, layout, chosen),
            layout,
            exact=config.exact,
            aliases={name: first for name, first in ties.items() if first in chosen},
            root=model.base_model,
            device="meta",
        )
        if report.dense:
            raise ValueError(
                f"the weights that quantization_config names must be packed, but "
                f"{type(model).__name__} must hold some dense: "
                + ", ".join(f"{name!r} ({why})" for name, why in report.dense.items())
            )
        for name, packed in packed_weights(model):
            packed.stored = getattr(torch, chosen[name].get("dtype", "float32"))
        _forget_ties(model, {*parameters} - {n for n, _ in model.named_parameters()})
        bank_of(model).origin = None

    def _process_model_after_weight_loading(
        self, model: PreTrainedModel, **kwargs: Any
    ) -> PreTrainedModel:
        for _, packed in packed_weights(model):
            packed.requires_grad_(False)
        return model

    def _dequantize(self, model: PreTrainedModel, dtype: Any = None) -> PreTrainedModel:
        expand_(model)
        model.tie_weights()
        wanted = getattr(torch, dtype) if isinstance(dtype, str) else dtype
        return model if wanted is None else model.to(wanted)

    def is_serializable(self) -> bool:  # pyright: ignore[reportIncompatibleMethodOverride]
        return True

    @property
    def is_trainable(self) -> bool:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Whether adapters can be trained: gradients flow through compact layers."""
        return True

    @property
    def is_compileable(self) -> bool:
        return True


# Not as decorators, whose results have the types of the base classes.
register_quantization_config(METHOD)(MomosConfig)
register_quantizer(METHOD)(MomosQuantizer)


def compact_(model: PreTrainedModel, *, exact: bool = False) -> Compacted:
    """`momos.compact_` of a model of Transformers, which `save_pretrained` then saves compact.

    Raises:
        ValueError: as `momos.compact_` does.

    Example:
        >>> from transformers import BertConfig, BertModel
        >>> from momos.integrations.transformers import compact_
        >>> sizes = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
        >>> model = BertModel(BertConfig(vocab_size=64, num_hidden_layers=1, **sizes))
        >>> _ = momos.project_(model, momos.MosaicConfig(block_size=4, num_motifs=16, min_ndim=2))
        >>> compact_(model).bits
        4
        >>> model.save_pretrained("small")
    """
    check_not_compact(model.base_model)
    compact_plain_(model, exact=exact)
    bank = model._modules.pop(NAME)
    model.base_model.add_module(NAME, bank)
    quantizer = MomosQuantizer(MomosConfig.of(model))
    _forget_ties(model, {name for name, _ in packed_weights(model)} | set(_tied(model)))
    loaded: Any = model
    loaded.hf_quantizer = quantizer
    quantizer.postprocess_model(model)
    loaded.is_quantized, loaded.quantization_method = True, METHOD
    return report_on(model)


def _tied(model: PreTrainedModel) -> dict[str, str]:
    return getattr(model, "all_tied_weights_keys", None) or {}


def _forget_ties(model: PreTrainedModel, gone: set[str]) -> None:
    """Compact layers share what they share themselves; nothing is left to tie."""
    model.all_tied_weights_keys = {
        target: source
        for target, source in _tied(model).items()
        if target not in gone and source not in gone
    }


def _without_values(
    config: MomosConfig, layout: Layout, weights: dict[str, dict[str, Any]]
) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor | None]]:
    """Motifs, packed indices and scales of a network, on the meta device."""
    count, size, bits = config.num_motifs, config.block_size, index_bits(config.num_motifs)
    with torch.device("meta"):
        motifs = torch.empty(count, size, dtype=getattr(torch, config.motif_dtype))
        indices = {
            place.name: torch.empty(
                num_packed_bytes(place.num_blocks, bits), dtype=torch.uint8
            )
            for place in layout.placements
        }
        scales = {
            name: torch.empty(about["scales"]) if "scales" in about else None
            for name, about in weights.items()
        }
    return motifs, indices, scales


def _named(
    model: PreTrainedModel, parameters: dict[str, Any], config: MomosConfig
) -> dict[str, dict[str, Any]]:
    """The weights of the config under the names that they have in `model`, with or without a head."""
    prefix = f"{model.base_model_prefix}."
    renamings = [
        change
        for change in get_model_conversion_mapping(model)
        if isinstance(change, WeightRenaming)
    ]
    found, missing = {}, []
    for name, about in config.weights.items():
        new, _ = rename_source_key(name, renamings, [], model.base_model_prefix, parameters)
        for own in (name, new, prefix + name, name.removeprefix(prefix)):
            if own in parameters:
                found[own] = about
                break
        else:
            missing.append(name)
    # A model without the head of the checkpoint lacks the head's weights.
    is_base = model.base_model is model
    lacking = [name for name in missing if not is_base or name.startswith(prefix)]
    if lacking:
        raise ValueError(
            f"{type(model).__name__} must have the weights that quantization_config names, but has "
            f"no {', '.join(map(repr, lacking[:5]))}"
            + (f" and {len(lacking) - 5} more" if len(lacking) > 5 else "")
            + " (weights that are renamed or merged when they are loaded must stay dense: compress "
            "with --exclude)"
        )
    return found
