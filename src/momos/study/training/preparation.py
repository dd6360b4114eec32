"""A cell ready to be run: its task and treatment, how it is optimized, and for how long."""

from dataclasses import dataclass, replace
from math import ceil

from momos.study.cell import PUBLISHED, Cell
from momos.study.tasks import TASKS, task_named
from momos.study.tasks.task import Optimization, Task
from momos.study.tasks.zoo import check_published
from momos.study.training.devices import CPU, Compute, fits
from momos.study.treatments import TREATMENTS
from momos.study.treatments.treatment import Treatment


@dataclass(frozen=True, eq=False)
class Prepared:
    """A cell with its task, samples held out, and its treatment with its settings."""

    cell: Cell
    task: Task
    treatment: Treatment

    def on(self, compute: Compute) -> "Prepared":
        """The same with its data on a device, if they fit there."""
        if compute.kind == CPU:
            return self
        task = self.task.on(compute.device, lambda data: fits(data, compute))
        self.treatment.task = task
        return replace(self, task=task)

    @property
    def optimization(self) -> Optimization:
        """The task's own, with what the cell says otherwise."""
        own = {n: getattr(self.cell, n) for n in ("learning_rate", "weight_decay")}
        given = {name: each for name, each in own.items() if each is not None}
        return replace(self.task.optimization, **given)

    @property
    def epochs(self) -> float:
        if self.cell.treatment == PUBLISHED:
            return 0
        own = self.cell.epochs
        return self.task.optimization.epochs if own is None else own

    @property
    def total_steps(self) -> int:
        if self.cell.treatment == PUBLISHED:
            return 0
        return max(1, round(self.epochs * self.task.steps_per_epoch))

    @property
    def last_epoch(self) -> int:
        """The number of epochs, begun ones included."""
        return -(-self.total_steps // self.task.steps_per_epoch)

    @property
    def settled_epoch(self) -> int:
        """The first epoch after which a network is all that the treatment asks for."""
        settled = ceil(self.treatment.settled * self.total_steps)
        return -(-min(settled, self.total_steps) // self.task.steps_per_epoch)


def prepared(cell: Cell) -> Prepared:
    """The cell with its task and treatment.

    Raises:
        ValueError: if there is no such task, treatment or setting, or no samples to hold out.
    """
    for name, known in (("task", TASKS), ("treatment", TREATMENTS)):
        if (given := getattr(cell, name)) not in known:
            raise ValueError(f"{name} must be among {', '.join(known)}, got {given!r}")
    try:
        treatment = TREATMENTS[cell.treatment].kind(**cell.settings)
    except TypeError as error:
        message = f"settings of {cell.treatment!r} must be its own: {error}"
        raise ValueError(message) from None
    task = task_named(cell.task).held_out(cell.validation)
    if cell.treatment == PUBLISHED:
        _check_untouched(cell)
        check_published(cell.network, task)
    treatment.task = task
    return Prepared(cell, task, treatment)


def _check_untouched(cell: Cell) -> None:
    training = ("epochs", "learning_rate", "weight_decay", "start", "teacher")
    given = [name for name in training if getattr(cell, name) is not None]
    given += [name for name in cell.options if name != "validation"]
    if given:
        raise ValueError(
            f"a published network is not trained, so it must have no {' and '.join(given)}"
        )
