"""One cell, from its start to a finished run folder.

Training is Lightning's. After every epoch there is a checkpoint, so that a run that was killed
goes on and ends, on the CPU, with the same bits.
"""

import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import Logger
from safetensors.torch import load_file, save_file
from torch import nn

import momos
from momos.study.baselines import Treatment
from momos.study.cells import Cell
from momos.study.checkpoints import (
    KeepBest,
    Whole,
    checkpoints,
    last_whole,
    remove_checkpoints,
)
from momos.study.choice import Choice
from momos.study.environment import environment
from momos.study.finishing import finish_
from momos.study.guest import as_a_guest
from momos.study.history import History
from momos.study.learner import Learner, Treated
from momos.study.loggers import check_logger, logging_to
from momos.study.networks import network as network_of
from momos.study.networks import published, untrained
from momos.study.preparation import epochs_of, optimization_of, prepared, steps_of
from momos.study.sharing import alone
from momos.study.store import (
    FAILURE,
    HISTORY,
    PART,
    RESULT,
    WEIGHTS,
    Finished,
    begin,
    finished,
    read,
    write_json,
    write_lines,
)
from momos.study.tasks import Task
from momos.study.treatments import PUBLISHED

PRECISIONS: dict[str, Any] = {
    "float32": "32-true",
    "bfloat16": "bf16-mixed",
}  # as Lightning calls them
Note = Callable[[dict[str, Any]], None]


def run(
    cell: Cell,
    root: Path,
    *,
    recipe: str = "",
    threads: int = 1,
    logger: str = "csv",
    note: Note = lambda line: None,
    wait: bool = True,
) -> Finished:
    """Runs a cell in its folder under `root`, from its last checkpoint if there is one.

    The cells that it needs must be finished. A finished one is read, not run again. `logger` is
    one of `loggers.NEEDS`; `note` gets every line of the history. While another process runs
    the cell, this one waits, and then reads what the other left.

    Raises:
        ValueError: if task, network, treatment or their settings are wrong.
        Busy: if another process runs the cell, and this one is not to `wait`.
        KeyboardInterrupt: on Ctrl-C; the folder then holds the last checkpoint.
    """
    folder = root / cell.folder
    if finished(folder):
        return read(folder)
    begun = time.perf_counter()
    task, treatment = prepared(cell)
    check_logger(logger)
    seconds = time.perf_counter() - begun
    with alone(root, cell.key, wait=wait):
        if not finished(folder):
            begin(folder, cell, recipe=recipe, environment=environment(threads))
            with as_a_guest(threads):
                _run(cell, task, treatment, root, logger, note, seconds)
    return read(folder)


def _run(
    cell: Cell,
    task: Task,
    treatment: Treatment,
    root: Path,
    logger: str,
    note: Note,
    seconds: float,
) -> None:
    """From the beginning, or a checkpoint, to the result; `seconds` have gone by."""
    folder, begun = root / cell.folder, time.perf_counter()
    try:
        if cell.treatment == PUBLISHED:
            network = published(cell.network, task, cell.seed)
            write_lines(folder / HISTORY, [])
            chosen = _unchosen(task, network)
        else:
            network, chosen = _trained(cell, task, treatment, root, logger, note)
        with torch.random.fork_rng(devices=[]):
            start = _started(cell, task, root)
            result = _result(cell, task, treatment, network, start, folder) | chosen
    except Exception as error:
        # Whatever it is: the folder says why, and the error goes on its way.
        (folder / FAILURE).write_text(f"{type(error).__name__}: {error}\n", "utf-8")
        raise
    result["seconds"] = round(seconds + time.perf_counter() - begun, 2)
    write_json(folder / RESULT, result)
    remove_checkpoints(folder)


def _started(cell: Cell, task: Task, root: Path) -> nn.Module:
    """The network before training."""
    if cell.treatment == PUBLISHED:
        return untrained(cell.network, task, cell.seed)
    network = network_of(cell.network, task, cell.seed)
    if cell.start is not None:
        _load_(network, root / cell.start.folder)
    return network


def _load_(network: nn.Module, folder: Path) -> None:
    network.load_state_dict(load_file(folder / WEIGHTS))


