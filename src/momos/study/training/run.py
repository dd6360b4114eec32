"""One cell, from its start to a finished run folder.

Training is Lightning's. After every epoch there is a checkpoint, so that a run that was killed
goes on and ends, on the CPU, with the same bits.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import Logger
from safetensors.torch import load_file, save_file
from torch import nn

import momos
from momos.study import store
from momos.study.cell import PUBLISHED, Cell
from momos.study.execution import ranks
from momos.study.execution.leases import Busy, alone
from momos.study.execution.processes import ATTEMPTS
from momos.study.execution.ranks import together
from momos.study.store import NOBODY, PART, WEIGHTS, Asked, Finished, finished
from momos.study.tasks import zoo
from momos.study.tasks.task import Task
from momos.study.training import checkpoints, surroundings
from momos.study.training.devices import CUDA, Compute, compute_for
from momos.study.training.history import History, Note, finish_
from momos.study.training.learner import Learner, Treating
from momos.study.training.preparation import Prepared, prepared

PRECISIONS: Any = {"float32": "32-true", "bfloat16": "bf16-mixed"}  # Lightning's names


def run(
    cell: Cell,
    root: Path,
    *,
    recipe: Asked = NOBODY,
    logger: str = "csv",
    device: str = "",
    note: Note = lambda line: None,
    wait: bool = True,
) -> Finished:
    """Runs a cell in its folder under `root`, from its last checkpoint if there is one.

    The cells that it needs must be finished; a finished one is only read. `logger` is one of
    `surroundings.NEEDS`; `note` gets every line of the history; `device` is one of the cell's
    kind, if it is not the first. While another process runs the cell, this one waits, and then
    reads the result.

    Raises:
        ValueError: if task, network, treatment, their settings or the device are wrong.
        Busy: if another process runs the cell, and this one is not to `wait`.
        KeyboardInterrupt: on Ctrl-C; the folder then holds the last checkpoint.
    """
    folder = root / cell.folder
    if finished(folder):
        return store.read(folder)
    begun = time.perf_counter()
    compute = compute_for(cell, device)
    plan = prepared(cell)
    surroundings.check_logger(logger)
    with alone(root, cell.key, wait=wait) as lease:
        if not finished(folder):
            about = surroundings.environment(compute)
            store.begin(folder, cell, recipe=recipe, environment=about)
            job = Job(cell, root, logger, compute, seconds=time.perf_counter() - begun)
            with _failure_told(folder):
                if cell.devices == 1:
                    work(job, note, plan=plan, check=lease.check)
                else:
                    _work_together(job, note, lease.check)
    return store.read(folder)


@dataclass(frozen=True)
class Job:
    """A cell to be trained, from its last checkpoint; `seconds` have gone by before."""

    cell: Cell
    root: Path
    logger: str
    compute: Compute
    seconds: float = 0.0


def work(
    job: Job,
    note: Note = lambda line: None,
    *,
    plan: Prepared | None = None,
    check: Callable[[], None] = lambda: None,
) -> None:
    """Trains a cell to its result; of several processes that do so together the first writes it.

    `check` is called before anything is written, and raises if the cell is another's by now.
    """
    job = replace(job, compute=job.compute.of_rank(ranks.rank()))
    with surroundings.undisturbed(job.compute):
        plan = (plan or prepared(job.cell)).on(job.compute)
        _Run(job, plan, note, check).to_result()


def _work_together(job: Job, note: Note, check: Callable[[], None]) -> None:
    """In one process for each device of the cell; begun anew from the checkpoint if one dies."""
    many, cuda = job.cell.devices, job.compute.kind == CUDA
    for attempt in range(ATTEMPTS):
        store.clear(job.root / job.cell.folder)  # of what killed processes left
        try:
            together(work, job, ranks=many, cuda=cuda, note=note, check=check)
            return
        except BrokenProcessPool:
            if attempt + 1 == ATTEMPTS:
                raise RuntimeError(
                    f"one of its {many} processes died, {ATTEMPTS} times, as for want of memory"
                ) from None


@contextmanager
def _failure_told(folder: Path) -> Iterator[None]:
    """Leaves the reason in the folder if the block raises an error."""
    try:
        yield
    except Busy:  # by another process, whose folder it is by now
        raise
    except Exception as error:
        # Of any kind, as tasks and treatments may be a user's own. The folder says why, and
        # the error is raised again: nothing is swallowed here.
        store.write_failure(folder, f"{type(error).__name__}: {error}")
        raise


@dataclass(frozen=True, eq=False)
class _Run:
    job: Job
    plan: Prepared
    note: Note
    check: Callable[[], None]
    begun: float = field(default_factory=time.perf_counter)

    @property
    def cell(self) -> Cell:
        return self.job.cell

    @property
    def task(self) -> Task:
        return self.plan.task

    @property
    def folder(self) -> Path:
        return self.job.root / self.cell.folder

    def to_result(self) -> None:
        """From the beginning, or a checkpoint, to the result."""
        network, chosen = self._network()
        metric = self.task.evaluate(network)
        if ranks.rank():
            return
        self.check()
        result = self._result(network, metric) | chosen
        seconds = self.job.seconds + time.perf_counter() - self.begun
        result["seconds"] = round(seconds, 2)
        self.check()
        store.write_json(self.folder / store.RESULT, result)
        checkpoints.remove_checkpoints(self.folder)

    def _network(self) -> tuple[nn.Module, dict[str, Any]]:
        """The finished network, and which epoch it is of, where that was chosen."""
        if self.cell.treatment != PUBLISHED:
            return self._trained()
        network = zoo.published(self.cell.network, self.task, self.cell.seed)
        store.write_lines(self.folder / store.HISTORY, [])
        validate = self.task.validate
        return network, {} if validate is None else {"validation": validate(network)}

    def _trained(self) -> tuple[nn.Module, dict[str, Any]]:
        learner, keeps_best = self._learner(), self.cell.keep == "best"
        history = History(self.folder, self.plan, self.note, self.check)
        best = checkpoints.KeepBest(history)
        callbacks = [
            Treating(self.plan.treatment, epochs=self.plan.epochs),
            history,
            *([best] if keeps_best else []),
            checkpoints.checkpoints(self.folder, self.cell.record_every),
        ]
        checkpoint = None if ranks.rank() else checkpoints.last_whole(self.folder)
        checkpoint = ranks.of_first(checkpoint)
        with self._logging() as log:
            self._trainer(callbacks, log).fit(learner, ckpt_path=checkpoint)
        learner.network.to(self.job.compute.device)  # Lightning takes it back to the CPU
        if keeps_best:
            best.load_(learner.network)
        finish_(learner.network, self.plan.treatment)
        return learner.network, self._chosen(learner.network, history)

    def _logging(self) -> AbstractContextManager[Logger | bool]:
        if ranks.rank():
            return nullcontext(False)
        return surroundings.logging_to(self.job.logger, self.folder, self.cell.folder)

    def _started(self) -> nn.Module:
        cell = self.cell
        if cell.treatment == PUBLISHED:
            return zoo.untrained(cell.network, self.task, cell.seed)
        return self._loaded(cell, cell.start)

    def _loaded(self, cell: Cell, source: Cell | None) -> nn.Module:
        network = zoo.network(cell.network, self.task, cell.seed)
        if source is not None:
            network.load_state_dict(load_file(self.job.root / source.folder / WEIGHTS))
        return network

    def _learner(self) -> Learner:
        teacher, place = self.cell.teacher, self.job.compute.device
        taught = teacher and self._loaded(teacher, teacher).to(place)
        return Learner(self._started().to(place), self.plan, taught)

    def _chosen(self, network: nn.Module, history: History) -> dict[str, Any]:
        """What a result says of the choice; nothing where no samples are held out."""
        if self.task.validate is None:
            return {}
        last = history.lines[-1]["epoch"]
        line = history.best if self.cell.keep == "best" else history.lines[-1]
        return {
            "validation": self.task.validate(network),
            "kept_epoch": last if line is None else line["epoch"],
            "stopped_epoch": last if last < history.last_epoch else None,
        }

    def _trainer(self, callbacks: list[L.Callback], logger: Logger | bool) -> L.Trainer:
        return L.Trainer(
            **self.job.compute.lightning,
            precision=PRECISIONS[self.cell.precision],
            max_epochs=self.plan.last_epoch,
            gradient_clip_val=self.plan.optimization.clip,
            reload_dataloaders_every_n_epochs=1,
            deterministic=True,
            callbacks=callbacks,
            plugins=[checkpoints.WholeCheckpoints()],
            logger=logger,
            log_every_n_steps=1,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )

    def _result(self, network: nn.Module, metric: float) -> dict[str, Any]:
        network.cpu()
        start = self._started()
        num_weights = sum(weight.numel() for weight in network.parameters())
        tensors = {n: t.contiguous() for n, t in network.state_dict().items()}
        save_file(tensors, self.folder / WEIGHTS)
        name, num_bytes = self._written(network)
        mosaic = _mosaic(network)
        measured = momos.measure(network, init=start, controls=self.cell.controls)
        return {
            "metric_name": self.task.metric,
            "metric": metric,
            "higher_is_better": self.task.higher_is_better,
            "num_weights": num_weights,
            "file": name,
            "lengths": {"dense": 32 * num_weights, "file": 8 * num_bytes}
            | _lengths(mosaic, num_weights),
            "motifs_used": None if mosaic is None else int((mosaic.usage() > 0).sum()),
            "measures": measured.to_dict()["rows"],
        }

    def _written(self, network: nn.Module) -> tuple[str, int]:
        """The name of the network's file, and its bytes; an earlier file may be there."""
        with TemporaryDirectory(dir=self.folder, suffix=PART) as made:
            num_bytes = self.plan.treatment.file_bytes(network, Path(made))
            (path,) = Path(made).iterdir()
            path.replace(self.folder / path.name)
        return path.name, num_bytes


def _lengths(mosaic: momos.Mosaic | None, num_weights: int) -> dict[str, float]:
    """Those of a mosaic, and with them the parameters that are no blocks, as they are stored."""
    if mosaic is None:
        return {}
    length = momos.description_length(mosaic)
    dtype = mosaic.config.dense_dtype if mosaic.config else "float32"
    others = torch.finfo(getattr(torch, dtype)).bits * (num_weights - length.num_weights)
    return {"bound": length.bound + others, "entropy": length.entropy + others}


def _mosaic(network: nn.Module) -> momos.Mosaic | None:
    try:
        return momos.Mosaic.of(network)
    except ValueError:
        return None
