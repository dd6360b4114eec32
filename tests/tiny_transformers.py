"""Networks of Transformers, as small as their tests allow."""

import warnings
from collections.abc import Iterator

import pytest
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
    ViTConfig,
    ViTForImageClassification,
    WhisperConfig,
    WhisperForConditionalGeneration,
)
from transformers.utils import logging

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Transformers says much; torch warns of its own attention masks."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def llama(*, tied: bool = True) -> PreTrainedModel:
    words = {"vocab_size": 64, "max_position_embeddings": 64, "tie_word_embeddings": tied}
    return _seeded(LlamaForCausalLM, LlamaConfig(**SIZES, **words, num_key_value_heads=2))


def bert() -> PreTrainedModel:
    config = BertConfig(**SIZES, vocab_size=64, max_position_embeddings=32)
    return _seeded(BertForSequenceClassification, config)


def vit() -> PreTrainedModel:
    config = ViTConfig(**SIZES, image_size=16, patch_size=4)
    return _seeded(ViTForImageClassification, config)


def whisper() -> PreTrainedModel:
    both = {"layers": 1, "attention_heads": 4, "ffn_dim": 48}
    sizes = {f"{part}_{n}": v for part in ("encoder", "decoder") for n, v in both.items()}
    tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    config = WhisperConfig(
        **sizes,
        **tokens,
        vocab_size=64,
        num_mel_bins=8,
        d_model=32,
        max_source_positions=16,
        max_target_positions=32,
        decoder_start_token_id=1,
    )
    return _seeded(WhisperForConditionalGeneration, config)


def _seeded(kind: type[PreTrainedModel], config: PretrainedConfig) -> PreTrainedModel:
    torch.manual_seed(0)
    return kind(config).eval()
