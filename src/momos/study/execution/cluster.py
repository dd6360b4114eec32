"""The same work for many jobs, as tasks of a Ray cluster; deaths are counted here, not by Ray.

Ray runs whatever reaches its ports (CVE-2023-48022). So a cluster that is started here listens on the
loopback interface only, asks for a token that only this user can read, and leaves nothing.
"""

import logging
import os
import pickle
import secrets
import shutil
import signal
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from threading import current_thread, main_thread
from typing import Any

from filelock import FileLock, Timeout

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
        note: Note = lambda value: None,
        size: Callable[[Job], int] = lambda job: 1,
    ) -> Generator[tuple[Job, Result]]:
        """As `Processes.each`, each job a task with `size` cores; jobs come as they end.

        Where tasks need GPUs, those of more than one core have as many whole ones.

        A job that only seems to be dead, as without its network, is begun anew as well: `work`
        must take care that two do not disturb each other.
        """
        import ray

        notes, task = _notes(), ray.remote(max_retries=0)(_do)
        for most in {size(job) for job in jobs}:
            _check_fits(_needed(most, self.gpus))
        waiting, deaths = deque(range(len(jobs))), Counter[int]()
        running: dict[Any, int] = {}
        with ExitStack() as ending:
            ending.callback(_cancel, running)
            while waiting or running:
                while waiting and len(running) < self.tasks:
                    number = waiting.popleft()
                    needed = _needed(size(jobs[number]), self.gpus)
                    named = task.options(name=str(jobs[number]), **needed)
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
    address: str,
    *,
    processes: int | None = None,
    gpus: float = 0.0,
    devices: int = 0,
    size: int = 1,
) -> Iterator[Cluster]:
    """A cluster by its address: HOST:PORT of its head, or what Ray finds for `auto`.

    `local` is one that is started here, reached by nobody else, and ended afterwards. It runs as
    many tasks of `size` cores at a time as `processes` says, or as there are cores for, and GPUs
    if tasks have `gpus` each; one that is started here has `devices`. A process that is connected
    already stays so.

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
                tasks = processes or max(1, cores() // size)
                options = ending.enter_context(local_options(size * tasks, devices))
            ending.callback(ray.shutdown)
            _connect(address, options)
        tasks = _tasks_of(ray.cluster_resources(), processes, _needed(size, gpus))
        if not tasks:
            raise ConnectionError(
                f"the Ray cluster at {address} must have a GPU for runs on cuda, got none"
            )
        yield Cluster(tasks, gpus)


def _connect(address: str, options: dict[str, Any]) -> None:
    """Connects this process; `options` are those of a cluster that is started here."""
    import ray

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


def _needed(size: int, gpus: float) -> dict[str, float]:
    """What a task of so many cores needs of a machine, as Ray's options."""
    return {"num_cpus": size, "num_gpus": size if gpus and size > 1 else gpus}


def _tasks_of(
    found: Mapping[str, float], processes: int | None, needed: Mapping[str, float]
) -> int:
    """How many tasks run at a time on what a cluster has."""
    tasks = processes or max(1, int(found.get("CPU", 0) / needed["num_cpus"]))
    gpus = needed["num_gpus"]
    return min(tasks, int(found.get("GPU", 0) / gpus + 1e-6)) if gpus else tasks


def _check_fits(needed: Mapping[str, float]) -> None:
    """Refuses a task that no machine of the cluster has room for: Ray would wait for one.

    Raises:
        ValueError: says what the largest machine has.
    """
    import ray

    for option, resource in (("num_cpus", "CPU"), ("num_gpus", "GPU")):
        found = [
            node["Resources"].get(resource, 0) for node in ray.nodes() if node["Alive"]
        ]
        if needed[option] > (most := max(found, default=0)):
            raise ValueError(
                f"a machine of the Ray cluster must have {needed[option]:g} {resource}s for a "
                f"run on so many devices, but the largest has {most:g}"
            )


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
    """What tasks have to tell, as bytes, until it is taken; on this machine, whose end is ours.

    The class is defined here so that it travels whole: its process need not import torch.
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


HOST = "127.0.0.1"
FOLDER = "momos-ray-"  # begins the names of Ray's folders
OWNER = "owner.lock"  # in such a folder; locked as long as its process lives
TOKEN = "token"
NEW = 60.0  # seconds in which a folder has certainly been locked
OBJECTS = 80 * 2**20  # bytes for Ray's objects, of which jobs and results hardly need any


@contextmanager
def local_options(processes: int, gpus: int = 0) -> Iterator[dict[str, Any]]:
    """Options of `ray.init` for a cluster that is started here; its files go with the block.

    Files of such clusters whose processes were killed are removed first.
    """
    with ExitStack() as ending:
        folder = _folder(ending)
        token = folder / TOKEN
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32), "utf-8")
        ending.enter_context(
            _variables(
                RAY_USAGE_STATS_ENABLED="0",
                RAY_worker_niceness="0",  # as processes; Ray's own is 15
                RAY_AUTH_MODE=None,  # Ray then sets it, and looks at it anew
                RAY_AUTH_TOKEN=None,
                RAY_AUTH_TOKEN_PATH=str(token),
            )
        )
        ending.enter_context(_of_this_machine())
        yield {
            "num_cpus": processes,
            "num_gpus": gpus,
            "include_dashboard": False,
            "object_store_memory": OBJECTS,
            "_node_ip_address": HOST,
            "_temp_dir": str(folder),
        }


def check_loopback() -> None:
    """Refuses a cluster that was started here and listens for other machines."""
    import ray

    if (address := ray.util.get_node_ip_address()) != HOST:
        raise ConnectionError(f"a local Ray cluster must be at {HOST}, got {address}")


def sweep(place: Path) -> None:
    """Removes our own folders of Ray in `place` whose processes are gone."""
    for folder in place.glob(f"{FOLDER}*"):
        try:
            info = folder.lstat()
            if folder.is_symlink() or info.st_uid != os.geteuid():
                continue
            if not (folder / OWNER).exists() and time.time() - info.st_mtime < NEW:
                continue
            with FileLock(folder / OWNER, timeout=0):
                shutil.rmtree(folder, ignore_errors=True)
        except (OSError, Timeout):  # it is at work, or gone by now
            continue


def _folder(ending: ExitStack) -> Path:
    """A new folder, held until the end. A socket's path has 104 bytes at most."""
    place = Path("/tmp") if Path("/tmp").is_dir() else Path(gettempdir())
    sweep(place)
    folder = ending.enter_context(
        TemporaryDirectory(prefix=FOLDER, dir=place, ignore_cleanup_errors=True)
    )
    ending.enter_context(FileLock(Path(folder) / OWNER))
    return Path(folder)


@contextmanager
def _variables(**values: str | None) -> Iterator[None]:
    before = {name: os.environ.pop(name) for name in values if name in os.environ}
    os.environ.update({name: value for name, value in values.items() if value is not None})
    try:
        yield
    finally:
        for name in values:
            os.environ.pop(name, None)
        os.environ.update(before)


@contextmanager
def _of_this_machine() -> Iterator[None]:
    """Lets Ray keep the loopback address for its node's, as it does on macOS; forgets tokens."""
    from ray._private import ray_constants

    raylet = import_module("ray._raylet")  # compiled, and without types
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    raylet.AuthenticationTokenLoader.instance().reset_cache()
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before
        os.environ.pop("RAY_AUTH_MODE", None)
        raylet.Config.initialize("")
        raylet.AuthenticationTokenLoader.instance().reset_cache()
