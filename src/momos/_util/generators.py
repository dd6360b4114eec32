"""Pickling of random generators, by their state."""

from typing import Any

import torch


class KeepsGenerator:
    """Base class of objects with a CPU `generator`, which survives pickling and copying.

    A `torch.Generator` itself cannot be sent to a spawned process.
    """

    generator: torch.Generator

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"generator": bytes(self.generator.get_state().tolist())}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.generator = torch.Generator()
        self.generator.set_state(
            torch.tensor(list(state["generator"]), dtype=torch.uint8, device="cpu")
        )
