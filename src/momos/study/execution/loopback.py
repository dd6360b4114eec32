"""A Ray cluster of this machine alone: what nobody else can reach, and nothing of it stays.

Ray runs whatever reaches its ports. So it listens on the loopback interface only, and asks for a
token that only this user can read (CVE-2023-48022).
"""

import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any

from filelock import FileLock, Timeout

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
            _environment(
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
    """Refuses a cluster that was started here and listens for other machines.

    Raises:
        ConnectionError: naming the address.
    """
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
def _environment(**values: str | None) -> Iterator[None]:
    """Variables as they are wanted for so long; None is unset."""
    before = {name: os.environ.get(name) for name in values}
    _set(values)
    try:
        yield
    finally:
        _set(before)


def _set(values: dict[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@contextmanager
def _of_this_machine() -> Iterator[None]:
    """Lets Ray take the loopback address for its node's, as it does on macOS.

    Elsewhere it replaces that address by one that other machines reach. It keeps tokens, which
    are forgotten here before and afterwards.
    """
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
