import gzip
import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from momos.study.tasks import archives
from momos.study.tasks.archives import (
    CIFAR_FILES,
    PARTS,
    Images,
    cifar10,
    cifar_images,
    fashion_mnist,
    idx_images,
    mnist,
    read_idx,
    shakespeare,
)

CIFAR_ROW = 1 + 3 * 32 * 32


def idx(array: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return gzip.compress(header + array.tobytes(), mtime=0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    for part, count in zip(PARTS, (5, 5, 3, 3), strict=True):
        shape = (count, 4, 6) if "images" in part else (count,)
        array = generator.integers(0, 10, shape, dtype=np.uint8)
        (tmp_path / f"{part}-ubyte.gz").write_bytes(idx(array))
    return tmp_path


def md5(folder: Path) -> dict[str, str]:
    return {
        path.name: hashlib.md5(path.read_bytes()).hexdigest() for path in folder.iterdir()
    }


def test_idx_images_and_labels_are_those_of_the_files(folder: Path) -> None:
    train, test = idx_images(folder, md5(folder))
    assert train.pixels.shape == (5, 1, 4, 6)
    assert test.pixels.shape == (3, 1, 4, 6)
    assert torch.equal(test.labels, read_idx(folder / f"{PARTS[3]}-ubyte.gz").long())


def test_another_md5_is_refused(folder: Path) -> None:
    sums = md5(folder)
    path = folder / f"{PARTS[1]}-ubyte.gz"
    path.write_bytes(idx(np.zeros(5, np.uint8)))
    message = (
        f"{path.name} must have the md5 {sums[path.name]}, got {md5(folder)[path.name]}"
    )
    with pytest.raises(ValueError, match=message):
        idx_images(folder, sums)


def test_a_missing_file_says_where_it_belongs(folder: Path) -> None:
    (folder / f"{PARTS[2]}-ubyte.gz").unlink()
    message = rf"MOMOS_DATA must hold {folder.name}/{PARTS[2]}-ubyte\.gz as its authors"
    with pytest.raises(FileNotFoundError, match=message):
        idx_images(folder, md5(folder))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (idx(np.zeros((2, 3), np.uint8))[:-9], "must be a whole gzip file, got"),
        (b"no gzip", "must be a whole gzip file, got"),
        (
            gzip.compress(b"\0\0\x08\x01\0\0\0\x05abcd", mtime=0),
            "must hold 5 values, got 4",
        ),
        (
            gzip.compress(b"\0\0\x08\x01\0\0\0\x05abcdef", mtime=0),
            "must hold 5 values, got 6",
        ),
        (
            gzip.compress(b"\0\0\x0d\x01\0\0\0\0", mtime=0),
            "must be an IDX file of bytes, got 00000d01",
        ),
        (
            gzip.compress(b"\0\0\x08\x03\0\0", mtime=0),
            "must be an IDX file of bytes, got 00000803",
        ),
        (gzip.compress(b"", mtime=0), "must be an IDX file of bytes, got"),
    ],
)
def test_what_is_no_idx_file_is_refused(content: bytes, message: str, path: Path) -> None:
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{path.name} {message}"):
        read_idx(path)


@pytest.fixture
def cifar(tmp_path: Path) -> Path:
    for number, name in enumerate(CIFAR_FILES):
        rows = np.full((2, CIFAR_ROW), number, np.uint8)
        rows[:, 1 : 1 + 1024] = 200  # red
        (tmp_path / name).write_bytes(rows.tobytes())
    return tmp_path


def test_cifar_images_keep_order_and_channels(cifar: Path) -> None:
    train, test = cifar_images(cifar, size=2 * CIFAR_ROW)
    assert train.labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert test.labels.tolist() == [5, 5]
    assert train.pixels.shape == (10, 3, 32, 32)
    assert train.pixels[2, :, 0, 0].tolist() == [200, 1, 1]


def test_a_cifar_file_of_another_size_is_refused(cifar: Path) -> None:
    with pytest.raises(
        ValueError, match=r"data_batch_1\.bin must have 30730000 bytes, got 6146"
    ):
        cifar_images(cifar)


def test_a_cifar_label_above_9_is_refused(cifar: Path) -> None:
    (cifar / "test_batch.bin").write_bytes(bytes([10]) * 2 * CIFAR_ROW)
    with pytest.raises(
        ValueError, match=r"test_batch\.bin must hold labels up to 9, got 10"
    ):
        cifar_images(cifar, size=2 * CIFAR_ROW)


def test_a_text_of_another_size_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOMOS_DATA", str(tmp_path))
    (tmp_path / "text").mkdir()
    (tmp_path / "text/tinyshakespeare.txt").write_text("To be")
    with pytest.raises(
        ValueError, match=r"shakespeare\.txt must have 1115394 bytes, got 5"
    ):
        shakespeare()


