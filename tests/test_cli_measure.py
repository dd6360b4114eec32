"""How complex networks are, from the shell: as tables, JSON and comma-separated rows."""

import csv
import io
import json
import re
from functools import partial
from importlib import metadata
from pathlib import Path

import commands
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from typer.testing import Result

import momos
from momos.complexity import ctm

DEFAULT = (
    *("signs", "signs, order 4", "signs, ordered BDM", "signs, lzma", "2-bit codes"),
    *("4-bit codes", "8-bit codes", "float fields", "signs, BDM"),
)
SOME = ("signs", "signs, BDM", "gzip rate, sign bytes", "QuBD")


invoke = partial(commands.invoke, "measure")


def checkpoint(path: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(40, 30))
    save_file(model.state_dict(), path)
    return path


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch) -> None:
    """Paths are short: a title is as wide as its table."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def net() -> Path:
    return checkpoint(Path("net.safetensors"), 0)


@pytest.fixture
def start() -> Path:
    return checkpoint(Path("start.safetensors"), 1)


@pytest.fixture
def mosaic(net: Path) -> Path:
    path = net.with_name("net.momos")
    momos.compress(net, path, momos.MosaicConfig(block_size=4, num_motifs=32))
    return path


def line(result: Result, start: str) -> list[str]:
    """The cells of the row whose measure is `start`."""
    lines = [line.strip() for line in result.output.splitlines()]
    found = [line for line in lines if line.startswith(f"{start}  ")]
    assert len(found) == 1, result.output
    return found[0].removeprefix(start).split()


# Tables


def test_a_table_has_a_row_for_each_measure_and_a_line_that_says_what_it_bounds(net):
    done = invoke(net, "--shuffles", "3")
    assert done.exit_code == 0, done.output
    found = momos.measure(net, controls=3)
    assert str(net) in done.output
    for name in DEFAULT:
        row = found[name]
        cells = line(done, name)
        assert cells[:2] == [row.kind, f"{row.value:.0f}"]
        if row.kind == "code":
            assert cells[2] == f"{row.bits_per_weight:.4f}"
        if row.control:
            assert cells[-1] == f"{row.control.z:+.1f}"
        assert f"{name} [{row.kind}; {row.view}]: {row.about}" in done.output
    assert "running statistics" in done.output


def test_several_networks_stand_one_below_the_other(net, start, mosaic):
    done = invoke(net, start, mosaic, "--measures", "signs", "--shuffles", "0")
    assert done.exit_code == 0, done.output
    places = [done.output.index(str(path)) for path in (net, start, mosaic)]
    assert places == sorted(places)
    assert sum(line.startswith("signs  ") for line in done.output.splitlines()) == 4
    assert "side by side: bits/weight of codes, values of scores" in done.output
    size = 8 * mosaic.stat().st_size
    assert re.search(rf"\nmosaic, file +code +{size} ", done.output)


def test_every_row_that_is_shown_is_explained_whichever_network_has_it(net, mosaic):
    done = invoke(net, mosaic, "--measures", "signs", "--shuffles", "0")
    assert "mosaic, file [code; the file]: " in done.output


def test_with_a_start_the_factors_are_shown(net, start):
    done = invoke(
        net, "--init", start, "--shuffles", "3", "--measures", "signs, BDM; signs"
    )
    assert done.exit_code == 0, done.output
    found = momos.measure(net, init=start, controls=3, measures=("signs, BDM", "signs"))
    for name in ("signs, BDM", "signs"):
        factors = found[name].factors
        shown = (factors.ratio, factors.arrangement, factors.value_distribution)
        assert line(done, name)[-3:] == [f"{value:.2%}" for value in shown]


def test_rows_that_are_not_available_are_shown_with_why(tmp_path):
    save_file({"few": torch.ones(5)}, tmp_path / "few.safetensors")
    done = invoke(tmp_path / "few.safetensors", "--shuffles", "0")
    assert done.exit_code == 0, done.output
    assert line(done, "signs, BDM") == ["score", "–", "-", "-", "-"]
    reason = "not available: signs, BDM: BDM needs at least 12 weights, got 5"
    assert reason in done.output


def test_without_pybdm_the_extra_is_named_as_it_must_be_typed(net, monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    ctm.sequence_table.cache_clear()
    monkeypatch.setattr(metadata, "distribution", missing)
    done = invoke(net, "--measures", "signs, BDM", "--shuffles", "0")
    assert done.exit_code == 0, done.output
    assert 'pip install "mosaic-of-motifs[bdm]"' in done.output


def test_reasons_of_single_tensors_name_the_tensor(net):
    done = invoke(net, "--measures", "signs, BDM", "--shuffles", "0", "--per-tensor")
    assert done.exit_code == 0, done.output
    assert "0.bias: signs, BDM: BDM needs at least 12 weights, got 8" in done.output


def test_each_tensor_has_its_row_on_demand(net):
    done = invoke(net, "--per-tensor", "--measures", "signs", "--shuffles", "0")
    for name in ("0.weight", "0.bias", "1.weight", "2.weight"):
        assert line(done, f"{name}: signs")[0] == "code"


@pytest.mark.parametrize("name", ["blocks[w].weight", "[/x]", "[bold]"])
def test_brackets_in_names_are_shown_as_they_are(name, tmp_path):
    state = {name: torch.randn(30), f"{name}.n": torch.arange(3)}
    save_file(state, tmp_path / "x.safetensors")
    done = invoke(
        *(tmp_path / "x.safetensors", "--per-tensor", "--shuffles", "0"),
        *("--measures", "signs"),
    )
    assert done.exit_code == 0, done.output
    assert f"{name}: signs" in done.output
    assert "not floating but int64" in done.output


@pytest.mark.parametrize("name", ["net[red].pt", "[/x].pt"])
def test_brackets_in_paths_are_shown_as_they_are(name):
    Path(name).parent.mkdir(exist_ok=True)
    torch.save({"w": torch.randn(30)}, name)
    done = invoke(name, "--measures", "signs")
    assert done.exit_code == 0, done.output
    assert name in done.output


def test_a_path_longer_than_the_table_is_shown_in_one_line():
    path = checkpoint(Path("a" * 90 + ".safetensors"), 0)
    assert str(path) in invoke(path, "--measures", "signs", "--shuffles", "0").output


# For programs


def test_json_is_what_the_measurement_is(net, mosaic):
    options = ("--shuffles", "2", "--seed", "7", "--per-tensor")
    done = invoke(net, mosaic, "--json", *options, "--measures", "; ".join(SOME))
    assert done.exit_code == 0, done.output
    expected = {
        str(path): momos.measure(
            path,
            measures=SOME,
            controls=2,
            generator=torch.Generator().manual_seed(7),
            per_tensor=True,
        ).to_dict()
        for path in (net, mosaic)
    }
    assert json.loads(done.stdout) == expected


def test_csv_has_a_line_for_each_row_of_each_network(net, start):
    options = ("--shuffles", "2", "--per-tensor", "--measures", "; ".join(SOME))
    done = invoke(net, start, "--csv", *options)
    assert done.exit_code == 0, done.output
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    expected = [
        {"network": str(path)} | row
        for path in (net, start)
        for row in momos.measure(
            path, measures=SOME, controls=2, per_tensor=True
        ).to_dict()["rows"]
    ]
    assert len(rows) == len(expected)
    for row, wanted in zip(rows, expected, strict=True):
        assert row == {k: "" if v is None else str(v) for k, v in wanted.items()}


# What is wrong


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("absent.safetensors",), 3, "absent.safetensors"),
        (("absent.momos",), 3, "absent.momos"),
        (("net.safetensors", "--measures", "x"), 1, "measures must be among default; "),
        (("net.safetensors", "--json", "--csv"), 1, "one of --json and --csv"),
        (("net.safetensors", "--shuffles", "1"), 1, "controls must be 0, or at least 2"),
        (("net.safetensors", "--shuffles", "-1"), 2, "--shuffles"),
        (("net.safetensors", "--init", "absent.pt"), 3, "absent.pt"),
        (("net.txt",), 3, "net.txt: No such file"),
        ((), 2, "NETWORK"),
    ],
)
@pytest.mark.usefixtures("net")
def test_what_is_wrong_is_told_in_a_line_with_its_exit_code(arguments, code, words):
    done = invoke(*arguments)
    assert done.exit_code == code, done.output
    assert words in done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.output


def test_a_damaged_file_is_told_and_named(tmp_path):
    (tmp_path / "x.momos").write_bytes(bytes(1000))
    done = invoke(tmp_path / "x.momos")
    assert done.exit_code == 1
    assert str(tmp_path / "x.momos") in done.stderr


def test_names_of_tensors_never_steer_a_terminal_or_a_spreadsheet(tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_file({"=HYPERLINK(1)\x1b[2J": torch.randn(40, 30)}, "net.safetensors")
    options = ("--measures", "signs", "--shuffles", "0", "--per-tensor")
    table = invoke("net.safetensors", *options)
    assert table.exit_code == 0, table.output
    assert r"=HYPERLINK(1)\x1b[2J: signs" in table.output
    assert "\x1b" not in table.output
    rows = list(
        csv.DictReader(io.StringIO(invoke("net.safetensors", *options, "--csv").output))
    )
    assert [row["tensor"] for row in rows] == ["", r"'=HYPERLINK(1)\x1b[2J"]
