"""The same work for many jobs, as tasks of a Ray cluster.

Ray does not retry tasks here: it would do so unseen, while we tell after how many deaths a job is
given up, as with processes.
"""

import logging
import os
import pickle
import signal
import socket
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from threading import current_thread, main_thread
from typing import Any

from momos.study.execution.loopback import check_loopback, local_options
from momos.study.execution.processes import Job, Note, Result, cores

LOCAL = "local"
POLL = 0.5  # seconds between looks at what tasks have to tell
KEPT = ("MOMOS_DATA", "PYTHONPATH", "WANDB_MODE", "MLFLOW_TRACKING_URI")
REACHED_WITHIN = 5.0  # seconds


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster that this process is connected to; `tasks` run at a time.

    Each has `gpus`, which may be a part of one.
    """

    tasks: int
    gpus: float = 0.0

    def each(
        self,
        work: Callable[[Job, Note], Result],
        jobs: Sequence[Job],
        *,
        attempts: int,
        died: Callable[[Job], Result],
        name: Callable[[Job], str] = str,
        note: Note = lambda value: None,
    ) -> Generator[tuple[Job, Result]]:
        """Jobs and what `work` returns for them, as they end; every job once.

        Each is a task with one core, which Ray shows by its `name`. What `work` passes to its
        second argument comes to `note`, here. A job whose process or machine dies begins anew,
        on another; at the last of so many `attempts` its result is what `died` returns. Where it
        only seems to be dead, two may be at work on it: `work` must take care of that.

        Raises:
            BaseException: whatever `work` raises, or a Ctrl-C; tasks are then cancelled.
        """
        import ray

        notes = _notes()
        task = ray.remote(num_cpus=1, num_gpus=self.gpus, max_retries=0)(_do)
        waiting, deaths = deque(range(len(jobs))), Counter[int]()
        running: dict[Any, int] = {}
        with ExitStack() as ending:
            ending.callback(_cancel, running)
            while waiting or running:
                while waiting and len(running) < self.tasks:
                    number = waiting.popleft()
                    named = task.options(name=name(jobs[number]))
                    running[named.remote(work, jobs[number], notes)] = number
                ended, _ = ray.wait(list(running), timeout=POLL)
                for value in ray.get(notes.take.remote()):
                    note(pickle.loads(value))
                for reference in ended:
                    number = running.pop(reference)
                    found = _result(reference)
                    deaths[number] += not found
                    if found:
                        yield jobs[number], found[0]
                    elif deaths[number] < attempts:
                        waiting.appendleft(number)
                    else:
                        yield jobs[number], died(jobs[number])


@contextmanager
def connected(
    address: str, *, processes: int | None = None, gpus: float = 0.0, devices: int = 0
) -> Iterator[Cluster]:
    """A cluster by its address: HOST:PORT of its head, or what Ray finds for `auto`.

    `local` is one that is started here, with as many `processes` (one for each core, if None),
    reached by nobody else, and ended afterwards; others go on, and are given `processes` tasks at a time (as many as
    they have cores by now, if None). Tasks have `gpus` each, and are no more than there are GPUs
    for; one that is started here has as many `devices`. A process that is connected already stays so.

    Raises:
        ModuleNotFoundError: if Ray is not installed (names the extra).
        ValueError: if `address` is no address.
        ConnectionError: if there is no cluster, none of this version of Ray and Python, or none
            with a GPU where tasks need one.
    """
    if address not in (LOCAL, "auto"):
        _check_reached(address)
        # Ray would try for a quarter of an hour what does not answer as a cluster does.
        os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", "1")
    try:
        import ray
    except ModuleNotFoundError as error:
        message = 'a Ray cluster needs ray: pip install "mosaic-of-motifs[ray]"'
        raise ModuleNotFoundError(message, name=error.name) from None

    with ExitStack() as ending:
        if not ray.is_initialized():
            options = {}
            if address == LOCAL:
                options = ending.enter_context(local_options(processes or cores(), devices))
            ending.callback(ray.shutdown)
            try:
                with _sigterm_kept():
                    ray.init(
                        address,
                        runtime_env={"env_vars": _environment()},
                        log_to_driver=False,
                        logging_level=logging.ERROR,
                        **options,
                    )
            except RuntimeError as error:
                message = f"a Ray cluster must be usable at {address}, but: {error}"
                raise ConnectionError(message) from error
            if address == LOCAL:
                check_loopback()
        found = ray.cluster_resources()
        tasks = processes or max(1, int(found.get("CPU", 0)))
        if gpus:
            tasks = min(tasks, int(found.get("GPU", 0) / gpus + 1e-6))
        if not tasks:
            raise ConnectionError(
                f"the Ray cluster at {address} must have a GPU for runs on cuda, got none"
            )
        yield Cluster(tasks, gpus)


@contextmanager
def _sigterm_kept() -> Iterator[None]:
    """Ray replaces what answers it, in the main thread."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if current_thread() is main_thread():
            signal.signal(signal.SIGTERM, handler)


def _check_reached(address: str) -> None:
    """Refuses at once an address where nothing answers."""
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdecimal() or int(port) > 65535:
        raise ValueError(
            f"the address of a Ray cluster must be HOST:PORT, auto or local, got {address!r}"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), REACHED_WITHIN).close()
    except OSError as error:
        message = f"a Ray cluster must answer at {address}, but: {error}"
        raise ConnectionError(message) from None


def _environment() -> dict[str, str]:
    """What is set here and tasks must know; places as they are from any folder."""
    found = {name: os.environ[name] for name in KEPT if os.environ.get(name)}
    for name in {"MOMOS_DATA", "PYTHONPATH"} & found.keys():
        places = found[name].split(os.pathsep)
        found[name] = os.pathsep.join(os.path.abspath(place) for place in places)
    return found | {"OMP_NUM_THREADS": "1"}


def _notes() -> Any:
    """What tasks have to tell, as bytes, until it is taken.

    Kept beside this process, so that no other machine's death ends it. The class is defined here
    so that it travels whole: its process need not import torch, nor what is told.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    class Notes:
        def __init__(self) -> None:
            self.values: list[bytes] = []

        def add(self, value: bytes) -> None:
            self.values.append(value)

        def take(self) -> list[bytes]:
            taken, self.values = self.values, []
            return taken

    node = ray.get_runtime_context().get_node_id()
    here = NodeAffinitySchedulingStrategy(node, soft=False)
    actor = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Notes)
    return actor.options(scheduling_strategy=here).remote()


def _do(work: Callable[[Job, Note], Result], job: Job, notes: Any) -> Result:
    import ray

    told: list[Any] = []

    def note(value: Any) -> None:
        told.append(notes.add.remote(pickle.dumps(value)))

    result = work(job, note)
    ray.get(told)  # before the end is
    return result


def _result(reference: Any) -> tuple[Any, ...]:
    """What a task returned, or nothing if its process or machine died."""
    import ray
    from ray import exceptions

    try:
        return (ray.get(reference),)
    except (
        exceptions.LocalRayletDiedError,
        exceptions.NodeDiedError,
        exceptions.ObjectLostError,
        exceptions.OutOfMemoryError,
        exceptions.WorkerCrashedError,
    ):
        return ()
    except exceptions.RayTaskError as error:
        raise error.cause from None


def _cancel(running: dict[Any, int]) -> None:
    import ray

    for reference in running:
        ray.cancel(reference, force=True)
