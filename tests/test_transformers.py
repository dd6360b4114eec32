"""Transformers loads, saves and runs compact networks of its own architectures."""

import copy
import json

import pytest
import torch
from commands import invoke
from tiny_transformers import bert, llama, vit, whisper
from tiny_transformers import quiet as quiet
from torch import nn
from transformers import AutoModel, AutoModelForCausalLM, LlamaForCausalLM

import momos
import momos.integrations.transformers as integration
from momos import MosaicConfig
from momos.compact.compacting import bank_of, packed_weights

IDS = torch.arange(3, 11).view(1, 8)
BANK = ("--num-motifs", "32", "--min-ndim", "2")


INPUTS = {
    llama: {"input_ids": IDS},
    bert: {"input_ids": IDS},
    vit: {"pixel_values": torch.linspace(-1, 1, 768).view(1, 3, 16, 16)},
    whisper: {
        "input_features": torch.linspace(-1, 1, 256).view(1, 8, 32),
        "decoder_input_ids": IDS,
    },
}


def folders(tmp_path, build, *options):
    """A dense folder, and the compact one that the command makes of it."""
    model = build()
    model.save_pretrained(tmp_path / "dense")
    result = invoke(
        "compress",
        tmp_path / "dense",
        tmp_path / "compact",
        "--for",
        "transformers",
        *options,
    )
    assert result.exit_code == 0, result.output
    return model, tmp_path / "compact"


@torch.no_grad()
def logits(model, build=llama):
    return model(**INPUTS[build]).logits


def expanded(tmp_path, kind, config):
    """The dense folder, with the weights of the mosaic."""
    momos.compress(tmp_path / "dense", tmp_path / "model.momos", config)
    momos.expand(tmp_path / "model.momos", tmp_path / "dense" / "model.safetensors")
    # A copy: weights mapped from a file lie at odd addresses, where products round otherwise.
    return copy.deepcopy(kind.from_pretrained(tmp_path / "dense"))


@pytest.mark.parametrize(
    ("build", "options"),
    [*((build, BANK) for build in INPUTS), (llama, ())],
    ids=["llama", "bert", "vit", "whisper", "llama by default"],
)
def test_a_compressed_folder_is_loaded_compact(tmp_path, build, options):
    model, folder = folders(tmp_path, build, *options)
    config = MosaicConfig(num_motifs=32, block_size=4, min_ndim=2, selection="kmeans")
    model = expanded(tmp_path, type(model), config if options else None)
    loaded = type(model).from_pretrained(folder)
    assert torch.allclose(logits(loaded, build), logits(model, build), atol=1e-4)
    bank_of(loaded).exact = True
    assert torch.equal(logits(loaded, build), logits(model, build))
    packed = [name for name, _ in packed_weights(loaded)]
    assert len(packed) > 8
    assert not any(
        isinstance(module, nn.Linear) and "weight" in module._parameters
        for module in loaded.modules()
    )
    again = tmp_path / "again"
    loaded.save_pretrained(again)
    back = type(model).from_pretrained(again)
    bank_of(back).exact = True
    assert torch.equal(logits(back, build), logits(model, build))
    settings = json.loads((again / "config.json").read_text())["quantization_config"]
    assert settings["quant_method"] == "momos"
    assert len(settings["weights"]) == len(packed)
    if hasattr(model, "generate") and options:
        inputs = {k: v for k, v in INPUTS[build].items() if k != "decoder_input_ids"}
        wanted, found = (
            network.generate(**inputs, max_new_tokens=4, do_sample=False)
            for network in (model, back)
        )
        assert torch.equal(found, wanted)


def test_tied_weights_are_stored_once(tmp_path):
    _, folder = folders(tmp_path, llama, *BANK)
    model = LlamaForCausalLM.from_pretrained(folder)
    assert model.lm_head.weight_mosaic is model.model.embed_tokens.weight_mosaic
    untied = tmp_path / "untied"
    untied.mkdir()
    _, folder = folders(untied, lambda: llama(tied=False), *BANK)
    model = LlamaForCausalLM.from_pretrained(folder)
    assert model.lm_head.weight_mosaic is not model.model.embed_tokens.weight_mosaic


def test_dtype_is_that_of_the_dense_network(tmp_path):
    _model, folder = folders(tmp_path, llama, *BANK)
    whole = LlamaForCausalLM.from_pretrained(folder)
    half = LlamaForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    assert logits(half).dtype == torch.bfloat16
    name = "model.layers.1.mlp.up_proj"
    one, other = (network.get_submodule(name).weight for network in (half, whole))
    assert torch.equal(one, other.bfloat16())


def test_a_head_is_added_and_taken_away(tmp_path):
    _, folder = folders(tmp_path, llama, *BANK)
    whole = AutoModelForCausalLM.from_pretrained(folder)
    base = AutoModel.from_pretrained(folder)
    wanted = whole.model(IDS).last_hidden_state
    assert torch.equal(base(IDS).last_hidden_state, wanted)
    base.save_pretrained(tmp_path / "base")
    back = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    assert torch.equal(logits(back), logits(whole))


