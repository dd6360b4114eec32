"""The callback: what validation and checkpoints see, and that a resumed run is the same run."""

import csv
import logging
import warnings
from copy import deepcopy
from multiprocessing.reduction import ForkingPickler

import lightning.pytorch as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader, TensorDataset

import momos
from momos.integrations.lightning import ComplexityCallback, MosaicCallback

CONFIG = momos.MosaicConfig(block_size=2, num_motifs=12)
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


class Net(L.LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Sequential(
            torch.nn.Linear(6, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4)
        )
        self.distinct = []  # distinct blocks at each validation

    def loss(self, batch):
        return torch.nn.functional.cross_entropy(self.layer(batch[0]), batch[1])

    def training_step(self, batch, _):
        return self.loss(batch)

    def validation_step(self, batch, _):
        self.log("val", self.loss(batch))

    def on_validation_epoch_start(self):
        blocks = momos.Layout.of(self, block_size=2).read(self)
        self.distinct.append(len(torch.unique(blocks, dim=0)))

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=0.02)


def loader(size=8):
    generator = torch.Generator().manual_seed(1)
    data = torch.randn(40, 6, generator=generator)
    return DataLoader(TensorDataset(data, data.argmax(1) // 2), batch_size=size)


def fit(tmp_path, *, callbacks, epochs=3, module=None, checkpoint=None, **options):
    module = module or Net()
    options = {"enable_checkpointing": False, "logger": False} | options
    trainer = L.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        callbacks=callbacks,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        log_every_n_steps=1,
        **options,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The '.*_dataloader' does not have many workers")
        warnings.filterwarnings("ignore", ".*isinstance.treespec, LeafSpec.*")
        warnings.filterwarnings("ignore", "Checkpoint directory .* exists and is not empty")
        trainer.fit(module, loader(), loader(40), ckpt_path=checkpoint, weights_only=False)
    return module


@pytest.mark.parametrize("every", ["epoch", "step", 3])
def test_validation_sees_projected_weights(tmp_path, every):
    module = fit(
        tmp_path, callbacks=[MosaicCallback(CONFIG, every)], num_sanity_val_steps=0
    )
    assert len(module.distinct) == 3
    assert max(module.distinct) <= 12


def test_validation_in_mid_epoch_sees_projected_weights(tmp_path):
    callback = MosaicCallback(CONFIG)
    module = fit(
        tmp_path, callbacks=[callback], val_check_interval=2, num_sanity_val_steps=0
    )
    assert len(module.distinct) > 3
    assert max(module.distinct) <= 12


def test_the_sanity_check_leaves_the_initial_weights_alone(tmp_path):
    module = fit(tmp_path, callbacks=[MosaicCallback(CONFIG)], num_sanity_val_steps=1)
    assert module.distinct[0] > 12


def test_the_trained_module_is_a_mosaic(tmp_path):
    callback = MosaicCallback(CONFIG)
    module = fit(tmp_path, callbacks=[callback])
    assert momos.Mosaic.of(module) is callback.projection.mosaic


def test_the_network_inside_the_module_can_be_saved(tmp_path):
    module = fit(tmp_path, callbacks=[MosaicCallback(CONFIG)])
    report = momos.save(module.layer, tmp_path / "layer.momos")
    assert {tensor.stored for tensor in report.tensors} == {"blocks"}
    fresh = Net()
    momos.load_(fresh.layer, tmp_path / "layer.momos")
    assert all(map(torch.equal, fresh.parameters(), module.parameters()))


def test_a_run_that_stops_within_an_epoch_ends_as_a_mosaic(tmp_path):
    module = fit(tmp_path, callbacks=[MosaicCallback(CONFIG)], max_steps=7)
    momos.Mosaic.of(module)


def test_a_callback_can_be_sent_to_a_spawned_process():
    callback = MosaicCallback(momos.MosaicConfig(num_motifs=4, seed=3), every=5)
    torch.rand(7, generator=callback.generator)
    # through the pickler of torch.multiprocessing, which moves tensors to shared memory
    twin = ForkingPickler.loads(bytes(ForkingPickler.dumps(callback)))
    assert (twin.config, twin.interval) == (callback.config, 5)
    drawn = [torch.rand(3, generator=one.generator) for one in (callback, twin)]
    assert torch.equal(*drawn)
    copied = deepcopy(callback)
    assert copied.generator is not callback.generator


def test_networks_trained_in_another_process_are_found_by_the_config(tmp_path):
    """Lightning brings back the weights alone."""
    module = Net()
    fit(tmp_path, callbacks=[MosaicCallback(CONFIG)], module=module, epochs=1)
    here = Net()
    here.load_state_dict(module.state_dict())
    with pytest.raises(ValueError, match="never projected"):
        momos.save(here.layer, tmp_path / "net.momos")
    momos.save(here.layer, tmp_path / "net.momos", config=CONFIG)
    for name, values in momos.load(tmp_path / "net.momos").state_dict().items():
        assert torch.equal(values, module.layer.state_dict()[name])


def test_the_best_weights_loaded_after_training_are_a_mosaic(tmp_path):
    keep = ModelCheckpoint(tmp_path / "kept", filename="{epoch}", save_top_k=-1)
    callback = MosaicCallback(CONFIG)
    module = fit(tmp_path, callbacks=[callback, keep], enable_checkpointing=True)
    best = torch.load(tmp_path / "kept" / "epoch=0.ckpt", weights_only=False)
    assert not torch.equal(best["state_dict"]["layer.0.weight"], module.layer[0].weight)
    module.load_state_dict(best["state_dict"])
    momos.save(module.layer, tmp_path / "net.momos")
    for name, values in momos.load(tmp_path / "net.momos").state_dict().items():
        assert torch.equal(values, module.layer.state_dict()[name])


def test_steps_count_optimizer_steps_not_batches(tmp_path):
    seen = []

    class Counting(MosaicCallback):
        def _project(self, pl_module, *, on_epoch):
            seen.append(pl_module.trainer.global_step)
            super()._project(pl_module, on_epoch=on_epoch)

    fit(tmp_path, callbacks=[Counting(CONFIG, 2)], accumulate_grad_batches=2, epochs=2)
    assert [step for step in seen if step % 2 == 0] == sorted(
        {s for s in seen if s % 2 == 0}
    )
    assert 2 in seen


@pytest.mark.parametrize("every", ["epoch", 2])
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, every):
    whole = fit(tmp_path / "whole", callbacks=[MosaicCallback(CONFIG, every)], epochs=4)
    saver = ModelCheckpoint(tmp_path / "saved", save_last=True, every_n_epochs=1)
    fit(
        tmp_path / "first",
        callbacks=[MosaicCallback(CONFIG, every), saver],
        epochs=2,
        enable_checkpointing=True,
    )
    resumed = fit(
        tmp_path / "second",
        callbacks=[MosaicCallback(CONFIG, every), saver],
        epochs=4,
        enable_checkpointing=True,
        checkpoint=tmp_path / "saved" / "last.ckpt",
    )
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_checkpoint_holds_projected_weights(tmp_path):
    saver = ModelCheckpoint(tmp_path, save_last=True)
    fit(
        tmp_path,
        callbacks=[MosaicCallback(CONFIG), saver],
        enable_checkpointing=True,
    )
    state = torch.load(tmp_path / "last.ckpt", weights_only=False)["state_dict"]
    net = Net()
    net.load_state_dict(state)
    blocks = momos.Layout.of(net, block_size=2).read(net)
    assert len(torch.unique(blocks, dim=0)) <= 12


@pytest.mark.parametrize("every", ["epoch", "step"])
def test_distortion_moved_usage_and_lengths_are_logged(tmp_path, every):
    callback = MosaicCallback(CONFIG, every)
    logger = CSVLogger(tmp_path, name="", version="")
    fit(tmp_path, callbacks=[callback], logger=logger)
    header, *rows = (tmp_path / "metrics.csv").read_text().splitlines()
    columns = header.split(",")
    for name in ("distortion", "moved", "motifs_used", "bound", "entropy"):
        values = [row.split(",")[columns.index(f"mosaic/{name}")] for row in rows]
        assert sum(value != "" for value in values) >= 3
    bound = [row.split(",")[columns.index("mosaic/bound")] for row in rows]
    length = momos.description_length(callback.projection.mosaic)
    assert {float(value) for value in bound if value} == {length.bound}


@pytest.mark.parametrize("every", [0, -1, "batch", 1.5])
def test_a_wrong_interval_is_refused(every):
    with pytest.raises(ValueError, match="every must be"):
        MosaicCallback(CONFIG, every)


def test_settings_for_learned_motifs_are_refused():
    config = momos.MosaicConfig.learned()
    with pytest.raises(ValueError, match=r"scales='tensor'.*momos\.parametrize_"):
        MosaicCallback(config)


def test_complexity_is_measured_before_training_and_after_epochs(tmp_path):
    logger = CSVLogger(tmp_path, flush_logs_every_n_steps=1)
    watch = ComplexityCallback(("signs", "float fields"), every=2)
    torch.manual_seed(0)
    start = momos.measure(Net(), measures=("signs",), controls=0)["signs"].value
    module = fit(tmp_path, callbacks=[watch], epochs=4, logger=logger)
    assert [epoch for epoch, _ in watch.history] == [0, 2, 4]
    assert watch.history[0][1]["signs"].value == start
    last = momos.measure(module, measures=("float fields",), controls=0)["float fields"]
    assert watch.history[-1][1]["float fields"].value == last.value
    logger.save()
    with open(tmp_path / "lightning_logs" / "version_0" / "metrics.csv") as file:
        table = list(csv.DictReader(file))
    assert "complexity/float fields, bits per weight" in table[0]
    logged = [row["complexity/float fields"] for row in table]
    assert float(list(filter(None, logged))[-1]) == pytest.approx(last.value, rel=1e-6)


def test_a_measure_that_cannot_be_taken_is_refused_when_training_starts(tmp_path):
    with pytest.raises(ValueError, match="measures must be among"):
        fit(tmp_path, callbacks=[ComplexityCallback("nonsense")])
    with pytest.raises(ValueError, match="every must be at least 1, got 0"):
        ComplexityCallback(every=0)


def test_complexity_of_a_mosaic_in_training_is_that_of_its_projected_weights(tmp_path):
    watch = ComplexityCallback(("signs",))
    module = fit(tmp_path, callbacks=[MosaicCallback(CONFIG), watch])
    found = watch.history[-1][1]["signs"].value
    assert found == momos.measure(module, measures=("signs",), controls=0)["signs"].value
