"""The page of sizes says what finished runs of `sizes` and `ablations` say, and nothing else."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sizes_page
from made_up import finished
from matplotlib.figure import Figure
from matplotlib.image import imread
from records_part import RECORDS, against_marks, records_part, write_records
from sizes_page import (
    FIGURES,
    GOALS,
    Point,
    asked_for,
    held,
    main,
    metric_against_size,
    parts_of,
    points_of,
    reference_in,
    series_of,
    smallest,
    write,
)
from study_runs import write_made_up

from momos.study.analysis.cohort import cohorts
from momos.study.analysis.metric import METRICS, number
from momos.study.analysis.statistics import interval
from momos.study.cell import Cell
from momos.study.recipes.questions import Simplify
from momos.study.recipes.recipe import Recipe
from momos.study.recipes.sizes import Ablations, Sizes
from momos.study.recipes.smallest import Records
from momos.study.store import NOBODY, Finished
from momos.study.tasks import TASKS
from momos.study.treatments import TREATMENTS
from page_parts import fill

DENSE_BITS = 8 * 866_344
SETTINGS = {"learned": "rate_weight", "quantize_aware": "bits", "prune": "sparsity"}
ENVIRONMENT: Any = {
    "versions": {"momos": "0.1.0", "torch": "2.13.0"},
    "commit": "abc1234",
    "machine": {"cores": 2, "threads": 1},
}
SIZES = Sizes(
    seeds=2, rate_weights=(1.2,), bits=(2,), sparsities=(), sampled=(), more=False
)
ABLATIONS = Ablations(seeds=2, tuning=20, ingredients=("no scales",))
PLACES = "".join(
    f"<!-- generated: {n} -->\n<!-- end -->\n"
    for n in (*GOALS, "summary", "ablations", "records")
)


def run(
    treatment: str, metric: float, factor: float, seed: int = 0, **cell: Any
) -> Finished:
    """A run whose only setting is the factor, unless some are given."""
    task = cell.get("task", "digits")
    start = None if treatment == "dense" else Cell(task=task, seed=seed)
    own = {"start": start, "teacher": start, "epochs": 20 if start else None}
    name = SETTINGS.get(treatment)
    own |= {"settings": {name: factor} if name else {}} | cell
    text = task == "shakespeare"
    made = finished(
        treatment,
        seed,
        metric=metric,
        higher_is_better=not text,
        num_weights=216_586,
        **own,
    )
    lengths = {"dense": DENSE_BITS, "file": DENSE_BITS / factor}
    return replace(made, lengths=lengths, seconds=36.0, environment=ENVIRONMENT)


def seeds(
    treatment: str, metrics: list[float], factor: float, **cell: Any
) -> list[Finished]:
    return [run(treatment, m, factor, seed, **cell) for seed, m in enumerate(metrics)]


DIGITS = [
    *seeds("dense", [0.97, 0.98, 0.98], 1.2),
    *seeds("learned", [0.97, 0.98, 0.98], 20),
    *seeds("learned", [0.97, 0.97, 0.98], 40),
    *seeds("learned", [0.95, 0.95, 0.95], 80),
    *seeds("prune", [0.96, 0.97, 0.97], 10),
    *seeds("quantize_aware", [0.98, 0.98, 0.98], 8),
    *seeds("sampled", [0.5, 0.6, 0.7], 30),
]


def parts(runs: list[Finished], task: str = "digits") -> dict[str, str]:
    return parts_of({task: ([Sizes(task=task)], runs)}, [])


def point(*arguments: Any, **cell: Any) -> Point:
    (found,) = points_of([run(*arguments, **cell)])
    return found


def ends(differences: list[float]) -> str:
    """The interval of a mean over seeds, as it is written."""
    return f"[{', '.join(number(end, 2, sign=True) for end in interval(differences))}]"


def rows(table: str, start: str) -> list[list[str]]:
    """The cells of the rows whose first cell is that."""
    cells = [row.strip("| ").split(" | ") for row in table.splitlines()]
    return [row for row in cells if row[0] == start]


def runs_of(recipe: Recipe) -> list[Finished]:
    return [
        replace(finished(), cell=cell, recipe=recipe.asked, environment=ENVIRONMENT)
        for cell in recipe.runs()
    ]


def test_a_row_says_it_all() -> None:
    section = parts(DIGITS)["digits"]
    (dense,) = rows(section, "dense")
    assert dense == ["dense", "–", "40", "3", "97.67 ± 0.58", "–", "721 953", "1.2"]
    assert rows(section, "learned motifs")[1] == [
        *("learned motifs", "rate_weight=40", "20", "3", "97.33 ± 0.58"),
        *(f"−0.33 {ends([0, -1, 0])}", "21 659", "40.0"),
    ]
    assert (
        "21 runs, 13 minutes, by `momos study run sizes --task digits`, commit abc1234. "
        "momos 0.1.0, torch 2.13.0, 2 cores, one thread a run." in section
    )
    assert "](results/sizes-digits.png)" in section


def test_rows_are_sorted_by_treatment_and_size() -> None:
    table = parts(DIGITS[::-1])["digits"].split("\n\n")[1]
    factors = [row.rsplit(" ", 2)[1] for row in table.splitlines()[2:]]
    assert factors == ["1.2", "8.0", "10.0", "30.0", "20.0", "40.0", "80.0"]


def test_missing_seeds_are_left_out_of_the_difference() -> None:
    runs = [
        *seeds("dense", [0.90, 0.80], 1.2),
        run("learned", 0.79, 20, seed=1),
        run("learned", 0.99, 20, seed=7),
    ]
    dense, learned = points_of(runs)
    found = learned.difference(dense)
    assert found is not None
    assert (found.mean, found.n) == (pytest.approx(-1), 1)
    assert learned.difference(point("dense", 0.9, 1.2, seed=3)) is None


def test_a_point_that_lacks_a_seed_reaches_nothing() -> None:
    runs = [*DIGITS, *seeds("learned", [0.97, 0.98], 70)]
    points = points_of(runs)
    learned = [each for each in points if each.treatment == "learned"]
    found = smallest(learned, reference_in(points), loss=0.5)
    assert found is not None
    assert found.factor == pytest.approx(40, rel=1e-3)
    must, aim = rows(parts(runs)["summary"], "digits")
    assert must[1:5] == ["must", "35", "0.5 points", "yes: 40.0"]
    assert must[5] == f"−0.33 {ends([0, -1, 0])} points"
    assert must[-1] == "8.0, QAT + entropy coding"
    assert aim[1:5] == ["aim", "60", "0.5 points", "no: 40.0"]


def test_no_file_may_hold_the_accuracy() -> None:
    runs = [run("dense", 0.98, 1.2), run("learned", 0.9, 20)]
    assert rows(parts(runs)["summary"], "digits")[0][4] == "no file"


def test_bits_per_character_are_compared_in_per_cent_and_fewer_are_better(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(TASKS, "shakespeare", TASKS["digits"])
    text = {"task": "shakespeare"}
    runs = [
        run("dense", 2.0, 1.2, **text),
        run("learned", 2.03, 32, **text),
        run("learned", 2.05, 64, **text),
        run("prune", 2.02, 32, **text),
    ]
    found = parts(runs, "shakespeare")
    must, aim = rows(found["summary"], "shakespeare")
    assert must[3:6] == ["2 %", "yes: 32.0", "+1.50 %"]
    assert aim[4] == "yes: 32.0"
    learned = rows(found["shakespeare"], "learned motifs")
    assert [row[5] for row in learned] == ["+1.50", "+2.50"]
    behind = rows(found["shakespeare"], "pruning + lossless coder")[-1]
    assert behind[3:] == ["2.020", "2.030", "0.50", "–"]
    low, high = metric_against_size(points_of(runs[:2])).axes[0].get_ylim()
    assert low > 2.03 > 2.0 > high


def test_only_settings_that_compete_have_an_envelope() -> None:
    worse = [point("prune", 0.8, 4), point("prune", 0.9, 8)]
    (alone,) = series_of(worse)
    assert alone.line == alone.points
    options = [{"bits": 8, "scale": "max"}, {"bits": 4, "scale": "learned"}]
    pairs = zip((0.8, 0.9), (4, 8), options, strict=True)
    (competing,) = series_of(
        [point("quantize_aware", m, f, settings=own) for m, f, own in pairs]
    )
    assert [round(p.factor) for p in competing.line] == [8]


def test_the_learned_line_is_linear_in_the_logarithm_of_size() -> None:
    (series,) = series_of([point("learned", 0.9, 10), point("learned", 0.8, 40)])
    assert series.at(20) == pytest.approx(85, abs=1e-2)
    assert series.at(2) == pytest.approx(90)
    assert series.at(41) is None
    assert series.at(20, seed=0) == pytest.approx(85, abs=1e-2)
    assert series.at(20, seed=3) is None


def test_points_above_the_learned_line_are_listed() -> None:
    runs = [*DIGITS, run("prune", 0.4, 90), run("prune", 0.4, 4)]
    compared, beyond = held(series_of(points_of(runs)))
    gains = [(each.point.treatment, round(each.gain, 2)) for each in compared]
    assert gains[:2] == [("quantize_aware", -0.33), ("prune", 1.0)]
    assert [round(each.factor) for each in beyond] == [90]
    section = parts(runs)["digits"]
    assert "above 2 of 3 points" in section
    assert "; leads beyond chance over seeds (95 % intervals): 2." in section
    assert "no learned file is as small: 1." in section
    assert rows(section, "QAT + entropy coding")[-1] == [
        *("QAT + entropy coding", "bits=8", "8.0", "98.00", "97.67", "0.33", "–")
    ]
    better = [*DIGITS, *seeds("learned", [0.98, 0.99, 0.99], 50)]
    section = parts(better)["digits"]
    assert rows(section, "QAT + entropy coding")[-1][-1] == "50.0"


def test_the_smallest_lead_is_named() -> None:
    runs = [
        *seeds("dense", [0.97, 0.98, 0.98], 1.2),
        *seeds("learned", [0.96, 0.97, 0.98], 40),
        *seeds("prune", [0.94, 0.95, 0.97], 10),
        *seeds("sampled", [0.95, 0.96, 0.97], 8),
    ]
    compared, _ = held(series_of(points_of(runs)))
    found = [(each.point.treatment, each.beyond_chance) for each in compared]
    assert found == [("sampled", True), ("prune", False)]
    words = "The smallest lead is 1.00 points, over sampled MoMos (the paper's), –."
    assert words in parts(runs)["digits"]


def test_without_three_seeds_there_is_no_chance() -> None:
    for seed in (0, 5):
        points = [point("learned", 0.9, 10), point("prune", 0.8, 10, seed=seed)]
        ((compared,), _) = held(series_of(points))
        assert compared.beyond_chance is None


def test_runs_of_other_epochs_are_compared_with_their_own() -> None:
    points = [
        point("learned", 0.9, 10, epochs=3.0),
        point("learned", 0.5, 10, epochs=0.25),
        point("prune", 0.6, 10, epochs=0.25),
        point("sampled", 0.6, 10, epochs=1.0),
    ]
    compared, beyond = held(series_of(points))
    assert [round(each.gain) for each in compared] == [-10]
    assert [each.treatment for each in beyond] == ["sampled"]


def test_how_else_a_run_was_trained_stands_with_its_settings() -> None:
    start = Cell(task="digits")
    runs = [
        run("published", 0.9, 1.2, start=None, teacher=None, epochs=None),
        run("learned", 0.9, 20),
        run("learned", 0.9, 20, learning_rate=0.001, teacher=None),
        run("dense", 0.9, 1.2, start=start, teacher=start),
    ]
    section = parts(runs)["digits"]
    assert [row[1] for row in rows(section, "dense")] == [
        *("as published", "learning rate 0.004")
    ]
    assert [row[1] for row in rows(section, "learned motifs")] == [
        "rate_weight=20 learning rate 0.004",
        "rate_weight=20 learning rate 0.001 no teacher",
    ]


def test_there_must_be_one_dense_reference() -> None:
    with pytest.raises(ValueError, match="trained from scratch in one way, got 0"):
        reference_in([point("learned", 0.9, 20)])
    two = [point("dense", 0.9, 1.2), point("dense", 0.9, 1.2, epochs=3.0)]
    with pytest.raises(ValueError, match="trained from scratch in one way, got 2"):
        reference_in(two)


def test_ablations_are_compared_with_their_reference() -> None:
    tasks = {"digits": ([Sizes()], DIGITS)}
    ablations = [
        ("digits", "reference", seeds("learned", [0.96, 0.97], 40)),
        ("digits", "no scales", seeds("learned", [0.95, 0.95], 30)),
        ("mnist", "alone", [run("learned", 0.5, 10)]),
    ]
    section = parts_of(tasks, ablations)["ablations"]
    assert (
        section.index("### digits") < section.index("| reference") < section.index("no sc")
    )
    assert rows(section, "reference")[0][4:] == [
        *("96.50 ± 0.71", "–", "21 659", "40.0", "–", "−0.83")
    ]
    assert rows(section, "no scales")[0][4:9] == [
        *("95.00 ± 0.00", "−1.50", "28 878", "30.0", "1.33")
    ]
    assert rows(section, "alone")[0][5] == "–"


def test_what_was_not_run_says_so() -> None:
    found = parts_of({}, [])
    assert {found[name] for name in (*GOALS, "ablations")} == {"Not run.\n"}
    assert found["summary"].count("not run") == 2 * len(GOALS)
    limits = [row[3] for name in GOALS for row in rows(found["summary"], name)]
    assert limits == [*["0.5 points"] * 4, "1 point", "0.5 points", "2 %", "2 %"]


# Which runs are asked for


def test_runs_count_for_every_recipe_that_asks_for_them() -> None:
    """The reference of these ablations was run by `sizes`, and their start too."""
    by_key = {run.cell.key: run for run in runs_of(ABLATIONS) + runs_of(SIZES)}
    tasks, found = asked_for(list(by_key.values()))
    recipes, runs = tasks["digits"]
    assert recipes == [SIZES]
    assert len(runs) == 6
    assert [(task, name, len(own)) for task, name, own in found] == [
        ("digits", "reference", 2),
        ("digits", "no scales", 2),
    ]


def test_other_runs_have_no_place(capsys: pytest.CaptureFixture[str]) -> None:
    lost = [replace(run, metric=float("nan")) for run in runs_of(SIZES)]
    assert asked_for(runs_of(Simplify(seeds=1))) == ({}, [])
    assert asked_for(lost)[0] == {}
    assert "its metric is nan" in capsys.readouterr().err
    assert asked_for(runs_of(replace(SIZES, precision="bfloat16")))[0] == {}


def test_how_many_runs_were_left_out_is_said_with_the_reason(
    capsys: pytest.CaptureFixture[str],
) -> None:
    sizes, simplify = runs_of(SIZES), runs_of(Simplify(seeds=2, epochs=3))
    stale: Any = {"name": "sizes", "settings": {"sedes": 1}}
    text: Any = {"name": "sizes(task='digits', seeds=2)", "settings": {}}
    sweep: Any = {"name": "sweep mine", "settings": {}}
    others = [run("prune", 0.9, factor) for factor in range(2, 9)]
    named = [
        replace(each, recipe=recipe)
        for each, recipe in zip(others, (stale, stale, text, sweep, NOBODY), strict=False)
    ]
    held_out = runs_of(replace(SIZES, validation=0.1))
    starts = [each for each in runs_of(ABLATIONS) if each.cell.start][:1]
    start = replace(starts[0], cell=Cell(task="digits", seed=7))
    twice = replace(sizes[0])
    asked_for([twice, *sizes, *simplify, *named, *held_out, start])
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "left out: 1 run of a cell that another folder has as well",
        f"left out: {len(simplify)} runs of another recipe: simplify",
        "left out: 2 runs whose recipe must be one of today's, got {'name': 'sizes', "
        "'settings': {'sedes': 1}}: fields must be known, got 'sedes'",
        "left out: 1 run whose recipe must be a name with settings, got the text "
        "\"sizes(task='digits', seeds=2)\" of an older folder, which "
        "`python tools/upgrade_runs.py RUNS` rewrites",
        "left out: 1 run of another recipe: sweep mine",
        "left out: 1 run of another recipe: none",
        f"left out: {len(held_out)} runs with validation=0.1",
        "left out: 1 run without a row in ablations, as starts of others",
    ]


def test_a_page_whose_runs_are_all_on_it_leaves_none_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked_for(runs_of(SIZES))
    assert capsys.readouterr().err == ""


def test_commands_are_of_recipes_whose_runs_are_on_the_page() -> None:
    other = replace(SIZES, validation=0.1)
    tasks, _ = asked_for(runs_of(SIZES) + runs_of(other))
    assert tasks["digits"][0] == [SIZES]
    assert "validation" not in parts_of(tasks, [])["digits"]


# The page and its figures


def test_only_places_of_a_page_change() -> None:
    page = "a\n<!-- generated: x -->\nold\n<!-- end -->\nb\n<!-- generated: y -->\n<!-- end -->"
    filled = fill(page, {"x": "1\n", "y": "2\n"})
    assert filled.startswith("a\n<!-- generated: x -->\n\n1\n\n<!-- end -->\nb\n")
    assert fill(filled, {"x": "1\n", "y": "2\n"}) == filled
    with pytest.raises(ValueError, match="one place for each of x, z, got x, y"):
        fill(page, {"x": "", "z": ""})


def test_the_page_has_every_place() -> None:
    page = Path(__file__).parents[1] / "docs/sizes.md"
    parts = parts_of({}, []) | {RECORDS: records_part([])}
    assert fill(page.read_text("utf-8"), parts)


def test_numbers_have_true_minus_signs() -> None:
    assert [number(value, 1, sign=True) for value in (-1, 0, 1)] == ["−1.0", "+0.0", "+1.0"]
    assert number(-0.001, 2) == "0.00"
    assert METRICS["accuracy"].amount(1.0) == "1 point"


def legend_of(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_the_figure_shows_all_treatments_and_marks_what_is_below_it() -> None:
    figure = metric_against_size(points_of(DIGITS))
    labels = [TREATMENTS[name].label for name in sizes_page.ORDER[::-1]]
    assert legend_of(figure) == [f"{label} (n = 3)" for label in labels]
    (axes,) = figure.axes
    texts = [text.get_text() for text in axes.texts]
    assert texts[:3] == ["dense 97.67 %", "dense − 0.5 points", "60.0"]
    assert axes.get_title().startswith("digits, 216 586 weights: dense 40 epochs, then 20")
    assert axes.get_ylim()[0] < 95 - 0.1  # the smallest learned file is in the figure


def test_longer_training_has_a_line_of_its_own() -> None:
    figure = metric_against_size(points_of([*DIGITS, run("learned", 0.98, 40, epochs=60)]))
    assert "learned motifs, 60 epochs (n = 1)" in legend_of(figure)


def test_the_page_is_filled_once_and_the_same_again(tmp_path: Path) -> None:
    runs, docs = tmp_path / "runs", tmp_path / "docs"
    docs.mkdir()
    (docs / "sizes.md").write_text(PLACES)
    for cell in SIZES.runs():
        write_made_up(runs, cell, SIZES.asked)
    main([str(runs), "-o", str(docs)])
    assert [path.name for path in (docs / FIGURES).iterdir()] == ["sizes-digits.png"]
    assert imread(docs / FIGURES / "sizes-digits.png")[..., :3].std() > 0.05
    once = (docs / "sizes.md").read_text()
    assert "learned motifs" in once
    main([str(runs), "-o", str(docs)])
    assert (docs / "sizes.md").read_text() == once


def test_a_page_without_its_places_is_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "sizes.md").write_text("nothing to fill")
    with pytest.raises(ValueError, match="one place for each of"):
        write(tmp_path, runs_of(SIZES))
    assert [path.name for path in tmp_path.iterdir()] == ["sizes.md"]


def test_records_are_held_against_published_files(tmp_path: Path) -> None:
    recipe = Records(task="lenet300", seeds=2, targets=(6400,))
    runs = [
        finished(
            cell.treatment,
            cell.seed,
            metric=0.98 + 0.002 * cell.seed,
            num_weights=266_610,
            file=8 * (6300 + 100 * cell.seed) if cell.settings else 8 * 990_000,
        )
        for cell in recipe.runs()
    ]
    runs = [
        replace(run, cell=cell, recipe=recipe.asked, seconds=90.0)
        for run, cell in zip(runs, recipe.runs(), strict=True)
    ]
    found = [
        [c.strip() for c in line.split("|")] for line in records_part(runs).splitlines()
    ]
    rows = {tuple(cells[1:3]): cells[3:8] for cells in found if len(cells) > 7}
    assert rows["lenet5", "Oktay et al. 2020"] == ["2 840", "–", "99.00", "–", "–"]
    assert rows["lenet300", "learned motifs, target 6 400 bytes, 12 epochs"] == [
        *("6 350", "167.9", "98.10 (98.00 to 98.20)", "2", "1.5")
    ]
    assert ("lenet5", "ours: not run") in rows
    (tmp_path / "results").mkdir()
    write_records(runs, tmp_path / "results")
    assert f"({Path('results/records-lenet300.png')})" in records_part(runs)
    assert [path.name for path in (tmp_path / "results").iterdir()] == [
        "records-lenet300.png"
    ]


def test_records_are_drawn_with_the_published_marks() -> None:
    recipe = Records(task="shakespeare", seeds=1, targets=(350_000,))
    kinds = {cell.treatment: cell for cell in recipe.runs()}
    assert [cell.epochs for cell in recipe.runs() if cell.treatment == "dense"] == [2, 2]
    runs = [finished(name, 0, metric=2.5, file=8 * 350_000) for name in kinds]
    runs = [replace(run, cell=kinds[run.cell.treatment]) for run in runs]
    (axes,) = against_marks("lenet5", cohorts(runs)).axes
    labels = axes.get_legend_handles_labels()[1]
    assert labels[:2] == ["Oktay et al. 2020", "Havasi et al. 2019 (MIRACLE)"]
    assert "dense, 2 epochs more (n = 1)" in labels
    assert "learned motifs, target 350 000 bytes, 2 epochs (n = 1)" in labels
