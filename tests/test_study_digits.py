import pytest
import torch

from momos.study.tasks.archives import Images, digits


@pytest.fixture(scope="module")
def split() -> tuple[Images, Images]:
    return digits()


def test_the_split_is_whole_fixed_and_without_overlap(split: tuple[Images, Images]) -> None:
    assert (len(split[0]), len(split[1])) == (1437, 360)
    assert split[0].pixels.shape == (1437, 64)
    again = digits()
    assert torch.equal(split[0].pixels, again[0].pixels)
    assert torch.equal(split[1].labels, again[1].labels)
    rows = torch.cat([split[0].pixels, split[1].pixels])
    assert len(rows.unique(dim=0)) == len(rows)  # the digits are all different


def test_classes_have_equal_shares(split: tuple[Images, Images]) -> None:
    train = torch.bincount(split[0].labels) / len(split[0])
    test = torch.bincount(split[1].labels) / len(split[1])
    assert (train - test).abs().max() < 2e-3


def test_training_pixels_have_mean_0_and_deviation_1(split: tuple[Images, Images]) -> None:
    assert float(split[0].pixels.mean()) == pytest.approx(0, abs=1e-5)
    assert float(split[0].pixels.std()) == pytest.approx(1, abs=1e-5)
