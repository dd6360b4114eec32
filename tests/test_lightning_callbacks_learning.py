"""The callback that learns motifs: when, what is seen and kept, and that a resumed run is the same."""

import logging
import pickle
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import lightning.pytorch as L
import pytest
import torch
from lightning.pytorch.callbacks import (
    EMAWeightAveraging,
    ModelCheckpoint,
    StochasticWeightAveraging,
)
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn

import momos
from momos.integrations.lightning import LearnedMosaicCallback
from networks import bits

CONFIG = momos.MosaicConfig.learned(num_motifs=12, rate_weight=0.2)
PARTS = {"every": 2, "dense": 0.2, "ramp": 0.5, "fixed": 0.2}
STEPS = 5  # in an epoch
LEARN = pytest.mark.parametrize("learn", ["motifs", "weights"])
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


class Net(L.LightningModule):
    def __init__(self, stop: int | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.Linear(16, 4))
        self.stop = stop  # before this optimizer step an exception is raised
        self.trained: list[str] = []  # what the optimizer was given
        self.distinct: list[int] = []  # distinct scaled blocks at each validation

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        return nn.functional.cross_entropy(self.layer(batch[0]), batch[1])

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        if self.global_step == self.stop:
            self.stop = None
            raise RuntimeError("interrupted")
        return self.loss(batch)

    def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
        self.log("val", self.loss(batch))

    test_step = validation_step

    def on_validation_batch_start(self, *_) -> None:
        weights = (self.layer[0].weight, self.layer[2].weight)
        found = [torch.unique(weight.detach().view(-1, 2), dim=0) for weight in weights]
        self.distinct.append(max(map(len, found)))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        self.trained = [name for name, _ in self.named_parameters()]
        return torch.optim.AdamW(self.parameters(), lr=0.02)


class Batches:
    """Batches in order, which can be resumed within an epoch."""

    def __init__(self, size: int) -> None:
        data = torch.randn(40, 6, generator=torch.Generator().manual_seed(1))
        labels = data.argmax(1) // 2
        self.batches = list(zip(data.split(size), labels.split(size), strict=True))
        self.done = 0

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for number in range(self.done % len(self), len(self)):
            self.done = number + 1
            yield self.batches[number]

    def state_dict(self) -> dict[str, int]:
        return {"done": self.done}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.done = state["done"]


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The '.*_dataloader' does not have many workers")
        warnings.filterwarnings("ignore", ".*isinstance.treespec, LeafSpec.*")
        warnings.filterwarnings("ignore", "You're using the WeightAveraging callback, but")
        warnings.filterwarnings("ignore", "Checkpoint directory .* exists and is not empty")
        yield


def trainer(*callbacks: L.Callback, epochs: int = 4, **options) -> L.Trainer:
    options = {"enable_checkpointing": False, "logger": False} | options
    return L.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        callbacks=list(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
        num_sanity_val_steps=0,
        **options,
    )


def fit(used: L.Trainer, module: Net, checkpoint: Path | None = None) -> Net:
    used.fit(module, Batches(8), Batches(40), ckpt_path=checkpoint, weights_only=True)
    return module


def callback(learn: str = "weights", **options) -> LearnedMosaicCallback:
    parts = PARTS if learn == "weights" else {}
    return LearnedMosaicCallback(CONFIG, learn, **(parts | options))


def saver(folder: Path, **options) -> ModelCheckpoint:
    return ModelCheckpoint(folder, save_last=True, **options)


def end(module: Net, learned: LearnedMosaicCallback) -> tuple:
    """All that a run ends with, bit for bit."""
    assert learned.mosaic is not None
    found = [bits(t) for t in module.state_dict().values()]
    found += [bits(learned.mosaic.motifs), bits(learned.mosaic.indices)]
    if learned.schedule is not None:
        schedule = learned.schedule.state_dict()
        found += [schedule["steps"], schedule["learning"], bits(schedule["generator"])]
    return tuple(found)


