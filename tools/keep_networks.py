"""Copies networks of the recipe `records` to our docs: `python tools/keep_networks.py RUNS… -o FOLDER`.

Of each task and target the file of the lowest seed is kept, not of the best, with the outputs for
one fixed input. `FOLDER/networks.json` lists them.
"""

import json
import shutil
import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

import momos
from momos.study.analysis.cohort import cohorts
from momos.study.recipes.smallest import Records
from momos.study.store import Finished, read_all
from momos.study.tasks.architectures import lenet5, lenet300, mlp
from page_parts import recipes_in

BUILD = {
    "lenet300": lenet300,
    "lenet5": lenet5,
    "fashion": lambda: mlp((784, 256, 256, 256, 256, 10)),
}
LISTED = "networks.json"


def main(arguments: Sequence[str] | None = None) -> None:
    """Copies the networks and lists them."""
    parser = ArgumentParser(description=main.__doc__)
    parser.add_argument("runs", type=Path, nargs="+", help="run folders")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder to fill")
    options = parser.parse_args(arguments)
    runs, broken = read_all(options.runs)
    for each in broken:
        print(f"left out: {each.reason}", file=sys.stderr)
    keep(runs, options.output)


def keep(runs: Sequence[Finished], folder: Path) -> None:
    """Fills `folder` with the networks of finished runs of `records`."""
    folder.mkdir(parents=True, exist_ok=True)
    keys = {
        cell.key
        for recipe in recipes_in(runs)
        if isinstance(recipe, Records)
        for cell in recipe.runs()
    }
    own = [
        run for run in runs if run.cell.key in keys and "target_bytes" in run.cell.settings
    ]
    listed = {}
    for cohort in cohorts(own):
        seed = min(cohort.runs)
        run, task = cohort.runs[seed], cohort.cell.task
        name = f"{task}-{cohort.settings['target_bytes']}.momos"
        shutil.copyfile(run.folder / run.file, folder / name)
        listed[name] = {
            "task": task,
            "seed": seed,
            "metric": run.metric,
            "outputs": outputs(folder / name, task).tolist(),
        }
    text = json.dumps(listed, indent=1)
    (folder / LISTED).write_text(f"{text}\n", "utf-8")


def outputs(path: Path, task: str) -> Tensor:
    """What the network in a file says to one fixed image."""
    network = BUILD[task]()
    momos.load_(network, path)
    network.eval()
    with torch.inference_mode():
        return network(image())[0]


def image() -> Tensor:
    """A pattern of values from 0 to 1, the same everywhere."""
    return (torch.arange(784.0) * 7 % 31 / 30).view(1, 1, 28, 28)


if __name__ == "__main__":
    main()
