"""The Trainer of Transformers trains, evaluates and saves a mosaic."""

import pytest
import torch
from tiny_transformers import bert
from tiny_transformers import quiet as quiet

pytest.importorskip("accelerate", reason="the Trainer needs it")

from transformers import BertForSequenceClassification, Trainer, TrainingArguments

import momos
from momos import MosaicConfig
from momos.integrations.transformers import MosaicTrainerCallback

CONFIG = MosaicConfig(block_size=4, num_motifs=32, min_ndim=2)
LEARNED = MosaicConfig.learned(block_size=4, num_motifs=16)


DATA = [
    {"input_ids": torch.randint(0, 32, (6,)), "labels": torch.tensor(i % 2)}
    for i in range(16)
]


def trainer(folder, callback, **settings):
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=4,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        seed=0,
        **({"num_train_epochs": 1, "save_strategy": "steps", "save_steps": 2} | settings),
    )
    return Trainer(
        model=bert(),
        args=arguments,
        train_dataset=DATA,
        eval_dataset=DATA,
        callbacks=[callback],
    )


def test_what_is_evaluated_and_saved_is_a_mosaic(tmp_path):
    seen = []

    class Watched(Trainer):
        def evaluate(self, *args, **kwargs):
            seen.append(momos.Mosaic.of(self.model, CONFIG).num_motifs)
            return super().evaluate(*args, **kwargs)

    callback = MosaicTrainerCallback(CONFIG, every=100)
    one = trainer(tmp_path, callback, eval_strategy="steps", eval_steps=2)
    one.__class__ = Watched
    one.train()
    assert len(seen) == 2
    assert callback.projection is not None
    momos.Mosaic.of(one.model)
    saved = bert()
    momos.load_(saved, tmp_path / "checkpoint-2" / "model.momos")
    kept = BertForSequenceClassification.from_pretrained(tmp_path / "checkpoint-2")
    wanted = kept.state_dict()
    assert all(
        torch.equal(value, wanted[name]) for name, value in saved.state_dict().items()
    )


@pytest.mark.parametrize("learn", ["weights", "motifs"])
def test_motifs_are_learned(tmp_path, learn):
    callback = MosaicTrainerCallback(LEARNED, learn=learn)
    one = trainer(tmp_path, callback)
    before = one.model.momos.motifs.detach().clone()
    one.train()
    mosaic = momos.Mosaic.of(one.model)
    assert mosaic.num_motifs == 16
    assert not torch.equal(mosaic.motifs.float(), before)
    saved = momos.load(tmp_path / "checkpoint-4" / "model.momos")
    assert saved.mosaic is not None
    momos.compact_(one.model)


def test_a_resumed_run_draws_the_same_motifs(tmp_path):
    whole = trainer(tmp_path / "a", MosaicTrainerCallback(CONFIG, every=1))
    whole.train()
    other = trainer(tmp_path / "b", MosaicTrainerCallback(CONFIG, every=1))
    other.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-2"))
    pairs = zip(whole.model.parameters(), other.model.parameters(), strict=True)
    assert all(torch.equal(one, two) for one, two in pairs)


def test_settings_are_checked():
    with pytest.raises(ValueError, match="every must be 'epoch', 'step' or an int"):
        MosaicTrainerCallback(CONFIG, every="batch")
    with pytest.raises(ValueError, match="every must be at least 1, got 0"):
        MosaicTrainerCallback(CONFIG, every=0)
    with pytest.raises(TypeError, match=r"schedule must be among every, .*, got ramps"):
        MosaicTrainerCallback(LEARNED, learn="weights", ramps=0.5)
    with pytest.raises(
        ValueError, match="learn must be 'weights' for a schedule, got None"
    ):
        MosaicTrainerCallback(CONFIG, ramp=0.5)
