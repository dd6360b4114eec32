"""The page of results says what finished runs say, and nothing else."""

import json
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import matplotlib
import pytest
from made_up import finished, row
from results_page import (
    PARTS,
    capacity_part,
    claims_part,
    command_of,
    compressors_part,
    grokking_part,
    main,
    origin_part,
    plane_part,
    publish,
    simplify_part,
    usage_part,
)

from momos.study.recipes.questions import Compressors, Grokking, Plane, Simplify, Usage
from momos.study.recipes.recipe import Recipe
from momos.study.recipes.sizes import Ablations
from momos.study.store import (
    CELL,
    HISTORY,
    NOBODY,
    RESULT,
    Asked,
    Finished,
    begin,
    write_json,
    write_lines,
)
from page_parts import PLACE, of_recipe, shell_command

matplotlib.use("Agg")
PAGE = "".join(
    f"<!-- generated: {name} -->\nold\n<!-- end -->\n" for name in (*PARTS, "plane")
)


def runs_of(
    recipe: str, treatment: str = "dense", value: float = 10.0, **others: Any
) -> list[Finished]:
    """Three runs of a recipe, whose measure scatters by about one in a thousand."""
    metric = others.pop("metric", 0.9)
    history = others.pop("history", ())
    found = [
        finished(
            treatment,
            seed,
            measures=(row("signs", value * (1 + 1e-3 * seed)),),
            metric=metric + 1e-4 * seed,
            **others,
        )
        for seed in range(3)
    ]
    asked: Asked = {"name": recipe, "settings": {"task": "digits"}}
    return [replace(run, recipe=asked, history=history) for run in found]


def cells_of(table: str, start: str) -> list[str]:
    """What stands in the row of a table that begins so."""
    (line,) = (line for line in table.splitlines() if line.startswith(f"| {start} "))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_start_and_trained_stand_side_by_side() -> None:
    found = simplify_part(runs_of("simplify", weight_decay=0.1)).text
    assert "weight decay 0.1: 90.01 [" in found
    assert "(n = 3 seeds)" in found
    name, how, start, trained, factor, arrangement, values, verdict = cells_of(
        found, "signs"
    )
    assert (name, how, verdict) == ("signs (code)", "weight decay 0.1", "supported")
    assert (start, trained) == ("0.0200", "0.0100")  # bits per weight, of 1000
    assert factor.startswith("0.5005 [0.4")
    assert float(arrangement) * float(values) == pytest.approx(0.5005, abs=1e-3)
    rising = simplify_part(runs_of("simplify", value=21.0)).text
    assert cells_of(rising, "signs")[-1] == "not supported"
    published = simplify_part(runs_of("simplify", "published")).text
    assert "published: 90.00 accuracy, % (one network, n = 3 starts)." in published


def test_treatments_are_compared_with_the_dense_network() -> None:
    runs = runs_of("compressors") + runs_of("compressors", "prune", 5.0, metric=0.89)
    part = compressors_part(runs)
    (picture,) = part.figures
    assert picture.name == "length-digits-accuracy"
    dense, pruned = cells_of(part.text, "dense, the start"), cells_of(part.text, "prune")
    assert dense[4:6] == ["–", "–"]
    assert (dense[0], pruned[0]) == ("dense, the start", "prune")
    assert pruned[1] == "the dense network"
    assert pruned[4] == "−1.00 [−1.00, −1.00]"
    assert pruned[5] == "no"
    assert pruned[-1] == "0.500 ↓"


def test_what_diverged_is_told_beside_the_mean_of_the_others() -> None:
    runs = runs_of("compressors") + runs_of("compressors", "prune", 5.0)
    runs[-1] = replace(runs[-1], metric=float("nan"))
    found = cells_of(compressors_part(runs).text, "prune")
    assert found[2:4] == ["3", "90.00 (1 of 3 diverged)"]


def test_runs_count_for_every_recipe_that_asks_for_them() -> None:
    recipe, other = Compressors(seeds=1), Usage(seeds=1)
    cells = [recipe.runs()[0], recipe.runs()[2], other.runs()[0]]
    asked = [Plane().asked, recipe.asked, other.asked]
    runs = [
        replace(run, cell=cell, recipe=each)
        for run, cell, each in zip(runs_of(""), cells, asked, strict=True)
    ]
    assert of_recipe(runs, "compressors") == runs[:2]
    assert of_recipe(runs, "usage") == runs[2:]


