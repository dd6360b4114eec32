"""Run folders of strangers: what is wrong with one is said, and spoils no other."""

import csv
import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import pytest
from results_page import PARTS, publish
from rich.console import Console
from run_mutants import mutants
from test_study_page import write_run

from momos.cli.tables import of_study, table_of_comparison
from momos.study.analysis.comparison import compare
from momos.study.cell import Cell
from momos.study.report.figure import Figure
from momos.study.report.page import report
from momos.study.store import Broken, Finished, read, read_all

PAGE = "".join(
    f"<!-- generated: {name} -->\nold\n<!-- end -->\n" for name in (*PARTS, "plane")
)
SAMPLED = {"block_size": 2, "capacity": 0.05}
CELLS = {
    "simplify": Cell(task="digits", measure_every=1),
    "capacity": Cell(task="digits", treatment="sampled", settings=SAMPLED),
    "compressors": Cell(task="digits", treatment="prune", settings={"to": 0.5}),
    "usage": Cell(task="digits", treatment="learned", settings={"a": 1}, measure_every=1),
    "grokking": Cell(task="mod97", network="mlp:8", measure_every=1),
}
COUNT = 150


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """One finished run of each recipe that has a part on the page of results."""
    place = tmp_path_factory.mktemp("good")
    folders = []
    for name, cell in CELLS.items():
        mosaic = cell.treatment == "learned"
        folder = write_run(place, cell, metric=0.9, bits=8, share=0.9, mosaic=mosaic)
        path, asked = folder / "cell.json", {"name": name, "settings": {"seeds": 2}}
        path.write_text(path.read_text().replace('"made-up"', json.dumps(asked)))
        folders.append(folder)
    return folders


