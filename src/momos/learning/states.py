"""State dicts of a network whose motifs are learned.

Such a state has what learning needs (latent weights, motifs, indices, scales), and in addition,
under their ordinary names, the weights that the forward pass sees. So whatever loads it by name into
an ordinary network gets the mosaic, not random weights. Latent weights that several modules share
have one name, since files of safetensors hold no tensor twice.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from momos.learning.bank import Bank

NAME = "momos"  # under which the bank is registered in a network


def latent_name(name: str) -> str:
    """Under which torch keeps what is behind the parametrized weight `name`."""
    module, _, weight = name.rpartition(".")
    return f"{module}.parametrizations.{weight}.original".lstrip(".")


def learning_names(bank: "Bank", root: str) -> Iterator[str]:
    """All names of a state that only learning needs."""
    for tile in bank.tiles:
        yield from (root + latent_name(name) for name in tile.names)
    held = (*bank._parameters, *bank._buffers)
    yield from (
        f"{root}{NAME}.{name}"
        for name in held
        if name not in bank._non_persistent_buffers_set
    )


def complete(bank: "Bank", state: dict[str, Any], root: str) -> None:
    """Adds the weights that the network sees, and leaves each latent weight one name."""
    for tile in bank.tiles:
        names = [name for name in tile.names if root + latent_name(name) in state]
        for name in names[1:]:
            del state[root + latent_name(name)]
        if names or bank.learn == "motifs":
            value = _value(bank, tile)
            state.update({root + name: value for name in tile.names})


def _value(bank: "Bank", tile: Any) -> Tensor:
    if bank.learn == "motifs":
        return bank.weight(tile.place).detach()
    # Not the memory of the latent weight: a file of safetensors holds none twice.
    return tile.value if bank.learning else tile.latent.detach().clone()


def is_plain(
    bank: "Bank", state: Mapping[str, Any], root: str, unexpected: list[str]
) -> bool:
    """Whether the state being loaded is that of the network without learning."""
    return f"{root}{NAME}.motifs" not in state and bool(_plain(bank, root, unexpected))


def accept_plain(
    bank: "Bank", root: str, missing: list[str], unexpected: list[str], errors: list[str]
) -> None:
    """Refuses such a state, unless the bank is to get what is missing afterwards."""
    names = _plain(bank, root, unexpected)
    if not bank.plain:
        errors.append(
            f"the state must be of a network whose motifs are learned, got one with dense "
            f"weights {min(names)!r} (load it before momos.parametrize_)"
        )
        return
    bank.awaiting = True
    _drop(missing, set(learning_names(bank, root)))
    _drop(unexpected, names)


def accept(bank: "Bank", root: str, missing: list[str], unexpected: list[str]) -> None:
    """Of a state with what learning needs, the rest need not be there, and may be."""
    _drop(missing, {f"{root}{NAME}.rate_weight"})  # older states have none
    for tile in bank.tiles:
        latent = {root + latent_name(name) for name in tile.names}
        if bank.learn == "motifs" or not latent <= set(missing):
            _drop(missing, latent)
            _drop(unexpected, {root + name for name in tile.names})


def _plain(bank: "Bank", root: str, unexpected: list[str]) -> set[str]:
    names = {root + name for tile in bank.tiles for name in tile.names}
    return names & set(unexpected)


def _drop(keys: list[str], names: set[str]) -> None:
    keys[:] = [key for key in keys if key not in names]
