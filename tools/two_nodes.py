"""A sweep on a Ray cluster of two machines, one of which is killed midway: every cell ends once.

The machines are network namespaces of this one, joined by a cable of their own, where that may be
done (Linux, as root, with `ip`); else both are at the loopback address. Each has two cores and two
pretended GPUs, of which a cell takes half a one; a cell on two devices takes two.

    python tools/two_nodes.py --runs /tmp/two-nodes
"""

import argparse
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread

from momos.study.cell import Cell, ordered
from momos.study.runner import Event, Report, run_all
from momos.study.store import FAILURE, RESULT, finished, read
from momos.study.training.checkpoints import BEFORE, BEST, CHECKPOINT

PORT = 6399
NAMES = ("head", "other")
NODE = "MOMOS_NODE"  # in the environment of all processes of a machine: which one it is
RUN = "MOMOS_TWO_NODES"  # the same for all machines of one run of this script
SECONDS = 300  # until a step that takes some of them is given up
DENSE = Cell(task="digits", network="mlp:8", epochs=12, controls=0)
CELLS = [
    *(replace(DENSE, seed=seed) for seed in range(3)),
    replace(DENSE, seed=0, treatment="sampled", settings={"num_motifs": 16}, start=DENSE),
    replace(DENSE, devices=2),
]
START = ["start", "--block", "--num-cpus=2", "--num-gpus=2", "--disable-usage-stats"]
START += [f"--object-store-memory={80 * 2**20}"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--runs", type=Path, required=True, help="a new folder of runs")
    parser.add_argument("--inside", default="", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.inside:
        sys.exit(sweep(asked.inside, asked.runs))
    with ExitStack() as ending:
        prefixes, addresses = ending.enter_context(networks())
        folder = ending.enter_context(
            TemporaryDirectory(prefix="two-nodes-", dir="/tmp", ignore_cleanup_errors=True)
        )
        os.environ |= {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "OMP_NUM_THREADS": "1",
            RUN: secrets.token_hex(8),
        }
        head = f"{addresses[0]}:{PORT}"
        own = [
            [
                "--head",
                "--include-dashboard=false",
                f"--port={PORT}",
                f"--temp-dir={folder}",
            ],
            [f"--address={head}"],
        ]
        for name, prefix, address, options in zip(
            NAMES, prefixes, addresses, own, strict=True
        ):
            command = [
                *prefix,
                ray_command(),
                *START,
                f"--node-ip-address={address}",
                *options,
            ]
            ending.callback(kill, name)
            start(command, name, Path(folder) / f"{name}.log")
        command = [sys.executable, __file__, "--runs", str(asked.runs), "--inside", head]
        sys.exit(subprocess.run([*prefixes[0], *command]).returncode)


def ray_command() -> str:
    """The command of the Ray that is installed beside this Python."""
    beside = Path(sys.executable).with_name("ray")
    return str(beside) if beside.exists() else shutil.which("ray") or "ray"


def start(command: Sequence[str], name: str, log: Path) -> None:
    """Starts a machine's processes, and waits until they are there."""
    with log.open("w") as file:
        started = subprocess.Popen(
            command, env=os.environ | {NODE: mark(name)}, stdout=file, stderr=file
        )
    until = time.monotonic() + SECONDS
    while "Ray runtime started" not in log.read_text():
        if started.poll() is not None or time.monotonic() > until:
            raise RuntimeError(f"the machine {name} must start, but: {log.read_text()}")
        time.sleep(0.2)


@contextmanager
def networks() -> Iterator[tuple[list[list[str]], list[str]]]:
    """Beginnings of commands on the two machines, and their addresses."""
    names = [f"momos-{os.getpid()}-{name}" for name in NAMES]
    cables = [f"m{os.getpid()}-{number}" for number in range(2)]
    addresses = [f"10.77.0.{number + 1}" for number in range(2)]
    with ExitStack() as ending:
        try:
            for name in names:
                ip("netns", "add", name)
                ending.callback(ip, "netns", "del", name)
            ip("link", "add", cables[0], "type", "veth", "peer", "name", cables[1])
            for name, cable, address in zip(names, cables, addresses, strict=True):
                ip("link", "set", cable, "netns", name)
                ip("-n", name, "addr", "add", f"{address}/24", "dev", cable)
                for link in (cable, "lo"):
                    ip("-n", name, "link", "set", link, "up")
        except (OSError, subprocess.CalledProcessError) as error:
            print(
                f"no namespaces here, so both machines are at the loopback address: {error}"
            )
            yield [[], []], ["127.0.0.1", "127.0.0.1"]
            return
        yield [["ip", "netns", "exec", name] for name in names], addresses


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def mark(name: str) -> str:
    return f"{os.environ[RUN]}-{name}"


def processes(name: str) -> dict[int, bytes]:
    """The processes of a machine and their commands."""
    found = {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if f"{NODE}={mark(name)}".encode() in (place / "environ").read_bytes().split(
                b"\0"
            ):
                found[int(place.name)] = (place / "cmdline").read_bytes()
        except OSError:  # it has ended, or is another user's
            continue
    return found


def kill(name: str) -> None:
    """Ends a machine at once, with all that runs on it."""
    while found := processes(name):
        for number in found:
            try:
                os.kill(number, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.1)


def sweep(head: str, runs: Path) -> int:
    """Runs the sweep and kills the other machine as soon as a cell on it has a checkpoint."""
    from momos.study.execution.cluster import connected

    told: list[Event] = []
    lost: list[Cell] = []
    with connected(head, gpus=0.5) as cluster:
        killer = Thread(target=kill_midway, args=(runs, lost))
        killer.start()
        report = run_all(CELLS, runs, cluster=cluster, tell=told.append)
        killer.join()
    for cell in ordered(CELLS):
        about = "lost its machine, " if cell in lost else ""
        print(
            f"{cell.folder}: {about}{'finished' if finished(runs / cell.folder) else 'not'}"
        )
    faults = account(CELLS, runs, report, told)
    faults += [] if lost else ["no cell lost its machine"]
    with TemporaryDirectory() as place:
        for cell in lost:
            run_all([cell], Path(place))
            one, two = (read(root / cell.folder).weights for root in (runs, Path(place)))
            if one.read_bytes() != two.read_bytes():
                faults.append(
                    f"{cell.folder} has other weights than where nothing is killed"
                )
    print("\n".join(faults) or "every cell ended once")
    return len(faults)


def kill_midway(runs: Path, lost: list[Cell]) -> None:
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        time.sleep(0.1)
        begun = [cell for cell in CELLS if (runs / cell.folder / CHECKPOINT).exists()]
        commands = b"\n".join(processes(NAMES[1]).values()) if begun else b""
        running = [cell for cell in begun if f"ray::{cell.folder}".encode() in commands]
        if running:
            kill(NAMES[1])
            lost += [cell for cell in running if not finished(runs / cell.folder)]
            return


def account(
    cells: Sequence[Cell], runs: Path, report: Report, told: Sequence[Event]
) -> list[str]:
    """What is wrong with a sweep of cells that can all be run; nothing where each ended once."""
    wanted = ordered(cells)
    ended = Counter(event.cell.folder for event in told if event.line is None)
    ran = Counter(cell.folder for cell in report.ran)
    faults = [f"{folder} failed: {reason}" for folder, reason in report.failed.items()]
    for folder in [cell.folder for cell in wanted]:
        for number, words in ((ended[folder], "told"), (ran[folder], "reported")):
            if number != 1:
                faults.append(
                    f"the end of {folder} must be {words} once, got {number} times"
                )
        place = runs / folder
        left = {path.name for path in place.glob("*")}
        half = [
            n
            for n in left
            if n.endswith(".part") or n.startswith((CHECKPOINT, BEFORE, BEST))
        ]
        if RESULT not in left or FAILURE in left or half:
            faults.append(
                f"{folder} must be whole, got {', '.join(sorted(left)) or 'nothing'}"
            )
    known = {cell.folder for cell in wanted}
    others = [
        p.name for p in runs.glob("*") if not p.name.startswith(".") and p.name not in known
    ]
    return faults + [
        f"{name} is in the folder of runs, but is no cell's" for name in others
    ]


if __name__ == "__main__":
    main()
