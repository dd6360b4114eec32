import pytest
import torch

from momos.study.data import Batches, Samples, Split, digits


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


def numbered(total: int) -> Samples:
    return Samples(torch.arange(total).float()[:, None], torch.arange(total))


def test_batches_hold_every_sample_once() -> None:
    batches = Batches(numbered(10), 4, generator=torch.Generator().manual_seed(0))
    assert len(batches) == len(list(batches)) == 3
    images, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    assert labels.sort().values.tolist() == list(range(10))
    assert torch.equal(images[:, 0], labels.float())


def test_orders_differ_by_pass_and_are_those_of_the_generator() -> None:
    def orders() -> list[list[int]]:
        batches = Batches(numbered(100), 100, generator=torch.Generator().manual_seed(1))
        return [labels.tolist() for _ in range(2) for _, labels in batches]

    first, second = orders()
    assert first != second
    assert orders() == [first, second]


def test_without_a_generator_the_order_is_kept() -> None:
    ((_, labels),) = Batches(numbered(5), 9)
    assert labels.tolist() == [0, 1, 2, 3, 4]
