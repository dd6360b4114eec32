"""The examples are short, run, and give what they promise."""

import logging
import runpy
import warnings
from pathlib import Path

import pytest

import momos
from momos.study.sweep import Sweep
from momos.study.training.preparation import prepared

EXAMPLES = Path(__file__).parents[1] / "examples"
NAMES = [path.name for path in sorted(EXAMPLES.glob("*.py"))]


@pytest.mark.parametrize("name", NAMES)
def test_an_example_is_short(name: str) -> None:
    assert len((EXAMPLES / name).read_text().splitlines()) < 80


def test_the_sweep_is_one_that_can_be_run() -> None:
    cells = Sweep.read(EXAMPLES / "sweep.toml").cells
    assert len(cells) == 18
    for cell in cells:
        prepared(cell)


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("compress")])
def test_an_example_compresses_its_network(name: str, path: Path) -> None:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        before, after, factor = runpy.run_path(str(EXAMPLES / name))["main"](str(path))
    assert before > 0.95
    assert after > before - 0.04
    assert factor >= 15
    assert momos.load(path).mosaic is not None


def test_a_network_runs_from_its_file(path: Path) -> None:
    before, after, factor = runpy.run_path(str(EXAMPLES / "run_from_mosaic.py"))["main"](
        str(path)
    )
    assert before > 0.9
    assert after > before - 0.03
    assert factor > 7
    assert momos.load(path).mosaic is not None


def test_a_language_model_is_loaded_compact(tmp_path: Path) -> None:
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    main = runpy.run_path(str(EXAMPLES / "transformers_text.py"))["main"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before, after, factor = main(str(tmp_path))
    assert after == before
    assert factor > 4
