"""Generators that can be pickled: what is kept of one is its state, as bytes."""

from typing import Any

import torch


class KeepsGenerator:
    """Something with a CPU `generator`, which draws the same after pickling or copying.

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