# When


@pytest.mark.parametrize(
    ("learn", "trained"),
    [
        ("motifs", "momos.motifs"),
        ("weights", "layer.0.parametrizations.weight.original"),
    ],
)
def test_the_module_is_parametrized_before_its_optimizers_are_made(
    learn: str, trained: str
) -> None:
    module = fit(trainer(callback(learn), epochs=1), Net())
    assert trained in module.trained
    assert "layer.0.weight" not in module.trained


@LEARN
def test_validation_sees_the_mosaic(learn: str) -> None:
    module = fit(trainer(callback(learn)), Net())
    assert len(module.distinct) == 4
    assert max(module.distinct[learn == "weights" :]) <= 12


def test_in_the_dense_part_validation_sees_dense_weights() -> None:
    module = fit(trainer(callback(dense=0.3)), Net())
    assert [number > 12 for number in module.distinct] == [True, False, False, False]


@pytest.mark.parametrize("accumulated", [1, 2])
def test_the_schedule_counts_optimizer_steps(accumulated: int) -> None:
    learned = callback()
    fit(trainer(learned, accumulate_grad_batches=accumulated), Net())
    assert learned.schedule is not None
    assert learned.schedule.total_steps == 4 * -(-STEPS // accumulated)
    assert learned.schedule.steps == learned.schedule.total_steps


def test_the_schedule_is_as_long_as_max_steps_says() -> None:
    learned = callback()
    fit(trainer(learned, epochs=-1, max_steps=7), Net())
    assert learned.schedule is not None
    assert (learned.schedule.total_steps, learned.schedule.steps) == (7, 7)


def test_changes_usage_and_rate_are_logged(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path, name="", version="")
    learned = callback()
    fit(trainer(learned, logger=logger), Net())
    header, *rows = (tmp_path / "metrics.csv").read_text().splitlines()
    table = [dict(zip(header.split(","), row.split(","), strict=True)) for row in rows]
    logged = {
        name: [float(row[f"mosaic/{name}"]) for row in table if row[f"mosaic/{name}"]]
        for name in ("changed", "motifs_used", "rate_weight")
    }
    assert logged["changed"][0] == (6 * 16 + 16 * 4) // 2  # k-means, at step 4 of 20
    assert learned.mosaic is not None
    assert logged["motifs_used"][-1] == int((learned.mosaic.usage() > 0).sum())
    rates = list(dict.fromkeys(logged["rate_weight"]))  # Lightning repeats the last value
    assert rates == pytest.approx([0, 0.2 / 3, 0.4 / 3, 0.2])


# What is kept


@LEARN
def test_the_trained_module_is_a_mosaic(learn: str) -> None:
    learned = callback(learn)
    module = fit(trainer(learned), Net())
    assert momos.Mosaic.of(module) is learned.mosaic
    assert [name for name, _ in module.named_parameters()] == [
        name for name, _ in Net().named_parameters()
    ]


@LEARN
def test_the_network_inside_can_be_saved_and_loaded(learn: str, tmp_path: Path) -> None:
    module = fit(trainer(callback(learn)), Net())
    report = momos.save(module.layer, tmp_path / "layer.momos")
    assert {t.name for t in report.tensors if t.stored == "blocks"} == {
        "0.weight",
        "2.weight",
    }
    fresh = Net().layer
    momos.load_(fresh, tmp_path / "layer.momos")
    for ours, loaded in zip(
        module.layer.state_dict().values(), fresh.state_dict().values(), strict=True
    ):
        assert bits(ours) == bits(loaded)


@LEARN
def test_a_checkpoint_becomes_the_same_mosaic_as_the_docstring_says(
    learn: str, tmp_path: Path
) -> None:
    learned = callback(learn)
    module = fit(
        trainer(learned, saver(tmp_path), enable_checkpointing=True, max_steps=17), Net()
    )
    other = Net()
    momos.parametrize_(other, CONFIG, learn=learn)
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    other.load_state_dict(saved["state_dict"] | saved["momos"]["state_dict"])
    mosaic = momos.freeze_(other)
    assert learned.mosaic is not None
    assert bits(mosaic.motifs) == bits(learned.mosaic.motifs)
    for ours, loaded in zip(
        module.state_dict().values(), other.state_dict().values(), strict=True
    ):
        assert bits(ours) == bits(loaded)


@LEARN
@pytest.mark.parametrize("weights_only", [False, True])
def test_checkpoints_are_those_of_a_module_that_does_not_learn(
    learn: str, weights_only: bool, tmp_path: Path
) -> None:
    checkpoints = saver(tmp_path, save_weights_only=weights_only)
    module = fit(trainer(callback(learn), checkpoints, enable_checkpointing=True), Net())
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert ("momos" in saved) == (not weights_only)
    assert saved["state_dict"].keys() == Net().state_dict().keys()
    loaded = Net.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True)
    for name in ("layer.0.weight", "layer.2.weight"):
        assert bits(loaded.get_parameter(name)) == bits(module.get_parameter(name))
    assert "on_save_checkpoint" not in vars(module)


