"""Finished runs of `sizes` and `ablations` become lines, each once and among their own."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from made_up import finished

from momos.study.recipes import Recipe
from momos.study.recipes.ablations import Ablations
from momos.study.recipes.simplify import Simplify
from momos.study.recipes.sizes import Sizes
from momos.study.report.curves import parts_of, write
from momos.study.report.entries import line_of, lines_of, with_new
from momos.study.report.goals import GOALS
from momos.study.report.lines import Line, by_maker, checked
from momos.study.store import Finished
from momos.study.tasks import TASKS

ENVIRONMENT = {
    "versions": {"momos": "0.1.0", "torch": "2.13.0"},
    "commit": "abc1234",
    "machine": {"cores": 2, "threads": 1},
}
SIZES = Sizes(
    seeds=2, rate_weights=(1.2,), bits=(2,), sparsities=(), sampled=(), more=False
)
TASK = TASKS["digits"]()
ABLATIONS = Ablations(seeds=2, tuning=20, ingredients=("no scales",))


def runs_of(recipe: Recipe) -> list[Finished]:
    return [
        replace(finished(), cell=cell, recipe=str(recipe), environment=ENVIRONMENT)
        for cell in recipe.cells()
    ]


def texts_of(lines: list[Line]) -> list[str]:
    return [json.dumps(vars(line)) for line in lines]


def test_a_run_is_a_line() -> None:
    dense, learned, *_ = runs_of(SIZES)[3:]
    line = line_of(learned, TASK, command="momos …")
    assert (line.task, line.treatment, line.seed) == ("digits", "learned", 1)
    assert line.settings == {"rate_weight": 1.2, "sensitive": True}
    assert (line.epochs, line_of(dense, TASK, command="").epochs) == (
        20,
        40,
    )  # the task's own
    assert line.learning_rate == 0.004
    assert line.start == line.teacher == line_of(runs_of(SIZES)[1], TASK, command="").start
    assert line.start.startswith("digits-dense-seed-{seed}-")
    assert line_of(dense, TASK, command="").start == ""
    assert (line.file_bytes, line.dense_bytes) == (26_000 / 8, 4_000)
    assert (line.commit, line.key, line.cores) == ("abc1234", learned.cell.key, 2)
    assert checked(texts_of([line]), Path("digits.jsonl")) == [line]


def test_seeds_are_one_row() -> None:
    lines = lines_of(runs_of(SIZES))["digits"]
    assert len(lines) == 6
    assert len({line.cell for line in lines}) == 3


def test_ablations_are_told_by_their_rows() -> None:
    found = lines_of(runs_of(ABLATIONS))
    (lines,) = found.values()
    assert list(found) == ["ablations"]
    assert [line.ablation for line in lines] == 2 * ["reference"] + 2 * ["no scales"]
    assert {line.group for line in lines} == {"digits"}


def test_a_run_that_two_recipes_ask_for_is_in_both_tables() -> None:
    """The reference of these ablations was run by `sizes`, and their start too."""
    by_key = {run.cell.key: run for run in runs_of(ABLATIONS) + runs_of(SIZES)}
    found = lines_of(list(by_key.values()))
    assert [line.ablation for line in found["ablations"]].count("reference") == 2
    assert len(found["digits"]) == 6


def test_runs_of_other_recipes_are_no_lines() -> None:
    assert lines_of(runs_of(Simplify(seeds=1))) == {}


def test_lines_are_added_once_and_leave_the_others_as_they_are(tmp_path: Path) -> None:
    new = lines_of(runs_of(SIZES))
    old = json.dumps(
        {name: v for name, v in vars(new["digits"][0]).items() if name != "key"}
    )
    (tmp_path / "digits.jsonl").write_text(f"{old}\n")
    texts = with_new(tmp_path, new)
    assert texts["digits"][0] == old
    assert len(texts["digits"]) == 7
    (tmp_path / "digits.jsonl").write_text("\n".join(texts["digits"]))
    assert with_new(tmp_path, new) == texts
    loop, study = (len(own) for own in by_maker(checked(texts["digits"], tmp_path))[::-1])
    assert (loop, study) == (1, 6)


def test_two_runs_of_one_row_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    (docs / "results").mkdir(parents=True)
    places = [*GOALS, "summary", "ablations"]
    page = "".join(f"<!-- generated: {n} -->\n<!-- end -->\n" for n in places)
    (docs / "sizes.md").write_text(page)
    run = runs_of(SIZES)[0]
    twin = replace(run, cell=replace(run.cell, weight_decay=0.5))
    with pytest.raises(ValueError, match=r"digits\.jsonl:2: a run must be there once"):
        write(docs, {"digits": [line_of(each, TASK, command="") for each in (run, twin)]})
    assert not list((docs / "results").iterdir())
    assert (docs / "sizes.md").read_text() == page
    write(docs, lines_of(runs_of(SIZES)))
    assert {path.name for path in (docs / "results").iterdir()} == {
        "digits.jsonl",
        "digits-study.png",
    }
    assert "learned motifs" in (docs / "sizes.md").read_text()


def test_each_maker_has_a_table_and_is_compared_with_its_own() -> None:
    study = lines_of(runs_of(SIZES))["digits"]
    loop = [replace(line, key="", commit="", metric=0.8) for line in study]
    section = parts_of({"digits": loop + study}, [])["digits"]
    first, second = section.split("![digits")[1:]
    assert "](results/digits-study.png)" in first
    assert f"by `{SIZES.command}`, commit abc1234. momos 0.1.0, torch 2.13.0" in first
    assert "](results/digits.png)" in second
    assert "6 runs, 0 minutes, by the plain loop that was there up to commit" in second
    for part in (first, second):
        (row,) = [line for line in part.splitlines() if line.startswith("| learned")]
        assert "| +0.00 |" in row
    parts = parts_of({"digits": study}, lines_of(runs_of(ABLATIONS))["ablations"])
    assert f"by `{ABLATIONS.command}`, commit" in parts["ablations"]


def test_a_goal_is_reached_by_the_smallest_file_of_either_maker() -> None:
    study = lines_of(runs_of(SIZES))["digits"]
    smaller = [
        replace(line, key="", file_bytes=100 if line.treatment == "learned" else 3250)
        for line in study
    ]
    assert parts_of({"digits": smaller + study}, [])["summary"].count("yes: 40.0") == 1
    assert "yes" not in parts_of({"digits": study}, [])["summary"]


def test_a_recipe_that_is_no_longer_so_is_told() -> None:
    run = replace(runs_of(SIZES)[0], recipe="sizes(task='digits', rates=(1,))")
    with pytest.raises(
        ValueError,
        match=r"recipe must be one of today's, got .*settings of sizes must be its own",
    ):
        lines_of([run])
