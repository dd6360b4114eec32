import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import momos
from momos.study.data import Samples, Split
from momos.study.recipes.demo import DEMO, Learning, Recipe, Treatment
from momos.study.runs import Epoch
from momos.study.train import train

DENSE, *_ = DEMO
RECIPE = Recipe(widths=(6, 16, 4), epochs=2)
MOSAIC = Treatment("mosaic", momos.MosaicConfig(block_size=2, num_motifs=7))
LEARNED = Treatment(
    "learned", momos.MosaicConfig.learned(num_motifs=7), Learning(every=1, dense=0.5)
)


@pytest.fixture(scope="module")
def data() -> Split:
    images = torch.randn(90, 6, generator=torch.Generator().manual_seed(0))
    labels = images[:, :4].argmax(1)
    return Split(
        "points", Samples(images[:60], labels[:60]), Samples(images[60:], labels[60:])
    )


def weights(network: torch.nn.Module) -> torch.Tensor:
    return torch.nn.utils.parameters_to_vector(network.parameters()).detach()


@pytest.mark.parametrize("treatment", [MOSAIC, LEARNED], ids=["mosaic", "learned"])
def test_a_run_is_repeated_exactly_whatever_was_drawn_before(
    data: Split, treatment: Treatment
) -> None:
    one = train(RECIPE, treatment, seed=3, data=data)
    with torch.random.fork_rng(devices=[]):
        torch.rand(7)
        two = train(RECIPE, treatment, seed=3, data=data)
    assert torch.equal(weights(one.network), weights(two.network))
    assert one.epochs == two.epochs


def test_seeds_differ(data: Split) -> None:
    one, two = (train(RECIPE, DENSE, seed=seed, data=data) for seed in (0, 1))
    assert not torch.equal(weights(one.network), weights(two.network))


def test_treatments_share_start_and_order(data: Split) -> None:
    """With as many motifs as blocks a projection changes nothing: the runs are one."""
    lossless = momos.MosaicConfig(block_size=1, num_motifs=10_000, selection="distinct")
    dense = train(RECIPE, DENSE, seed=0, data=data)
    mosaic = train(RECIPE, Treatment("lossless", lossless), seed=0, data=data)
    assert torch.equal(weights(dense.network), weights(mosaic.network))
    assert dense.accuracy == mosaic.accuracy


def test_what_is_kept_is_a_mosaic_and_what_was_validated(data: Split) -> None:
    run = train(RECIPE, MOSAIC, seed=0, data=data)
    blocks = momos.Layout.of(run.network, block_size=2).read(run.network)
    assert len(blocks.unique(dim=0)) == run.lengths.motifs_used
    assert run.lengths.num_motifs == 7
    assert len(blocks.unique(dim=0)) <= 7
    right = run.network(data.test.images).argmax(1) == data.test.labels
    assert run.accuracy == pytest.approx(float(right.double().mean()))


def test_motifs_are_learned_from_the_same_start_in_the_same_order(data: Split) -> None:
    """Before the mosaic is begun, the run is the dense one, and so are its lengths."""
    late = replace(LEARNED, learning=Learning(dense=0.6))
    recipe = replace(RECIPE, epochs=4)
    dense = train(recipe, DENSE, seed=1, data=data)
    learned = train(recipe, late, seed=1, data=data)
    assert learned.epochs[:2] == dense.epochs[:2]
    assert learned.epochs[2].lengths.num_motifs is not None
    assert learned.epochs[2].lengths.bound < dense.lengths.bound


def test_what_was_learned_is_frozen_and_that_is_what_is_reported(
    data: Split, tmp_path: Path
) -> None:
    run = train(RECIPE, LEARNED, seed=0, data=data)
    mosaic = momos.Mosaic.of(run.network)
    length = momos.description_length(mosaic)
    biases = 16 + 4  # dense, in bfloat16
    assert run.lengths.num_weights == 6 * 16 + 16 * 4 + biases
    assert run.lengths.bound == length.bound + 16 * biases
    assert run.lengths.entropy == length.entropy + 16 * biases
    assert run.lengths.num_motifs == mosaic.num_motifs <= 7
    right = run.network(data.test.images).argmax(1) == data.test.labels
    assert run.accuracy == pytest.approx(float(right.double().mean()))
    momos.save(run.network, tmp_path / "learned.momos")


def test_learning_needs_a_mosaic() -> None:
    with pytest.raises(ValueError, match="a mosaic must be given to learn 'x', got none"):
        Treatment("x", learning=Learning())


def test_lengths_of_a_dense_run_are_32_bits_a_weight(data: Split) -> None:
    lengths = train(RECIPE, DENSE, seed=0, data=data).lengths
    assert lengths.num_weights == 6 * 16 + 16 + 16 * 4 + 4
    assert lengths.dense == lengths.bound == lengths.entropy == 32 * lengths.num_weights
    assert lengths.factor == 1
    assert lengths.num_motifs is None


def test_motifs_are_drawn_by_the_seed_of_the_run(data: Split) -> None:
    run = train(RECIPE, MOSAIC, seed=5, data=data)
    assert run.treatment.mosaic is not None
    assert run.treatment.mosaic.seed == 5


def test_every_epoch_is_told_and_kept(data: Split) -> None:
    told: list[Epoch] = []
    run = train(RECIPE, MOSAIC, seed=0, data=data, on_epoch=told.append)
    assert run.epochs == tuple(told)
    assert [epoch.epoch for epoch in told] == [1, 2]


def test_the_process_is_left_as_it_was(
    data: Split, capfd: pytest.CaptureFixture[str]
) -> None:
    def state() -> tuple[object, ...]:
        return (
            torch.get_num_threads(),
            torch.get_deterministic_debug_mode(),
            signal.getsignal(signal.SIGINT),
            torch.get_rng_state().tolist(),
        )

    before = state()
    train(RECIPE, MOSAIC, seed=0, data=data)
    assert state() == before
    assert capfd.readouterr() == ("", "")


def test_ctrl_c_stays_a_keyboard_interrupt(data: Split) -> None:
    def interrupt(epoch: Epoch) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            train(RECIPE, DENSE, seed=0, data=data, on_epoch=interrupt)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_another_exit_stays_an_exit(data: Split) -> None:
    def leave(epoch: Epoch) -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit, match="3"):
        train(RECIPE, DENSE, seed=0, data=data, on_epoch=leave)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("epochs", 0, "epochs must be at least 1, got 0"),
        ("batch_size", 0, "batch_size must be at least 1, got 0"),
        ("threads", 0, "threads must be at least 1, got 0"),
        ("learning_rate", 0.0, "learning_rate must be above 0, got 0.0"),
        ("weight_decay", -1.0, "weight_decay must be at least 0, got -1.0"),
    ],
)
def test_recipes_are_checked(name: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(Recipe(), **{name: value})


def test_a_recipe_prints_itself() -> None:
    assert str(RECIPE) == (
        "MLP 6-16-4, AdamW, learning rate 0.004 on a cosine, weight decay 0.01, 2 epochs, "
        "batches of 32"
    )