@LEARN
def test_the_best_epoch_is_tested_as_it_was_validated(learn: str, tmp_path: Path) -> None:
    best = ModelCheckpoint(tmp_path, monitor="val", mode="max")  # not the last epoch
    used = trainer(callback(learn), best, enable_checkpointing=True)
    module = fit(used, Net())
    found = used.test(
        module, Batches(40), ckpt_path="best", verbose=False, weights_only=True
    )
    assert found[0]["val"] == best.best_model_score
    weights = [module.layer[i].weight.detach().view(-1, 2) for i in (0, 2)]
    assert all(len(weight.unique(dim=0)) <= 12 for weight in weights)


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
def test_a_checkpoint_of_a_run_without_the_callback_is_refused(tmp_path: Path) -> None:
    fit(trainer(saver(tmp_path), enable_checkpointing=True, epochs=1), Net())
    with pytest.raises(
        ValueError, match="must be of a run with LearnedMosaicCallback, got"
    ):
        fit(trainer(callback()), Net(), tmp_path / "last.ckpt")


# Averaged


AVERAGES = {
    "ema": lambda: EMAWeightAveraging(decay=0.9),
    "ema, parameters only": lambda: EMAWeightAveraging(decay=0.9, use_buffers=False),
    "swa": lambda: StochasticWeightAveraging(0.01, swa_epoch_start=2),
}


@cache
def not_averaged(learn: str) -> bytes:
    return bits(fit(trainer(callback(learn)), Net()).layer[0].weight)


@LEARN
@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("average", AVERAGES)
def test_averages_are_validated_kept_and_frozen_as_mosaics(
    average: str, first: bool, learn: str, tmp_path: Path
) -> None:
    config = momos.MosaicConfig.learned(num_motifs=12, dense_dtype="float32")
    learned, averaging = LearnedMosaicCallback(config, learn), AVERAGES[average]()
    pair = [averaging, learned] if first else [learned, averaging]
    used = trainer(*pair, saver(tmp_path), enable_checkpointing=True)
    module = fit(used, Net())
    assert max(module.distinct[1:]) <= 12
    frozen = module.eval().loss(Batches(40).batches[0])
    assert bits(module.layer[0].weight) != not_averaged(learn)
    if average == "swa":
        return  # which validates what it has not averaged
    assert frozen == used.callback_metrics["val"]
    loaded = Net.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True).eval()
    assert loaded.loss(Batches(40).batches[0]) == frozen
    (found,) = used.test(
        module,
        Batches(40),
        ckpt_path=tmp_path / "last.ckpt",
        verbose=False,
        weights_only=True,
    )
    assert found["val"] == frozen