def test_capacity_names_the_least_that_is_as_good_as_dense() -> None:
    runs = runs_of("capacity")
    for capacity, metric in ((0.01, 0.7), (0.1, 0.899), (0.2, 0.9)):
        settings = {"block_size": 2, "capacity": capacity}
        runs += runs_of("capacity", "sampled", metric=metric, settings=settings)
    part = capacity_part(runs)
    assert [picture.name for picture in part.figures] == ["capacity-digits-accuracy"]
    assert "0.5 points are lost, by the whole interval: s = 2, 10 %." in part.text
    assert cells_of(part.text, "dense")[3].startswith("90.01 [")
    words = [cells_of(part.text, f"2 | {capacity}")[5] for capacity in (1, 10, 20)]
    assert words == ["no", "yes", "yes"]
    diverged = [*runs[:-1], replace(runs[-1], metric=float("nan"))]
    found = cells_of(capacity_part(diverged).text, "2 | 20")
    assert found[3:6] == ["90.00 (1 of 3 diverged)", "–", "–"]


def test_usage_is_told_in_bits_and_shares(tmp_path: Path) -> None:
    usage = [512] + [256] * 2 + [0] * 7
    history = ({"epoch": 0, "metric": 0.1, "usage": usage},)
    part = usage_part(runs_of("usage", "learned", history=history))
    for count, names in ((1, ["csv", "png"]), (2000, ["png"])):
        (picture,) = part.figures
        long = replace(picture, rows=[*picture.rows[:1]] * count)
        (folder := tmp_path / str(count)).mkdir()
        replace(part, figures=[long]).write(folder)
        assert sorted(path.suffix[1:] for path in folder.iterdir()) == names
    assert cells_of(part.text, "learned")[1:] == [
        "0",
        "3",
        "10",
        "3",
        "50.0",
        "1.50",
        "3.32",
    ]


def test_grokking_tells_when_accuracy_came_and_complexity_fell() -> None:
    def line(epoch: int, metric: float, bits: float) -> dict[str, Any]:
        values = {"value": 1000 * bits, "bits_per_weight": bits}
        own = values | {"shuffled_mean": 1000.0, "shuffled_deviation": 1.0}
        return {
            "epoch": epoch,
            "train_loss": 0.1,
            "metric": metric,
            "measures": {"signs": own},
        }

    lines = (
        line(0, 0.01, 1.0),
        line(100, 0.2, 1.001),
        line(200, 0.96, 0.995),
        line(300, 1.0, 0.9),
    )
    (run, *_) = runs_of("grokking", history=lines, weight_decay=1.0, epochs=300, metric=1.0)
    found = grokking_part([run]).text
    assert "reaches 95 % at step 200, and ends at 100.0 % after 300 steps" in found
    assert cells_of(found, "signs")[2:] == [
        *("1.0000", "0.9950", "0.9000", "0.9000", "1.0000", "0.9000", "300"),
    ]
    never = replace(run, history=lines[:2])
    assert "reaches 95 % never" in grokking_part([never]).text


def test_the_plane_tells_the_greatest_loss_between_both(tmp_path: Path) -> None:
    plane = {
        "title": "digits, seed 0: training loss",
        "x": [0, 1, 2],
        "y": [0, 1],
        "loss": [[1.0, 3.0, 2.0], [4.0, 4.0, 4.0]],
        "points": {"start": [0, 1], "dense": [0, 0], "mosaic": [2, 0]},
        "lines": [
            {"from": "start", "to": "mosaic", "loss": [4.0, 5.0, 2.0]},
            {"from": "dense", "to": "mosaic", "loss": [1.0, 3.0, 2.0]},
        ],
        "unit": "nats",
    }
    (tmp_path / "plane.json").write_text(json.dumps(plane))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "plane.json").write_text("{}")
    part, (broken,) = plane_part([tmp_path])
    assert "plane.json is damaged: it lacks" in broken.reason
    assert cells_of(part.text, "digits, seed 0")[1:] == [*("4", "1", "2", "3", "5", "2.00")]
    assert len(part.figures) == 1


def test_claims_are_counted_by_task_and_kind() -> None:
    runs = runs_of("simplify") + runs_of("simplify", value=30.0, task="fashion")
    found = claims_part(runs)
    assert cells_of(found.text, "1 | digits")[3:] == ["1", "0", "0"]
    assert cells_of(found.text, "1 | fashion")[3:] == ["0", "1", "0"]
    assert [table.name for table in found.tables] == ["verdicts"]