class Column:
    """A column as `datasets` gives it: no list."""

    def __init__(self, values: list) -> None:
        self.values = values

    def __iter__(self):
        return iter(self.values)


def hub(monkeypatch: pytest.MonkeyPatch, load: Callable[..., object]) -> None:
    """A package `datasets` that loads what it is told, and no folder."""
    monkeypatch.delenv("MOMOS_DATA", raising=False)
    fake = ModuleType("datasets")
    fake.load_dataset = load  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "datasets", fake)


@pytest.mark.parametrize(
    ("read", "source", "column", "shape"),
    [
        (mnist, "ylecun/mnist", "image", (28, 28)),
        (fashion_mnist, "zalando-datasets/fashion_mnist", "image", (28, 28)),
        (cifar10, "uoft-cs/cifar10", "img", (32, 32, 3)),
    ],
)
def test_images_come_from_the_hub_without_a_folder(
    read: Callable, source: str, column: str, shape: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = np.random.default_rng(0)
    pictures = [generator.integers(0, 256, shape, dtype=np.uint8) for _ in range(5)]
    asked = []

    def load(name: str) -> dict[str, dict[str, Column]]:
        asked.append(name)
        parts = {"train": slice(3), "test": slice(3, 5)}
        return {
            part: {column: Column(pictures[rows]), "label": Column([7, 8, 9, 1, 2][rows])}
            for part, rows in parts.items()
        }

    hub(monkeypatch, load)
    train, test = read()
    assert asked == [source]
    assert train.labels.tolist() == [7, 8, 9]
    assert test.labels.tolist() == [1, 2]
    assert train.pixels.dtype == torch.uint8
    pixels = torch.from_numpy(pictures[4])
    expected = pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1)
    assert torch.equal(test.pixels[1], expected)


def test_the_text_comes_whole_from_its_author(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "To be, " * (archives.SHAKESPEARE_BYTES // 7) + "or"
    asked = {}

    def load(name: str, **settings: object) -> dict[str, dict[str, Column]]:
        asked.update(settings, name=name)
        return {"train": {"text": Column([text])}}

    hub(monkeypatch, load)
    text = text.ljust(archives.SHAKESPEARE_BYTES)[: archives.SHAKESPEARE_BYTES]
    assert shakespeare() == text
    assert (asked["name"], asked["sample_by"]) == ("text", "document")
    text = "To be"
    with pytest.raises(ValueError, match="must have 1115394 characters, got 5"):
        shakespeare()


FILES = {
    mnist: r"mnist/\(train-images-idx3-ubyte.gz, .*\)",
    fashion_mnist: r"fashion-mnist/\(train-images-idx3-ubyte.gz, .*\)",
    cifar10: r"cifar-10-batches-bin/\(data_batch_1.bin, .*, test_batch.bin\)",
    shakespeare: "text/tinyshakespeare.txt",
}


@pytest.mark.parametrize("read", FILES)
def test_without_folder_and_package_the_error_names_both_ways(
    read: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MOMOS_DATA", raising=False)
    monkeypatch.setitem(sys.modules, "datasets", None)
    message = rf'name the folder that holds {FILES[read]} as .* "mosaic-of-motifs\[hub\]"'
    with pytest.raises(ValueError, match=message):
        read()


@pytest.mark.parametrize("error", [ConnectionError("no route"), ValueError("no route")])
@pytest.mark.parametrize("read", FILES)
def test_without_folder_and_network_the_error_names_both_ways(
    read: Callable, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(name: str, **settings: object) -> None:
        raise error

    hub(monkeypatch, load)
    message = f"name the folder that holds {FILES[read]} as .* cannot be loaded: no route"
    with pytest.raises(ValueError, match=message):
        read()


def test_a_folder_comes_before_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(name: str, **settings: object) -> None:
        raise AssertionError(name)

    hub(monkeypatch, load)
    monkeypatch.setenv("MOMOS_DATA", str(tmp_path))
    for read in FILES:
        with pytest.raises(FileNotFoundError, match="MOMOS_DATA must hold"):
            read()


def test_a_package_that_datasets_lacks_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str) -> None:
        raise ModuleNotFoundError("No module named 'PIL'", name="PIL")

    hub(monkeypatch, load)
    with pytest.raises(ModuleNotFoundError, match="PIL"):
        mnist()


def test_images_and_labels_are_as_many() -> None:
    with pytest.raises(ValueError, match="images and labels must be as many, got 2 and 3"):
        Images(torch.zeros(2, 1, 1, 1), torch.zeros(3, dtype=torch.long))