@pytest.mark.parametrize(
    ("average", "learn"), [*((name, "weights") for name in AVERAGES), ("ema", "motifs")]
)
def test_a_resumed_average_is_that_of_an_uninterrupted_run(
    average: str, learn: str, tmp_path: Path
) -> None:
    def run(stop: int | None, folder: str, path: Path | None = None) -> tuple:
        learned = callback(learn)
        checkpoints = saver(tmp_path / folder, every_n_epochs=1)
        used = trainer(learned, AVERAGES[average](), checkpoints, enable_checkpointing=True)
        return end(fit(used, Net(stop), path), learned)

    whole = run(None, "whole")
    with pytest.raises(RuntimeError, match="interrupted"):
        run(12, "broken")
    assert run(None, "broken", tmp_path / "broken" / "last.ckpt") == whole


# Resumed and interrupted


@LEARN
@pytest.mark.parametrize("stop", [3, 7, 10, 18])
def test_a_resumed_run_ends_as_an_uninterrupted_one(
    learn: str, stop: int, tmp_path: Path
) -> None:
    whole = callback(learn)
    expected = end(fit(trainer(whole), Net()), whole)
    options = {"enable_checkpointing": True}
    checkpoints = saver(tmp_path, every_n_train_steps=1)
    with pytest.raises(RuntimeError, match="interrupted"):
        fit(trainer(callback(learn), checkpoints, **options), Net(stop))
    learned = callback(learn)
    used = trainer(learned, saver(tmp_path, every_n_train_steps=1), **options)
    module = fit(used, Net(), tmp_path / "last.ckpt")
    assert used.global_step == 20
    assert end(module, learned) == expected


def test_an_interrupted_module_and_callback_can_be_resumed_too(tmp_path: Path) -> None:
    whole = callback()
    expected = end(fit(trainer(whole), Net()), whole)
    learned, module = callback(), Net(stop=13)
    options = {"enable_checkpointing": True}
    with pytest.raises(RuntimeError, match="interrupted"):
        fit(trainer(learned, saver(tmp_path, every_n_train_steps=1), **options), module)
    used = trainer(learned, saver(tmp_path, every_n_train_steps=1), **options)
    assert end(fit(used, module, tmp_path / "last.ckpt"), learned) == expected


@LEARN
def test_fitting_again_goes_on_from_the_interrupted_module(learn: str) -> None:
    learned, module = callback(learn), Net(stop=13)
    with pytest.raises(RuntimeError, match="interrupted"):
        fit(trainer(learned), module)
    bank = module.momos
    with pytest.raises(ValueError, match="must be a mosaic"):
        momos.Mosaic.of(module)
    fit(trainer(learned, epochs=2), module)  # another trainer: a new schedule
    assert learned.mosaic is not None
    assert not hasattr(module, "momos")
    assert learned.mosaic.layout == bank.layout
    if learned.schedule is not None:
        assert learned.schedule.bank is bank
        assert (learned.schedule.steps, learned.schedule.total_steps) == (10, 10)


def test_the_same_trainer_goes_on_with_its_schedule() -> None:
    learned, module = callback(), Net(stop=13)
    used = trainer(learned)
    with pytest.raises(RuntimeError, match="interrupted"):
        fit(used, module)
    assert learned.schedule is not None
    assert learned.schedule.steps == 13
    fit(used, module)
    assert learned.schedule.steps == used.global_step


def test_a_module_that_is_parametrized_otherwise_is_refused() -> None:
    module = Net()
    momos.parametrize_(module, CONFIG, learn="motifs")
    with pytest.raises(ValueError, match="so learn must be 'motifs', got 'weights'"):
        fit(trainer(callback()), module)
    other = momos.MosaicConfig.learned(num_motifs=13)
    with pytest.raises(ValueError, match=r"so config must be .*=12.*, got .*=13"):
        fit(trainer(LearnedMosaicCallback(other, "motifs")), module)
    fit(trainer(callback("motifs"), epochs=1), module)


