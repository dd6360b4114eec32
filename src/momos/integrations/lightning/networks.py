"""The networks inside a Lightning module."""

from lightning.pytorch import LightningModule

from momos.mosaic import Mosaic


def remember_within(pl_module: LightningModule, mosaic: Mosaic) -> None:
    """Makes the networks inside a module the mosaics that they are."""
    for name, child in pl_module.named_children():
        if any(place.name.startswith(f"{name}.") for place in mosaic.layout.placements):
            mosaic.within(name).remember_(child)
