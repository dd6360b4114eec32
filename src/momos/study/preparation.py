"""What a cell stands for: its task and treatment, how it is optimized, and for how long."""

from dataclasses import replace

from momos.study.baselines import Treatment
from momos.study.cells import Cell
from momos.study.learned import Learned
from momos.study.networks import check_published
from momos.study.optimization import Optimization
from momos.study.tasks import TASKS, Task
from momos.study.treatments import PUBLISHED, TREATMENTS


def prepared(cell: Cell) -> tuple[Task, Treatment]:
    """The task of a cell, its samples held out, and its treatment with the settings it has.

    Raises:
        ValueError: if there is no such task, treatment or setting, or no samples to hold out.
    """
    for name, known in (("task", TASKS), ("treatment", TREATMENTS)):
        if getattr(cell, name) not in known:
            raise ValueError(
                f"{name} must be among {', '.join(known)}, got {getattr(cell, name)!r}"
            )
    try:
        treatment = TREATMENTS[cell.treatment](**cell.settings)
    except TypeError as error:
        raise ValueError(
            f"settings of {cell.treatment!r} must be its own: {error}"
        ) from None
    task = TASKS[cell.task]().held_out(cell.validation)
    if cell.treatment == PUBLISHED:
        _check_untouched(cell)
        check_published(cell.network, task)
    if isinstance(treatment, Learned):
        treatment.task = task
    return task, treatment


def _check_untouched(cell: Cell) -> None:
    training = ("epochs", "learning_rate", "weight_decay", "start", "teacher")
    given = [name for name in training if getattr(cell, name) is not None]
    given += [name for name in cell.options if name != "validation"]
    if given:
        raise ValueError(
            f"a published network is not trained, so it must have no {' and '.join(given)}"
        )


def optimization_of(cell: Cell, task: Task) -> Optimization:
    """The task's own, with what the cell says otherwise."""
    own = {"learning_rate": cell.learning_rate, "weight_decay": cell.weight_decay}
    given = {name: value for name, value in own.items() if value is not None}
    return replace(task.optimization, **given)


def epochs_of(cell: Cell, task: Task) -> float:
    if cell.treatment == PUBLISHED:
        return 0
    return task.optimization.epochs if cell.epochs is None else cell.epochs


def steps_of(cell: Cell, task: Task) -> int:
    if cell.treatment == PUBLISHED:
        return 0
    return max(1, round(epochs_of(cell, task) * task.steps_per_epoch))
