"""A language model of Transformers, compressed and loaded compact by `from_pretrained`.

Run it: `python examples/transformers_text.py` (transformers is needed). For a model of your own, the
command `momos compress FOLDER OUTPUT --for transformers` does the same.
"""

from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)

import momos
from momos.integrations.transformers import write_folder

TEXT = "a network is a mosaic of motifs: every block of its weights is one of a few. " * 4


def tokens(text: str) -> torch.Tensor:
    return torch.tensor([list(text.encode())])


def pretrain() -> PreTrainedModel:
    """A small Llama that knows one sentence by heart."""
    config = LlamaConfig(
        vocab_size=128,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
    )
    model = LlamaForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    for _ in range(60):
        loss = model(tokens(TEXT), labels=tokens(TEXT)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def continued(model: PreTrainedModel, start: str) -> str:
    found = model.generate(tokens(start), max_new_tokens=24, do_sample=False)
    return bytes(found[0].tolist()).decode(errors="replace")


def main(folder: str = "mosaic-of-a-llama") -> tuple[str, str, float]:
    torch.manual_seed(0)
    place = Path(folder)
    dense = pretrain()
    dense.save_pretrained(place / "dense")

    config = momos.MosaicConfig(
        block_size=2, num_motifs=256, min_ndim=2, selection="kmeans", scales="channel"
    )
    momos.compress(place / "dense", place / "model.momos", config)
    write_folder(place / "model.momos", place / "dense", place / "compact")

    compact = AutoModelForCausalLM.from_pretrained(place / "compact")
    before, after = (continued(model, "a network is ") for model in (dense, compact))
    sizes = [
        (place / name / "model.safetensors").stat().st_size for name in ("dense", "compact")
    ]
    print(f"dense:   {before}\ncompact: {after}\n{sizes[0] / sizes[1]:.1f} × smaller")
    return before, after, sizes[0] / sizes[1]


if __name__ == "__main__":
    main()
