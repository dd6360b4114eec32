"""Data sets in memory; public ones from files in the layouts that their authors publish.

The environment variable MOMOS_DATA names the folder that holds `mnist`, `fashion-mnist`,
`cifar-10-batches-bin`, `text` and `weights`. Files are checked before they are used, and none
is downloaded. Where MOMOS_DATA is not set, images and text come through the Hugging Face package
`datasets`, if that is installed.

"""

import gzip
import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int, Shaped, UInt8
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor

from momos.study.packages import needed

VARIABLE = "MOMOS_DATA"
PARTS = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
MNIST = {  # md5 of the files of LeCun, Cortes and Burges
    "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
}
FASHION = {  # md5 as in the README of zalandoresearch/fashion-mnist
    "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
}
CIFAR_FILES = (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin")
CIFAR_BYTES = 10_000 * (1 + 3 * 32 * 32)  # of each file: labels and pixels of 10 000 images
SHAKESPEARE_BYTES = 1_115_394
DIGITS_TEST = 360  # a fifth of the 1797 digits
SPLIT_SEED = 0
MODULUS = 97
HUB = {  # what `datasets` loads, and its column of images
    "mnist": ("ylecun/mnist", "image"),
    "fashion-mnist": ("zalando-datasets/fashion_mnist", "image"),
    "cifar-10-batches-bin": ("uoft-cs/cifar10", "img"),
}
SHAKESPEARE = "text/tinyshakespeare.txt"
SHAKESPEARE_URL = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"


@dataclass(frozen=True, eq=False)
class Images:
    """Pixels, bytes from 0 to 255 but for the digits, and classes."""

    pixels: Shaped[Tensor, "n ..."]
    labels: Int[Tensor, " n"]

    def __post_init__(self) -> None:
        if len(self.pixels) != len(self.labels):
            raise ValueError(
                f"images and labels must be as many, got {len(self.pixels)} and "
                f"{len(self.labels)}"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> "Images":
        return Images(self.pixels.to(device), self.labels.to(device))


def mnist() -> tuple[Images, Images]:
    """60 000 handwritten digits to train on and 10 000 to test on."""
    return _images("mnist", tuple(MNIST), lambda folder: idx_images(folder, MNIST))


def fashion_mnist() -> tuple[Images, Images]:
    """60 000 pictures of clothes to train on and 10 000 to test on."""
    return _images(
        "fashion-mnist", tuple(FASHION), lambda folder: idx_images(folder, FASHION)
    )


def cifar10() -> tuple[Images, Images]:
    """50 000 colour images to train on and 10 000 to test on."""
    return _images("cifar-10-batches-bin", CIFAR_FILES, cifar_images)


def shakespeare() -> str:
    """The text of tinyshakespeare, 1 115 394 characters.

    Raises:
        FileNotFoundError: if MOMOS_DATA is set, and its file is missing.
        ValueError: if the text has another size, or there is none either way.
    """
    if os.environ.get(VARIABLE):
        path = file(SHAKESPEARE)
        _check_bytes(path, SHAKESPEARE_BYTES)
        return path.read_text("ascii")
    found = _loaded(
        SHAKESPEARE, "text", data_files={"train": SHAKESPEARE_URL}, sample_by="document"
    )
    text = "".join(found["train"]["text"])
    if len(text) != SHAKESPEARE_BYTES:
        raise ValueError(
            f"{SHAKESPEARE_URL} must have {SHAKESPEARE_BYTES} characters, got {len(text)}"
        )
    return text


def digits() -> tuple[Images, Images]:
    """1437 of scikit-learn's digits to train on and 360 to test on, the classes in equal shares.

    One mean and one deviation, of the training pixels, standardise all pixels: some pixels are
    always blank, so a deviation per pixel would be zero.
    """
    pixels, labels = load_digits(return_X_y=True)
    parts = train_test_split(
        pixels, labels, test_size=DIGITS_TEST, stratify=labels, random_state=SPLIT_SEED
    )
    train, test, train_labels, test_labels = map(torch.from_numpy, parts)
    mean, deviation = train.mean(), train.std()
    return (
        Images(((train - mean) / deviation).float(), train_labels.long()),
        Images(((test - mean) / deviation).float(), test_labels.long()),
    )


def additions(
    modulus: int = MODULUS, *, share: float = 0.5, seed: int = SPLIT_SEED
) -> tuple[Images, Images]:
    """All pairs of numbers below `modulus` and their sums, in two parts without a common pair.

    Networks first learn them by heart and much later understand (Power et al. 2022); half are to
    train on, as in arXiv 2605.15551.
    """
    pairs = torch.cartesian_prod(*2 * [torch.arange(modulus)])
    order = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(seed))
    train, test = (pairs[rows] for rows in order.tensor_split([int(share * len(pairs))]))
    return Images(train, train.sum(1) % modulus), Images(test, test.sum(1) % modulus)


def file(name: str) -> Path:
    """The file of that name in the data folder.

    Raises:
        ValueError: if MOMOS_DATA is not set.
        FileNotFoundError: if there is no such file.
    """
    root = os.environ.get(VARIABLE)
    if not root:
        raise ValueError(
            f"{VARIABLE} must name the folder that holds {name}, but is not set"
        )
    return _present(Path(root) / name)


def idx_images(folder: Path, md5: Mapping[str, str]) -> tuple[Images, Images]:
    """Train and test images of four IDX files, whose md5 must be those given.

    Raises:
        FileNotFoundError: if one is missing.
        ValueError: if one has another md5, or holds something else.
    """
    arrays = []
    for part in PARTS:
        path = _present(folder / f"{part}-ubyte.gz")
        found = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
        if found != md5[path.name]:
            raise ValueError(f"{path} must have the md5 {md5[path.name]}, got {found}")
        arrays.append(read_idx(path))
    train, labels, test, test_labels = arrays
    return (
        Images(train[:, None], labels.long()),
        Images(test[:, None], test_labels.long()),
    )


def read_idx(path: Path) -> UInt8[Tensor, "..."]:
    """The array of bytes in a gzip-compressed IDX file.

    Raises:
        ValueError: if it is no such file, or holds fewer or more bytes than its header says.
    """
    try:
        content = gzip.decompress(path.read_bytes())
    except (OSError, EOFError) as error:
        raise ValueError(f"{path} must be a whole gzip file, got {error}") from error
    ndim = content[3] if len(content) >= 4 else 0
    start = 4 + 4 * ndim
    if content[:3] != b"\0\0\x08" or not ndim or len(content) < start:
        raise ValueError(f"{path} must be an IDX file of bytes, got {content[:4].hex()}")
    shape = [int(size) for size in np.frombuffer(content[4:start], ">u4")]
    values = np.frombuffer(content, np.uint8, offset=start)
    if len(values) != np.prod(shape):
        raise ValueError(f"{path} must hold {np.prod(shape)} values, got {len(values)}")
    return torch.from_numpy(values.reshape(shape).copy())


def cifar_images(folder: Path, *, size: int = CIFAR_BYTES) -> tuple[Images, Images]:
    """Train and test images of the six files of CIFAR-10's binary version.

    Raises:
        FileNotFoundError: if one is missing.
        ValueError: if one has not `size` bytes, or a label above 9.
    """
    parts = [_cifar_file(_present(folder / name), size) for name in CIFAR_FILES]
    train = Images(
        torch.cat([part.pixels for part in parts[:-1]]),
        torch.cat([part.labels for part in parts[:-1]]),
    )
    return train, parts[-1]


def load_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file."""
    return needed("safetensors.torch").load_file(path)


def _cifar_file(path: Path, size: int) -> Images:
    _check_bytes(path, size)
    rows = torch.from_numpy(np.fromfile(path, np.uint8).reshape(-1, 1 + 3 * 32 * 32))
    if int(rows[:, 0].max()) > 9:
        raise ValueError(f"{path} must hold labels up to 9, got {int(rows[:, 0].max())}")
    return Images(rows[:, 1:].reshape(-1, 3, 32, 32).clone(), rows[:, 0].long())


def _images(
    name: str, files: tuple[str, ...], read: Callable[[Path], tuple[Images, Images]]
) -> tuple[Images, Images]:
    root = os.environ.get(VARIABLE)
    if root:
        return read(Path(root) / name)
    repository, column = HUB[name]
    found = _loaded(f"{name}/({', '.join(files)})", repository)
    return _of_hub(found["train"], column), _of_hub(found["test"], column)


def _of_hub(rows: Any, column: str) -> Images:
    pixels = torch.from_numpy(np.stack([np.asarray(image) for image in rows[column]]))
    pixels = pixels[:, None] if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2)
    return Images(pixels.contiguous(), torch.tensor(list(rows["label"])))


def _loaded(files: str, source: str, **settings: Any) -> Any:
    """What `datasets` loads, in place of those files of the folder that MOMOS_DATA names."""
    try:
        datasets = needed("datasets", '"mosaic-of-motifs[hub]"')
        return datasets.load_dataset(source, **settings)
    except ModuleNotFoundError:  # of something that datasets needs
        raise
    except ImportError as error:
        reason = str(error)
    except (OSError, ValueError) as error:  # as datasets raises without a network
        where = settings.get("data_files", {}).get("train", source)
        reason = f"{where} cannot be loaded: {error}"
    raise ValueError(
        f"{VARIABLE} must name the folder that holds {files} as their authors publish them, or "
        f"the package datasets must load them; but {VARIABLE} is not set, and {reason}"
    )


def _present(path: Path) -> Path:
    if not path.is_file():
        raise FileNotFoundError(
            f"{VARIABLE} must hold {path.parent.name}/{path.name} as its authors publish it, "
            f"but there is no {path}"
        )
    return path


def _check_bytes(path: Path, size: int) -> None:
    found = path.stat().st_size
    if found != size:
        raise ValueError(f"{path} must have {size} bytes, got {found}")
