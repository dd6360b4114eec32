import pytest
import torch

from momos.study.data import Split, digits


@pytest.fixture(scope="module")
def split() -> Split:
    return digits()


def test_the_split_is_whole_fixed_and_without_overlap(split: Split) -> None:
    assert (len(split.train), len(split.test)) == (1437, 360)
    assert split.train.images.shape == (1437, 64)
    again = digits()
    assert torch.equal(split.train.images, again.train.images)
    assert torch.equal(split.test.labels, again.test.labels)
    rows = torch.cat([split.train.images, split.test.images])
    assert len(rows.unique(dim=0)) == len(rows)  # the digits are all different


def test_classes_have_equal_shares(split: Split) -> None:
    train = torch.bincount(split.train.labels) / len(split.train)
    test = torch.bincount(split.test.labels) / len(split.test)
    assert (train - test).abs().max() < 2e-3


def test_training_pixels_have_mean_0_and_deviation_1(split: Split) -> None:
    assert float(split.train.images.mean()) == pytest.approx(0, abs=1e-5)
    assert float(split.train.images.std()) == pytest.approx(1, abs=1e-5)


def test_a_split_says_what_it_is(split: Split) -> None:
    assert str(split) == "scikit-learn's digits, 1437 to train on and 360 to test on"
