"""Which file of a folder is its checkpoint, as Hugging Face's libraries and PyTorch name them."""

from fnmatch import fnmatchcase
from pathlib import Path

from momos.errors import FormatError

# In the order in which they are looked for: the name that decides, or else the only match.
KINDS = (
    ("model.safetensors.index.json", ("*.safetensors.index*.json",)),
    ("model.safetensors", ("*.safetensors",)),
    ("pytorch_model.bin.index.json", ("*.bin.index*.json",)),
    ("pytorch_model.bin", ("*.bin", "*.pt", "*.pth", "*.th", "*.ckpt", "*.pth.tar")),
)
OF_TRAINING = ("optimizer*", "scheduler*", "scaler*", "rng_state*", "training_args*")
MOST_LISTED = 10


def checkpoint_in(folder: Path) -> Path:
    """The file or index in `folder` that is its checkpoint.

    Raises:
        FileNotFoundError: if there is none; lists what is there.
        FormatError: if nothing says which of several is meant; lists them.
    """
    names = sorted(one.name for one in folder.iterdir() if not one.is_dir())
    for usual, patterns in KINDS:
        found = [n for n in names if _matches(n, patterns) and not _matches(n, OF_TRAINING)]
        if usual in found or len(found) == 1:
            return folder / (usual if usual in found else found[0])
        if found:
            raise FormatError(
                folder,
                "folder",
                f"must hold one checkpoint, got {_listed(found)}: name the one you mean",
            )
    raise FileNotFoundError(
        f"{folder} must hold model.safetensors, pytorch_model.bin, an index of shards, or "
        f"another checkpoint, got {_listed(names)}"
    )


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _listed(names: list[str]) -> str:
    more = len(names) - MOST_LISTED
    listed = names[:MOST_LISTED] + ([f"{more} more"] if more > 0 else [])
    return ", ".join(listed) or "nothing"
