"""`import momos` is lean, quiet, and shows the public names and nothing else."""

import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

import momos

NAMES = {
    "Bank",
    "Checkpoint",
    "Compacted",
    "CompressionReport",
    "DescriptionLength",
    "Folding",
    "FormatError",
    "Measurement",
    "Row",
    "LatticeConfig",
    "Layout",
    "Mosaic",
    "MosaicConfig",
    "MosaicFile",
    "Placement",
    "Projection",
    "Projector",
    "Reassign",
    "Reassignment",
    "SaveReport",
    "Shrink",
    "TensorReport",
    "Trial",
    "bdm",
    "code_length",
    "compact_",
    "compress",
    "description_bound",
    "description_length",
    "distinct_motifs",
    "expand",
    "expand_",
    "fold_scales_",
    "freeze_",
    "inspect",
    "kmeans_motifs",
    "kt_code",
    "measure",
    "ordered_bdm",
    "qubd",
    "load",
    "load_",
    "nearest",
    "nearest_reference",
    "parametrize_",
    "project_",
    "sample_motifs",
    "save",
    "sensitivities",
}
OPTIONAL = {
    "faiss",
    "lightning",
    "matplotlib",
    "pytorch_lightning",
    "pandas",
    "ray",
    "rich",
    "scipy",
    "sklearn",
    "torchvision",
    "transformers",
    "triton",
    "typer",
}
INNER = {"momos.cli", "momos.study", "momos.integrations", "momos.vq.triton"}
LOADED = """
import sys, torch
before = set(sys.modules)
import momos
print(*(set(sys.modules) - before))
"""


@pytest.fixture(scope="module")
def loaded() -> set[str]:
    """The modules that `import momos` loads beside those of `import torch`."""
    process = subprocess.run(
        [sys.executable, "-W", "error", "-c", LOADED],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(Path(momos.__file__).parents[1])},
    )
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""
    return set(process.stdout.split())


def test_importing_loads_no_optional_package(loaded):
    assert "momos" in loaded
    assert {name.partition(".")[0] for name in loaded} & OPTIONAL == set()


def test_importing_loads_nothing_that_builds_on_the_library(loaded):
    assert {
        name for name in loaded if any(name.startswith(inner) for inner in INNER)
    } == set()


def test_the_public_names_are_these_and_no_others():
    public = {
        name
        for name, value in vars(momos).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    }
    assert public == NAMES


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_public_name_is_documented(name):
    assert getattr(momos, name).__doc__.strip()
    assert not getattr(momos, name).__doc__.startswith(f"{name}(")  # made by dataclass


def test_the_version_is_the_distributions():
    project = tomllib.loads(
        Path(__file__).parents[1].joinpath("pyproject.toml").read_text()
    )
    assert momos.__version__ == project["project"]["version"]


def test_the_types_are_published():
    assert (Path(momos.__file__).parent / "py.typed").exists()