@pytest.fixture(scope="module")
def place(good: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("mutants")
    mutants(good, place, COUNT, seed=13)
    for folder in good:
        shutil.copytree(folder, place / folder.name)
    return place


@pytest.fixture(scope="module")
def both(place: Path) -> tuple[list[Finished], list[Broken]]:
    return read_all([place])


def test_every_mutant_is_read_or_left_out_by_name(
    both: tuple[list[Finished], list[Broken]],
) -> None:
    runs, broken = both
    assert len(runs) + len(broken) == COUNT + len(CELLS)
    assert min(len(runs), len(broken)) > 20
    for each in broken:
        assert str(each.folder) in each.reason
        assert each.reason.isprintable()


def test_a_report_of_mutants_is_made_and_says_what_it_left_out(
    place: Path,
    both: tuple[list[Finished], list[Broken]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn = iter(range(10**6))
    draw = Figure.inline

    def inline(self: Figure) -> str:  # drawing all of them takes minutes
        return draw(self) if next(drawn) % 20 == 0 else "<svg></svg>"

    monkeypatch.setattr(Figure, "inline", inline)
    monkeypatch.setattr(Figure, "write", lambda self, folder: None)
    page = report([place], tmp_path)
    text = page.read_text("utf-8")
    _, broken = both
    for each in broken:
        assert f"<strong>{each.folder.name}</strong>" in text
    assert "<script>x" not in text
    assert "\x1b" not in text


def test_a_page_of_results_of_mutants_is_filled(
    place: Path,
    both: tuple[list[Finished], list[Broken]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", lambda *_, **__: None)
    (tmp_path / "results.md").write_text(PAGE)
    reasons = publish([place], tmp_path)
    assert {each.reason for each in both[1]} <= set(reasons)
    text = (tmp_path / "results.md").read_text("utf-8")
    assert text.count("<!-- end -->") == len(PARTS) + 1
    assert "<script>x" not in text
    assert "\x1b" not in text


def test_mutants_are_compared_without_steering_the_terminal(
    both: tuple[list[Finished], list[Broken]],
) -> None:
    for run in both[0]:
        shown = io.StringIO()
        Console(file=shown, width=200).print(
            of_study(table_of_comparison(compare([run], [run])))
        )
        assert "\x1b" not in shown.getvalue()


@pytest.mark.parametrize(
    "file", ["/etc/hostname", "../other.momos", "..", "link.momos", "a/b"]
)
def test_a_file_outside_its_folder_is_never_opened(
    file: str, good: list[Path], tmp_path: Path
) -> None:
    folder = tmp_path / "runs" / "run"
    shutil.copytree(good[3], folder)
    (folder / "network.momos").rename(tmp_path / "runs" / "other.momos")
    (folder / "link.momos").symlink_to("../other.momos")
    path = folder / "result.json"
    path.write_text(path.read_text().replace('"network.momos"', f'"{file}"'))
    if file == "link.momos":
        with pytest.raises(ValueError, match="but leads out of it"):
            _ = read(folder).network
        return
    with pytest.raises(
        ValueError, match="file must be the name of a file in the run folder"
    ):
        read(folder)


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/hostname")


def _sparse(path: Path) -> None:
    os.truncate(path, 2**40)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_pipe, "must be an ordinary file"),
        (_link, "but leads out of it"),
        (_sparse, "must have at most 1073741824 bytes, got 1099511627776"),
    ],
)
@pytest.mark.parametrize("name", ["cell.json", "result.json", "history.jsonl"])
def test_pipes_links_and_giants_are_refused(
    name: str,
    change: Callable[[Path], None],
    message: str,
    good: list[Path],
    tmp_path: Path,
) -> None:
    shutil.copytree(good[0], tmp_path / "run")
    change(tmp_path / "run" / name)
    runs, (broken,) = read_all([tmp_path])
    assert not runs
    assert f"{name}" in broken.reason
    assert message in broken.reason


@pytest.mark.parametrize(
    ("name", "before", "after", "message"),
    [
        (
            "result.json",
            '"metric": 0.9',
            '"metric": "NaN"',
            "metric must be a number, got 'NaN'",
        ),
        (
            "result.json",
            '"metric": 0.9',
            '"metric": true',
            "metric must be a number, got True",
        ),
        (
            "result.json",
            '"metric": 0.9',
            '"metric": 1e300',
            "must have numbers of 0, or 1e-100",
        ),
        (
            "result.json",
            '"metric": 0.9',
            f'"metric": {"9" * 5000}',
            "result.json is no JSON (Exceeds the limit",
        ),
        (
            "result.json",
            '"accuracy"',
            '"\\ud800"',
            "must be Unicode text, but has a lone surr",
        ),
        ("result.json", '"accuracy"', f'"{"a" * 5000}"', "must have texts of at most 4096"),
        (
            "result.json",
            '"accuracy"',
            "[" * 10**5 + "]" * 10**5,
            "result.json must nest at most 64 deep, got more",
        ),
        (
            "result.json",
            '"dense": 77120',
            '"dense": 0',
            "lengths.dense must be above 0 and finite",
        ),
        (
            "history.jsonl",
            '{"epoch": 1,',
            '{"epoch": 1',
            "history.jsonl, line 2 is no JSON",
        ),
        ("history.jsonl", '"epoch": 1,', "", "history.jsonl, line 2: it lacks 'epoch'"),
        (
            "history.jsonl",
            '"epoch": 1,',
            '"epoch": "1",',
            "line 2: epoch must be a whole number of at least 0, got '1'",
        ),
        (
            "cell.json",
            '"weight_decay": null',
            '"weight_decay": "x"',
            "weight_decay must be a num",
        ),
        (
            "cell.json",
            '"name": "simplify"',
            '"name": 5',
            "recipe.name must be text, got 5",
        ),
    ],
)
def test_what_is_wrong_is_said_with_file_line_and_value(
    name: str, before: str, after: str, message: str, good: list[Path], tmp_path: Path
) -> None:
    shutil.copytree(good[0], tmp_path / "run")
    path = tmp_path / "run" / name
    text = path.read_text("utf-8")
    assert before in text
    path.write_text(text.replace(before, after, 1), "utf-8")
    _, (broken,) = read_all([tmp_path])
    assert message in broken.reason


def test_names_that_are_formulas_or_control_characters_are_text_everywhere(
    good: list[Path], tmp_path: Path
) -> None:
    name = "=1+1\x1b[2J$x_{$"
    for folder in good[:1]:
        shutil.copytree(folder, tmp_path / "runs" / folder.name)
        for path in (tmp_path / "runs" / folder.name).glob("*.json*"):
            escaped = name.replace("\x1b", "\\u001b")
            text = path.read_text("utf-8").replace("digits", escaped)
            path.write_text(text.replace("accuracy", escaped), "utf-8")
    page = report([tmp_path / "runs"], tmp_path / "report")
    assert "\x1b" not in page.read_text("utf-8")
    assert "Nothing: every folder was a finished run." in page.read_text("utf-8")
    figures = tmp_path / "report" / "figures"
    for svg in figures.glob("*.svg"):
        ElementTree.parse(svg)
    with (figures / "all-runs.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["task"] for row in rows} == {r"'=1+1\x1b[2J$x_{$"}
    assert all(float(row["metric"]) for row in rows)
