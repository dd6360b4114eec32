"""State dicts of networks that learn: complete for learning, and by name what the network computes."""

from pathlib import Path

import pytest
import torch
from torch import nn

from momos import MosaicConfig, Reassign, freeze_, parametrize_
from networks import bits

CONFIG = MosaicConfig.learned(num_motifs=12, dense_dtype="float32")
BOTH = pytest.mark.parametrize("learn", ["motifs", "weights"])


class Tied(nn.Module):
    """Embeddings tied to the output layer, and one layer under two names."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.embedding = nn.Embedding(11, 8)
        self.first = nn.Linear(8, 8)
        self.second = self.first
        self.head = nn.Linear(8, 11, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.second(self.first(self.embedding(x))))


def learned(learn: str, seed: int = 0, *, steps: int = 3) -> Tied:
    model = Tied(seed)
    parametrize_(model, CONFIG, learn=learn)  # pyright: ignore[reportArgumentType]
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(steps):
        model(torch.arange(11)).square().sum().backward()
        optimizer.step()
    if learn == "weights":
        Reassign(model, total_steps=1).step()
    return model


@BOTH
def test_an_ordinary_network_loads_the_mosaic_by_name(learn) -> None:
    model, plain = learned(learn), Tied(1)
    missing, unexpected = plain.load_state_dict(model.state_dict(), strict=False)
    assert missing == []
    assert all("parametrizations" in name or name[:6] == "momos." for name in unexpected)
    outputs = bits(plain(torch.arange(11)))
    freeze_(model)
    assert bits(model(torch.arange(11))) == outputs


@BOTH
def test_another_learning_network_loads_all_of_it(learn) -> None:
    model, other = learned(learn), learned(learn, 1, steps=0)
    other.load_state_dict(model.state_dict())
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        assert bits(one) == bits(two)
    assert bits(other(torch.arange(11))) == bits(model(torch.arange(11)))
    assert other.state_dict().keys() == model.state_dict().keys()


@BOTH
def test_states_of_before_are_loaded_too(learn) -> None:
    """They had both names of tied weights, and nothing under ordinary names."""
    model, other = learned(learn), learned(learn, 1, steps=0)
    state = model.state_dict()
    for name in ("embedding.weight", "head.weight", "first.weight", "second.weight"):
        del state[name]
    del state["momos.rate_weight"]
    if learn == "weights":
        for name, first in (("head", "embedding"), ("second", "first")):
            latent = state[f"{first}.parametrizations.weight.original"]
            state[f"{name}.parametrizations.weight.original"] = latent
    other.load_state_dict(state)
    assert bits(other(torch.arange(11))) == bits(model(torch.arange(11)))


def test_no_two_tensors_but_the_ordinary_tied_ones_share_memory() -> None:
    for dense in (0.0, 0.5):
        model = learned("weights")
        Reassign(model, total_steps=4, dense=dense)
        ordinary, places = set(Tied().state_dict()), {}
        for name, tensor in model.state_dict().items():
            if tensor.numel():
                places.setdefault(tensor.untyped_storage().data_ptr(), set()).add(name)
        assert all(len(names) == 1 or names <= ordinary for names in places.values())


def test_what_lacks_a_latent_weight_is_still_refused() -> None:
    state = learned("weights").state_dict()
    del state["embedding.parametrizations.weight.original"]
    with pytest.raises(RuntimeError, match=r"Missing key.*embedding\.parametrizations"):
        learned("weights", steps=0).load_state_dict(state)


@BOTH
@pytest.mark.parametrize("strict", [False, True])
def test_the_state_of_an_ordinary_network_is_refused_also_where_not_strict(
    learn, strict
) -> None:
    model = learned(learn)
    words = (
        "must be of a network whose motifs are learned, got one with dense weights 'embed"
    )
    with pytest.raises(RuntimeError, match=words):
        model.load_state_dict(Tied(1).state_dict(), strict=strict)


# Hugging Face


@pytest.mark.parametrize("learn", ["motifs", "weights"])
def test_a_tied_transformer_is_saved_while_it_learns_and_loaded_as_it_computes(
    learn, tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    safetensors = pytest.importorskip("safetensors.torch")
    transformers.utils.logging.disable_progress_bar()
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        n_layer=1, n_head=2, n_embd=8, vocab_size=20, n_positions=8, eos_token_id=0
    )
    model = transformers.GPT2LMHeadModel(config).eval()
    parametrize_(model, CONFIG, learn=learn)
    if learn == "weights":
        with torch.no_grad():
            for tile in model.momos.tiles:
                tile.latent.add_(torch.randn_like(tile.latent))
        Reassign(model, total_steps=1).step()
    model.save_pretrained(tmp_path)
    tokens = torch.arange(6)[None]
    expected = bits(model(tokens).logits)
    loaded = transformers.GPT2LMHeadModel.from_pretrained(tmp_path).eval()
    assert bits(loaded(tokens).logits) == expected
    # As transformers.Trainer resumes
    torch.manual_seed(1)
    other = transformers.GPT2LMHeadModel(config).eval()
    parametrize_(other, CONFIG, learn=learn)
    state = safetensors.load_file(tmp_path / "model.safetensors")
    missing, unexpected = other.load_state_dict(state, strict=False)
    assert (missing, unexpected) == ([], [])
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        assert bits(one) == bits(two)
    assert bits(other(tokens).logits) == expected
