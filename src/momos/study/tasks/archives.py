"""Data sets in memory; public ones from files as their authors publish them, which are checked.

The environment variable MOMOS_DATA names the folder that holds `mnist`, `fashion-mnist`,
`cifar-10-batches-bin`, `text` and `weights`. Where it is not set, images and text come through
the Hugging Face package `datasets`, if that is installed.
"""

import gzip
import hashlib
import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int, Shaped, UInt8
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

from momos.study.packages import needed

VARIABLE = "MOMOS_DATA"
PARTS = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
ARCHIVES = tomllib.loads(
    files("momos.study.tasks").joinpath("archives.toml").read_text("utf-8")
)
CIFAR_FILES = (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin")
CIFAR_BYTES = 10_000 * (1 + 3 * 32 * 32)  # of each file: labels and pixels of 10 000 images
SHAKESPEARE_BYTES = 1_115_394
DIGITS_TEST = 360  # a fifth of the 1797 digits
SPLIT_SEED = 0
MODULUS = 97
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
    return _idx_images("mnist")


def fashion_mnist() -> tuple[Images, Images]:
    """60 000 pictures of clothes to train on and 10 000 to test on."""
    return _idx_images("fashion-mnist")


def _idx_images(name: str) -> tuple[Images, Images]:
    md5 = ARCHIVES[name]["md5"]
    return _images(name, tuple(md5), lambda folder: idx_images(folder, md5))


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

    All pixels are standardised alike, since some are always blank.
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


def additions(modulus: int = MODULUS) -> tuple[Images, Images]:
    """All pairs of numbers below `modulus` and their sums, half to train on (arXiv 2605.15551)."""
    pairs = torch.cartesian_prod(*2 * [torch.arange(modulus)])
    order = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(SPLIT_SEED))
    train, test = (pairs[rows] for rows in order.tensor_split([len(pairs) // 2]))
    return Images(train, train.sum(1) % modulus), Images(test, test.sum(1) % modulus)


def file(name: str) -> Path:
    """The file of that name in the data folder."""
    root = os.environ.get(VARIABLE)
    if not root:
        raise ValueError(
            f"{VARIABLE} must name the folder that holds {name}, but is not set"
        )
    return _present(Path(root) / name)


def idx_images(folder: Path, md5: Mapping[str, str]) -> tuple[Images, Images]:
    """Train and test images of four IDX files, whose md5 must be those given."""
    arrays = []
    for part in PARTS:
        path = _present(folder / f"{part}-ubyte.gz")
        found = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
        if found != md5[path.name]:
            raise ValueError(f"{path} must have the md5 {md5[path.name]}, got {found}")
        arrays.append(read_idx(path))
    images = [Images(arrays[n][:, None], arrays[n + 1].long()) for n in (0, 2)]
    return images[0], images[1]


def read_idx(path: Path) -> UInt8[Tensor, "..."]:
    """The array of bytes in a gzip-compressed IDX file."""
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
    """Train and test images of the six files of CIFAR-10's binary version."""
    parts = [_cifar_file(_present(folder / name), size) for name in CIFAR_FILES]
    *train, test = parts
    pixels, labels = ([getattr(p, n) for p in train] for n in ("pixels", "labels"))
    return Images(torch.cat(pixels), torch.cat(labels)), test


def published_resnet(depth: int, network: nn.Module) -> nn.Module:
    """A ResNet for CIFAR-10, with its published weights."""
    path = file(f"weights/resnet{depth}_cifar10.safetensors")
    network.load_state_dict(needed("safetensors.torch").load_file(path))
    return network


def _cifar_file(path: Path, size: int) -> Images:
    _check_bytes(path, size)
    rows = torch.from_numpy(np.fromfile(path, np.uint8).reshape(-1, 1 + 3 * 32 * 32))
    if int(rows[:, 0].max()) > 9:
        raise ValueError(f"{path} must hold labels up to 9, got {int(rows[:, 0].max())}")
    return Images(rows[:, 1:].reshape(-1, 3, 32, 32).clone(), rows[:, 0].long())


def _images(
    name: str, parts: tuple[str, ...], read: Callable[[Path], tuple[Images, Images]]
) -> tuple[Images, Images]:
    root = os.environ.get(VARIABLE)
    if root:
        return read(Path(root) / name)
    known = ARCHIVES[name]
    found = _loaded(f"{name}/({', '.join(parts)})", known["hub"])
    return tuple(_of_hub(found[part], known["column"]) for part in ("train", "test"))  # type: ignore[return-value]


def _of_hub(rows: Any, column: str) -> Images:
    pixels = torch.from_numpy(np.stack([np.asarray(image) for image in rows[column]]))
    pixels = pixels[:, None] if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2)
    return Images(pixels.contiguous(), torch.tensor(list(rows["label"])))


def _loaded(names: str, source: str, **settings: Any) -> Any:
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
        f"{VARIABLE} must name the folder that holds {names} as their authors publish them, or "
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
