"""Training a mosaic with the Trainer of Transformers, by one callback."""

from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from momos.config import MosaicConfig
from momos.files.api import save
from momos.learning import Reassign, freeze_, parametrize_
from momos.learning.schedule import schedule_settings
from momos.projection import Projection, check_projectable, project_, steps_between

FILE = "model.momos"


class MosaicTrainerCallback(TrainerCallback, ExportableState):
    """Keeps the model a mosaic while the Trainer trains it.

    With `learn=None` weights are projected every epoch, every optimizer step, or every `every` steps, and
    always before an evaluation and a checkpoint, which so see the mosaic. `projection` is the last one.
    With `learn="weights"` or `"motifs"` the model is parametrized when the Trainer is made, every forward
    pass computes from the mosaic, and it is frozen when training ends; `schedule` are the settings of
    `Reassign`. Each checkpoint folder gets the mosaic as `model.momos`; the rest of it is what the Trainer
    needs to resume (while motifs are learned, with latent weights).

    Afterwards the model is a mosaic: `momos.save`, or `momos.compact_` and `save_pretrained`.

    Raises:
        TypeError: if a setting of the schedule is unknown.
        ValueError: if a setting is out of range.

    Example:
        >>> from momos.integrations.transformers import MosaicTrainerCallback
        >>> config = momos.MosaicConfig(block_size=4, num_motifs=256, min_ndim=2)
        >>> callback = MosaicTrainerCallback(config, every="epoch")  # of Trainer(callbacks=[…])
        >>> callback.projection is None
        True
    """

    def __init__(
        self,
        config: MosaicConfig | dict[str, Any],
        every: Literal["epoch", "step"] | int = "epoch",
        *,
        learn: Literal["weights", "motifs"] | None = None,
        **schedule: float,
    ) -> None:
        if isinstance(config, dict):  # as Transformers restores it
            config = MosaicConfig(**config)
        self.interval = steps_between(every)
        if learn not in (None, "weights", "motifs"):
            raise ValueError(f"learn must be None, 'weights' or 'motifs', got {learn!r}")
        schedule_settings(learn, schedule)
        if learn is None:
            check_projectable(config)
        self.config, self.every = config, every
        self.learn: Literal["weights", "motifs"] | None = learn
        self.settings: dict[str, Any] = dict(schedule)
        self.generator = torch.Generator().manual_seed(config.seed)
        self.projection: Projection | None = None
        self.schedule: Reassign | None = None
        self.saved: dict[str, Any] = {}  # as Transformers restores it
        self._stale = False

    def on_init_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kw: Any,
    ) -> None:
        """Parametrizes before the optimizer is made, which must see the motifs."""
        if self.learn is not None:
            parametrize_(kw["model"], self.config, learn=self.learn)

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kw: Any,
    ) -> None:
        if self.learn == "weights":
            self.schedule = Reassign(
                kw["model"], total_steps=state.max_steps, **self.settings
            )
        self._resume(state)

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kw: Any,
    ) -> None:
        self._stale = True
        if self.schedule is not None:
            self.schedule.step()
            return
        due = self.interval is not None and state.global_step % self.interval == 0
        if due or control.should_evaluate or control.should_save:
            self._project(kw["model"])

    def on_epoch_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kw: Any,
    ) -> None:
        self._project(kw["model"])

    def on_save(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kw: Any,
    ) -> None:
        folder = Path(args.output_dir or ".") / f"checkpoint-{state.global_step}"
        if not state.is_world_process_zero or not folder.is_dir():
            return
        if self.learn is None:
            save(kw["model"], folder / FILE)
        else:
            save(_frozen_copy(kw["model"]), folder / FILE)

    def on_train_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kw: Any,
    ) -> None:
        if self.learn is None:
            self._project(kw["model"])
        else:
            freeze_(kw["model"])

    def state(self) -> dict[str, Any]:
        """What the Trainer keeps in its checkpoints: how to make this callback, and `saved`."""
        schedule = None
        if self.schedule is not None:
            schedule = self.schedule.state_dict()
            schedule["generator"] = _text(self.schedule.generator)
        made = {"config": asdict(self.config), "every": self.every, "learn": self.learn}
        saved = {"generator": _text(self.generator), "schedule": schedule}
        return {"args": made | self.settings, "attributes": {"saved": saved}}

    def _resume(self, state: TrainerState) -> None:
        """Continues as the checkpoint that is resumed from was."""
        states: Any = state.stateful_callbacks or {}
        kept = states.get(type(self).__name__)
        if isinstance(kept, list):
            kept = kept[0]
        saved = kept["attributes"]["saved"] if kept else self.saved
        if not state.global_step or not saved:
            return
        self.generator.set_state(_state(saved["generator"]))
        if self.schedule is not None:
            schedule = saved["schedule"]
            generator = _state(schedule["generator"])
            self.schedule.load_state_dict(schedule | {"generator": generator})

    def _project(self, model: nn.Module) -> None:
        if self.learn is None and self._stale:
            self.projection = project_(model, self.config, generator=self.generator)
            self._stale = False


def _frozen_copy(model: nn.Module) -> nn.Module:
    copy = deepcopy(model)
    freeze_(copy)
    return copy


def _text(generator: torch.Generator) -> str:
    return bytes(generator.get_state().tolist()).hex()


def _state(text: str) -> torch.Tensor:
    return torch.tensor(list(bytes.fromhex(text)), dtype=torch.uint8)