# What is refused


def test_wrong_settings_are_refused_at_once() -> None:
    with pytest.raises(ValueError, match="learn must be 'motifs' or 'weights', got 'both'"):
        LearnedMosaicCallback(CONFIG, "both")  # pyright: ignore
    words = (
        "settings of the schedule must be among every, dense, ramp, fixed, got evry, warm"
    )
    with pytest.raises(TypeError, match=words):
        LearnedMosaicCallback(CONFIG, evry=3, warm=0.1)
    with pytest.raises(
        ValueError, match=r"'weights' for a schedule, got .* {'dense': 0.1}"
    ):
        LearnedMosaicCallback(CONFIG, "motifs", dense=0.1)
    with pytest.raises(ValueError, match="must be parts of the whole in this order"):
        LearnedMosaicCallback(CONFIG, dense=0.7)
    with pytest.raises(ValueError, match="every must be at least 1, got 0"):
        LearnedMosaicCallback(CONFIG, every=0)


def test_a_training_without_an_end_is_refused() -> None:
    words = r"must know how many steps it will take \(max_epochs or max_steps\), got inf"
    with pytest.raises(ValueError, match=words):
        fit(trainer(callback(), epochs=-1), Net())
    fit(trainer(callback("motifs"), epochs=-1, max_steps=3), Net())


def test_training_that_ends_in_its_dense_part_is_no_mosaic() -> None:
    class Stopping(Net):
        def on_train_batch_end(self, *_) -> None:
            self.trainer.should_stop = True

    with pytest.raises(ValueError, match="still in its dense part"):
        fit(trainer(callback(dense=0.5)), Stopping())


# In processes of their own


def test_a_mosaic_returns_from_a_process_that_trains_a_copy() -> None:
    learned, module = callback(), Net()
    copied = pickle.loads(pickle.dumps(learned))
    assert learned.mosaic is None
    fit(trainer(copied), module)
    pickle.loads(pickle.dumps(copied))  # for another training
    launched = L.Trainer(
        accelerator="cpu", devices=2, strategy="ddp_spawn", logger=False, barebones=True
    )
    with pytest.warns(
        UserWarning, match=r"callback\.mosaic\.write_\(module\), or \.within"
    ):
        copied._returning.send(launched, copied.mosaic)
    assert learned.mosaic is not None
    assert learned.mosaic is learned.mosaic
    assert not learned._returning.path.exists()
    other = Net()
    other.load_state_dict(module.state_dict())  # as Lightning does
    learned.mosaic.within("layer").write_(other.layer)
    assert bits(other.layer[0].weight) == bits(module.layer[0].weight)
    momos.Mosaic.of(other.layer)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_a_mosaic_returns_from_forked_processes(path: Path) -> None:
    learned, module = callback(every=1), Net()
    before = bits(module.layer[0].weight)
    fit(trainer(learned, devices=2, strategy="ddp_fork"), module)
    assert learned.mosaic is not None
    assert bits(module.layer[0].weight) != before
    weight = bits(module.layer[0].weight)
    learned.mosaic.within("layer").write_(module.layer)
    assert bits(module.layer[0].weight) == weight
    momos.save(module.layer, path)


def test_the_rate_of_whole_motifs_is_in_the_gradient() -> None:
    zeros = {}
    for rate_weight, batches in ((0.0, 1), (0.3, 1), (0.3, 2)):
        config = momos.MosaicConfig.learned(selection="whole", rate_weight=rate_weight)
        callback = LearnedMosaicCallback(config, ramp=0.0)
        net = Net()
        trainer(callback, accumulate_grad_batches=batches).fit(net, Batches(8), Batches(8))
        zeros[rate_weight, batches] = int((net.layer[0].weight == 0).sum())
    assert zeros[0.0, 1] < zeros[0.3, 2] <= zeros[0.3, 1]