def _trained(
    cell: Cell, task: Task, treatment: Treatment, root: Path, logger: str, note: Note
) -> tuple[nn.Module, dict[str, Any]]:
    """The finished network, and which epoch it is of, where that was chosen."""
    folder, learner = root / cell.folder, _learner(cell, task, root)
    history = History(
        folder,
        treatment,
        _choice(cell, task, treatment),
        epochs=-(-learner.total_steps // task.steps_per_epoch),
        record_every=cell.record_every,
        measure_every=cell.measure_every,
        note=note,
    )
    best = KeepBest(folder, treatment, history)
    callbacks = [
        Treated(treatment, epochs=epochs_of(cell, task)),
        history,
        *([best] if cell.keep == "best" else []),
        checkpoints(folder, cell.record_every),
    ]
    checkpoint = last_whole(folder)
    with logging_to(logger, folder, cell.folder) as log:
        trainer = _trainer(cell, learner, history.epochs, callbacks, log)
        trainer.fit(learner, ckpt_path=checkpoint)
    if cell.keep == "best":
        best.load_(learner.network)
    finish_(learner.network, treatment)
    return learner.network, _chosen(cell, task, learner.network, history)


def _learner(cell: Cell, task: Task, root: Path) -> Learner:
    """The network before training, and its teacher if it has one."""
    teacher = None
    if cell.teacher is not None:
        teacher = network_of(cell.teacher.network, task, cell.teacher.seed)
        _load_(teacher, root / cell.teacher.folder)
    return Learner(
        _started(cell, task, root),
        task,
        optimization_of(cell, task),
        steps_of(cell, task),
        seed=cell.seed,
        teacher=teacher,
        channels_last=cell.channels_last,
    )


def _choice(cell: Cell, task: Task, treatment: Treatment) -> Choice:
    return Choice.of(
        treatment.settled,
        total_steps=steps_of(cell, task),
        steps_per_epoch=task.steps_per_epoch,
        patience=cell.patience,
        higher_is_better=task.higher_is_better,
    )


def _unchosen(task: Task, network: nn.Module) -> dict[str, Any]:
    """The same of a network that is taken as it is."""
    return {} if task.validate is None else {"validation": task.validate(network)}


def _chosen(cell: Cell, task: Task, network: nn.Module, history: History) -> dict[str, Any]:
    """What a result says of the choice; nothing where no samples are held out."""
    if task.validate is None:
        return {}
    last = history.lines[-1]["epoch"]
    line = history.best if cell.keep == "best" else history.lines[-1]
    return {
        "validation": task.validate(network),
        "kept_epoch": last if line is None else line["epoch"],
        "stopped_epoch": last if last < history.epochs else None,
    }


def _trainer(
    cell: Cell, learner: Learner, epochs: int, callbacks: list[L.Callback], logger: Logger
) -> L.Trainer:
    return L.Trainer(
        accelerator="cpu",
        devices=1,
        precision=PRECISIONS[cell.precision],
        max_epochs=epochs,
        gradient_clip_val=learner.optimization.clip,
        reload_dataloaders_every_n_epochs=1,
        deterministic=True,
        callbacks=callbacks,
        plugins=[Whole()],
        logger=logger,
        log_every_n_steps=1,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )


def _result(
    cell: Cell,
    task: Task,
    treatment: Treatment,
    network: nn.Module,
    start: nn.Module,
    folder: Path,
) -> dict[str, Any]:
    num_weights = sum(weight.numel() for weight in network.parameters())
    tensors = {n: t.contiguous() for n, t in network.state_dict().items()}
    save_file(tensors, folder / WEIGHTS)
    with TemporaryDirectory(
        dir=folder, suffix=PART
    ) as made:  # an earlier file may be there
        num_bytes = treatment.file_bytes(network, Path(made))
        (path,) = Path(made).iterdir()
        path.replace(folder / path.name)
    mosaic = _mosaic(network)
    measured = momos.measure(network, init=start, controls=cell.controls)
    return {
        "metric_name": task.metric,
        "metric": task.evaluate(network),
        "higher_is_better": task.higher_is_better,
        "num_weights": num_weights,
        "file": path.name,
        "lengths": {"dense": 32 * num_weights, "file": 8 * num_bytes}
        | _lengths(mosaic, num_weights),
        "motifs_used": None if mosaic is None else int((mosaic.usage() > 0).sum()),
        "measures": measured.to_dict()["rows"],
    }


def _lengths(mosaic: momos.Mosaic | None, num_weights: int) -> dict[str, float]:
    """Those of a mosaic, and with them the parameters that are no blocks, as they are stored."""
    if mosaic is None:
        return {}
    length = momos.description_length(mosaic)
    dtype = mosaic.config.dense_dtype if mosaic.config else "float32"
    others = torch.finfo(getattr(torch, dtype)).bits * (num_weights - length.num_weights)
    return {"bound": length.bound + others, "entropy": length.entropy + others}


def _mosaic(network: nn.Module) -> momos.Mosaic | None:
    """What the network is, if it is a mosaic."""
    try:
        return momos.Mosaic.of(network)
    except ValueError:
        return None