def test_shards_are_read_and_written(tmp_path):
    model = llama()
    model.save_pretrained(tmp_path / "dense", max_shard_size="20KB")
    assert len(list((tmp_path / "dense").glob("*.safetensors"))) > 1
    config = MosaicConfig(num_motifs=32, block_size=4, min_ndim=2)
    momos.compress(tmp_path / "dense", tmp_path / "model.momos", config)
    folder = integration.write_folder(
        tmp_path / "model.momos", tmp_path / "dense", tmp_path / "new", shard_bytes=2000
    )
    assert len(list(folder.glob("*.safetensors"))) > 1
    momos.load_(model, tmp_path / "model.momos")
    loaded = LlamaForCausalLM.from_pretrained(folder)
    assert torch.allclose(logits(loaded), logits(model), atol=1e-5)


def test_a_projected_model_is_saved_compact(tmp_path):
    model = llama()
    momos.project_(model, MosaicConfig(num_motifs=32, block_size=4, min_ndim=2))
    wanted = logits(model)
    report = integration.compact_(model, exact=True)
    assert "model.layers.0.self_attn.q_proj.weight" in report.weights
    model.save_pretrained(tmp_path)
    assert torch.equal(logits(LlamaForCausalLM.from_pretrained(tmp_path)), wanted)
    dense = model.dequantize()
    assert torch.equal(logits(dense), wanted)
    assert dense.lm_head.weight is dense.model.embed_tokens.weight


def test_several_devices_are_refused(tmp_path):
    model, folder = folders(tmp_path, llama, *BANK)
    names = [name for name, _ in model.model.named_children()]
    one = {"lm_head": "cpu"} | {f"model.{name}": "cpu" for name in names}
    for device_map in ("cpu", {"": "cpu"}, one | {"model.momos": "cpu"}):
        loaded = LlamaForCausalLM.from_pretrained(folder, device_map=device_map)
        assert loaded.device.type == "cpu"
    words = "device_map must have one device for a compact network.*got cpu, disk"
    with pytest.raises(ValueError, match=words):
        LlamaForCausalLM.from_pretrained(folder, device_map=one | {"model.norm": "disk"})


def test_an_adapter_on_a_compact_base_trains(tmp_path):
    _, folder = folders(tmp_path, llama, *BANK)
    model = LlamaForCausalLM.from_pretrained(folder)
    for parameter in model.parameters():
        parameter.requires_grad_(False)

    class Adapted(nn.Module):
        """Low-rank adaptation of a linear layer (Hu et al. 2022)."""

        def __init__(self, base: nn.Linear) -> None:
            super().__init__()
            self.base = base
            self.down = nn.Linear(base.in_features, 4, bias=False)
            self.up = nn.Linear(4, base.out_features, bias=False)
            nn.init.zeros_(self.up.weight)

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return self.base(inputs) + self.up(self.down(inputs))

    for layer in model.model.layers:
        layer.self_attn.q_proj = Adapted(layer.self_attn.q_proj)
    learned = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(learned, lr=0.02)
    losses = []
    for _ in range(8):
        loss = model(IDS, labels=IDS).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    assert losses[-1] < losses[0]
    assert all(p.grad is not None for p in learned)


def test_what_goes_wrong_is_named(tmp_path):
    model, folder = folders(tmp_path, llama, *BANK)
    again = invoke("compress", tmp_path / "dense", folder, "--for", "transformers")
    assert again.exit_code == 3
    assert "must be a new or an empty folder" in again.output
    model.save_pretrained(tmp_path / "bare")
    (tmp_path / "bare" / "config.json").unlink()
    bare = invoke("compress", tmp_path / "bare", tmp_path / "x", "--for", "transformers")
    assert bare.exit_code == 1
    assert "has no config.json" in bare.output
    path = folder / "config.json"
    settings = json.loads(path.read_text())
    settings["quantization_config"]["weights"]["model.odd.weight"] = {}
    path.write_text(json.dumps(settings))
    with pytest.raises(ValueError, match=r"but has no 'model\.odd\.weight' \(weights that"):
        LlamaForCausalLM.from_pretrained(folder)
    for about, words in (
        ({"dtype": "int8"}, "dtype of weight 'w' must be one of float16"),
        ({"axis": -1}, "axis of weight 'w' must be at least 0, got -1"),
        ({"scales": 0}, "scales of weight 'w' must be at least 1, got 0"),
    ):
        with pytest.raises(ValueError, match=words):
            integration.MomosConfig(weights={"w": about})
    with pytest.raises(ValueError, match="motif_dtype must be one of int8, float16"):
        integration.MomosConfig(motif_dtype="object")
    with pytest.raises(ValueError, match="pre-quantized"):
        LlamaForCausalLM.from_pretrained(
            tmp_path / "dense", quantization_config=integration.MomosConfig()
        )