@pytest.mark.parametrize(
    ("recipe", "command"),
    [
        (Simplify(), "momos study run simplify --task digits"),
        (
            Simplify(task="fashion", seeds=2, published=True),
            "momos study run simplify --task fashion --set seeds=2 --set published=true",
        ),
        (
            Compressors(tuning=2.0, bits=(2, 4)),
            "momos study run compressors --task digits --set tuning=2.0 --set 'bits=[2, 4]'",
        ),
        (Grokking(width=16), "momos study run grokking --task mod97 --set width=16"),
        ({"name": "sweep mine", "settings": {}}, "sweep mine"),
        ({"name": "simplify", "settings": {"seed": 1}}, "simplify"),
        (NOBODY, ""),
    ],
)
def test_a_recipe_is_told_as_its_command(recipe: Recipe | Asked, command: str) -> None:
    asked = recipe.asked if isinstance(recipe, Recipe) else recipe
    assert command_of(asked) == command


def test_commands_have_their_runs_time_and_commit() -> None:
    runs = [
        replace(run, seconds=60.0, environment={"commit": "abc1234"})
        for run in runs_of("simplify")
    ]
    part = origin_part(runs)
    assert cells_of(part.text, "`momos")[1:] == ["3", "3", "`abc1234`"]
    (table,) = part.tables
    assert "folder" not in table.columns
    assert len(table.rows) == 3


def test_recipes_that_are_none_of_today_are_named(tmp_path: Path) -> None:
    asked: list[Asked] = [
        {"name": "simplify", "settings": {"seed": 1}},
        {"name": "simplify(seeds=3)", "settings": {}},
        {"name": "sweep simplify(seeds=3)", "settings": {}},
    ]
    for run, recipe in zip(runs_of("simplify"), asked, strict=True):
        stored(replace(run, recipe=recipe), tmp_path)
    (tmp_path / "results.md").write_text(PAGE)
    assert publish([tmp_path], tmp_path) == [
        "the recipe of 1 run: recipe must be one of today's, got "
        "{'name': 'simplify', 'settings': {'seed': 1}}: fields must be known, got 'seed'",
        "the recipe of 1 run: recipe must be a name with settings, got the text "
        "'simplify(seeds=3)' of an older folder, which "
        "`python tools/upgrade_runs.py RUNS` rewrites",
    ]


def stored(run: Finished, root: Path) -> None:
    folder = root / run.cell.folder
    begin(folder, run.cell, recipe=run.recipe, environment={})
    write_lines(folder / HISTORY, run.history)
    values = asdict(run) | {"measures": list(run.measures)}
    outside = ("folder", "cell", "recipe", "history", "environment")
    write_json(folder / RESULT, {n: v for n, v in values.items() if n not in outside})


def test_the_page_is_filled_and_what_was_not_run_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs, docs = tmp_path / "runs", tmp_path / "docs"
    for run in runs_of("compressors") + runs_of("compressors", "prune", 5.0):
        stored(run, runs)
    (runs / "damaged").mkdir()
    (runs / "damaged" / CELL).write_text("{")
    docs.mkdir()
    (docs / "results.md").write_text(PAGE)
    main([str(runs), "-o", str(docs)])
    page = (docs / "results.md").read_text()
    assert "old" not in page
    assert page.count("Not run.") == 5
    assert "](results/study/length-digits-accuracy.png)" in page
    assert {path.name for path in (docs / "results/study").iterdir()} == {
        *("all-runs.csv", "verdicts.csv"),
        *("length-digits-accuracy.png", "length-digits-accuracy.csv"),
    }
    assert "left out" in capsys.readouterr().out
    main([str(runs), "-o", str(docs)])
    assert (docs / "results.md").read_text() == page


def test_a_page_without_its_places_is_left_as_it_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "results.md").write_text("nothing to fill")
    for arguments, message in (
        ([str(tmp_path)], "one place for each of"),
        ([str(tmp_path / "none")], "runs must be in a folder"),
    ):
        with pytest.raises(SystemExit):
            main([*arguments, "-o", str(tmp_path)])
        assert message in capsys.readouterr().err
    assert (tmp_path / "results.md").read_text() == "nothing to fill"
    assert not (tmp_path / "results").exists()


def test_the_published_page_has_all_parts_and_pictures() -> None:
    docs = Path(__file__).parents[1] / "docs"
    text = (docs / "results.md").read_text("utf-8")
    assert sorted(match[2] for match in PLACE.finditer(text)) == sorted([*PARTS, "plane"])
    pictures = re.findall(r"\]\((results/study/[^)]*)\)", text)
    assert len(pictures) > 5
    assert all((docs / picture).is_file() for picture in pictures)
    assert "Not run.\n" not in text


def test_the_command_of_a_recipe_is_what_differs() -> None:
    assert shell_command(Ablations()) == "momos study run ablations --task digits"
    found = Ablations(task="mnist", tuning=2, ingredients=("no scales",))
    assert shell_command(found) == (
        "momos study run ablations --task mnist --set tuning=2 "
        "--set 'ingredients=[\"no scales\"]'"
    )
