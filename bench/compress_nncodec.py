"""Encodes and decodes a network with NNCodec, in an environment of its own.

compress.py runs it as `INTERPRETER compress_nncodec.py FOLDER QUALITY …`: tensors are read from
FOLDER/x.pt, and for each quality FOLDER/QUALITY.pt gets the decoded tensors, the bytes of the
stream and the seconds that encoding took.
"""

import sys
import time
from unittest.mock import MagicMock

UNUSED = (  # what nncodec imports and encoding a state dict does not need
    "torchvision",
    "torchvision.datasets",
    "torchvision.transforms",
    "torchvision.transforms.functional",
    "torchvision.models",
    "torchvision.models.segmentation",
    "flwr",
    "wandb",
    "ray",
)


def main(folder: str, qualities: list[str]) -> None:
    sys.modules.update({n: MagicMock(__spec__=None, __path__=[]) for n in UNUSED})
    import torch
    from nncodec import nn

    torch.set_num_threads(1)
    tensors = {name: value.numpy() for name, value in torch.load(f"{folder}/x.pt").items()}
    for quality in qualities:
        settings = {"qp": int(quality), "verbose": False, "results": folder}
        start = time.perf_counter()
        stream = nn.encode(dict(tensors), settings)
        seconds = time.perf_counter() - start
        decoded = {
            name: torch.as_tensor(value).reshape(tensors[name].shape)
            for name, value in nn.decode(stream).items()
        }
        torch.save((decoded, len(stream), seconds), f"{folder}/{quality}.pt")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
