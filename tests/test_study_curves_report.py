import json
import re
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from momos.study.report.cells import difference
from momos.study.report.curves import main, parts_of
from momos.study.report.goals import GOALS, compare, smallest
from momos.study.report.lines import TREATMENTS, Line, read_lines
from momos.study.report.markdown import fill
from momos.study.report.metric import METRICS, number
from momos.study.report.points import Point, points_of, reference_of, seeds_of
from momos.study.report.series import envelope, series_of
from momos.study.report.size import LOOKS, metric_against_size
from momos.study.statistics import interval
from momos.study.treatments import PUBLISHED
from momos.study.treatments import TREATMENTS as RUNNABLE

DENSE_BYTES = 866_344
SETTINGS = {"learned": "rate_weight", "quantize_aware": "bits", "prune": "sparsity"}


def raw(
    treatment: str, metric: float, factor: float, seed: int = 0, **others: Any
) -> dict[str, Any]:
    """A line as a run writes it; the factor is its only setting unless some are given."""
    start = "" if treatment == "dense" else "dense-{seed}.pt"
    name = SETTINGS.get(treatment)
    line = {
        "task": "digits",
        "treatment": treatment,
        "settings": {name: factor} if name else {},
        "seed": seed,
        "epochs": 20.0 if start else 40.0,
        "learning_rate": 0.004,
        "start": start,
        "teacher": start,
        "metric_name": "accuracy",
        "metric": metric,
        "file_bytes": round(DENSE_BYTES / factor),
        "dense_bytes": DENSE_BYTES,
        "factor": factor,
        "seconds": 36.0,
        "optimization": {"optimizer": "adamw"},
        "versions": {"momos": "0.1.0", "torch": "2.13.0", "python": "3.11.7"},
        "cores": 2,
    }
    return line | others


def lines_of(*values: dict[str, Any]) -> list[Line]:
    return [Line.of(value) for value in values]


def point(treatment: str, metric: float, factor: float, **others: Any) -> Point:
    return Point((Line.of(raw(treatment, metric, factor, **others)),))


def write(path: Path, *values: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(value) + "\n" for value in values))
    return path


def seeds(treatment: str, metrics: list[float], factor: float, **others: Any) -> list[dict]:
    return [raw(treatment, m, factor, seed, **others) for seed, m in enumerate(metrics)]


DIGITS = [
    *seeds("dense", [0.97, 0.98, 0.98], 1.2),
    *seeds("learned", [0.97, 0.98, 0.98], 20),
    *seeds("learned", [0.97, 0.97, 0.98], 40),
    *seeds("learned", [0.95, 0.95, 0.95], 80),
    *seeds("prune", [0.96, 0.97, 0.97], 10),
    *seeds("quantize_aware", [0.98, 0.98, 0.98], 8),
    *seeds("sampled", [0.5, 0.6, 0.7], 30),
]


def ends(differences: list[float]) -> str:
    """The interval of a mean over seeds, as it is written."""
    return f"[{', '.join(number(end, 2, sign=True) for end in interval(differences))}]"


def rows(table: str, start: str) -> list[list[str]]:
    """The cells of the rows whose first cell is that."""
    cells = [row.strip("| ").split(" | ") for row in table.splitlines()]
    return [row for row in cells if row[0] == start]


def test_treatments_are_those_that_can_be_run() -> None:
    runnable = [name for name in RUNNABLE if name != PUBLISHED]  # its lines are dense
    assert list(TREATMENTS) == runnable == list(LOOKS)


def test_a_row_says_it_all() -> None:
    section = parts_of({"digits": lines_of(*DIGITS)}, [])["digits"]
    (dense,) = rows(section, "dense")
    assert dense == ["dense", "–", "40", "3", "97.67 ± 0.58", "–", "721 953", "1.2"]
    assert rows(section, "learned motifs")[1] == [
        "learned motifs",
        "rate_weight=40",
        "20",
        "3",
        "97.33 ± 0.58",
        f"−0.33 {ends([0, -1, 0])}",
        "21 659",
        "40.0",
    ]
    assert (
        "21 runs, 13 minutes, by the plain loop that was there up to commit 3c590c0; "
        "`momos study run sizes --task digits` is what runs them now. "
        "momos 0.1.0, torch 2.13.0, python 3.11.7, 2 cores, one thread a run." in section
    )


def test_rows_are_sorted_by_treatment_and_size() -> None:
    section = parts_of({"digits": lines_of(*DIGITS[::-1])}, [])["digits"]
    table = section.split("\n\n")[1]
    factors = [row.rsplit(" ", 2)[1] for row in table.splitlines()[2:]]
    assert factors == ["1.2", "8.0", "10.0", "30.0", "20.0", "40.0", "80.0"]


def test_missing_seeds_are_left_out_of_the_difference() -> None:
    dense, learned = points_of(
        lines_of(
            *seeds("dense", [0.90, 0.80], 1.2),
            raw("learned", 0.79, 20, seed=1),
            raw("learned", 0.99, 20, seed=7),
        )
    )
    found = learned.difference(dense)
    assert found is not None
    assert found.mean == pytest.approx(-1)
    assert found.n == 1
    assert "[" not in difference(learned, dense)
    assert learned.difference(point("dense", 0.9, 1.2, seed=3)) is None
    assert seeds_of([dense, learned, point("learned", 0.9, 30)]) == "1–2"


def test_a_point_that_lacks_a_seed_reaches_nothing() -> None:
    lines = lines_of(*DIGITS, *seeds("learned", [0.97, 0.98], 70))
    points = points_of(lines)
    learned = [each for each in points if each.treatment == "learned"]
    found = smallest(learned, reference_of(points), loss=0.5)
    assert found is not None
    assert found.factor == pytest.approx(40, rel=1e-3)
    (must, aim) = rows(parts_of({"digits": lines}, [])["summary"], "digits")
    assert must[1:6] == [
        "must",
        "35",
        "0.5 points",
        "yes: 40.0",
        f"−0.33 {ends([0, -1, 0])} points",
    ]
    assert must[-1] == "8.0, QAT + entropy coding"
    assert aim[1:5] == ["aim", "60", "0.5 points", "no: 40.0"]


def test_no_file_may_hold_the_accuracy() -> None:
    lines = lines_of(raw("dense", 0.98, 1.2), raw("learned", 0.9, 20))
    (must, _) = rows(parts_of({"digits": lines}, [])["summary"], "digits")
    assert must[4] == "no file"


def test_bits_per_character_are_compared_in_per_cent_and_fewer_are_better() -> None:
    text = {"task": "shakespeare", "metric_name": "bits per character"}
    lines = lines_of(
        raw("dense", 2.0, 1.2, **text),
        raw("learned", 2.03, 32, **text),
        raw("learned", 2.05, 64, **text),
        raw("prune", 2.02, 32, **text),
    )
    parts = parts_of({"shakespeare": lines}, [])
    must, aim = rows(parts["summary"], "shakespeare")
    assert must[3:6] == ["2 %", "yes: 32.0", "+1.50 %"]
    assert aim[4] == "yes: 32.0"
    learned = rows(parts["shakespeare"], "learned motifs")
    assert [row[5] for row in learned] == ["+1.50", "+2.50"]
    behind = rows(parts["shakespeare"], "pruning + lossless coder")[-1]
    assert behind[3:] == ["2.020", "2.030", "0.50", "–"]


def test_the_envelope_holds_what_nothing_beats() -> None:
    kept = [(4.0, 0.9), (8.0, 0.85), (16.0, 0.7)]
    beaten = [(4.0, 0.8), (7.0, 0.85), (15.0, 0.7)]
    points = [point("prune", metric, factor) for factor, metric in kept + beaten]
    found = [(round(p.factor), p.lines[0].metric) for p in envelope(points)]
    assert found == kept


def test_only_settings_that_compete_have_an_envelope() -> None:
    worse = [point("prune", 0.8, 4), point("prune", 0.9, 8)]
    (alone,) = series_of(worse)
    assert alone.line == alone.points
    options = [{"bits": 8, "scale": "max"}, {"bits": 4, "scale": "learned"}]
    (competing,) = series_of(
        [
            point("quantize_aware", p.lines[0].metric, round(p.factor), settings=setting)
            for p, setting in zip(worse, options, strict=True)
        ]
    )
    assert competing.competing
    assert [round(p.factor) for p in competing.line] == [8]


def test_the_learned_line_is_linear_in_the_logarithm_of_size() -> None:
    (series,) = series_of([point("learned", 0.9, 10), point("learned", 0.8, 40)])
    assert series.at(20) == pytest.approx(85, abs=1e-2)
    assert series.at(2) == pytest.approx(90)
    assert series.at(41) is None


def test_points_above_the_learned_line_are_listed() -> None:
    points = points_of(lines_of(*DIGITS, raw("prune", 0.4, 90), raw("prune", 0.4, 4)))
    compared, beyond = compare(series_of(points))
    gains = [(each.point.treatment, round(each.gain, 2)) for each in compared]
    assert gains[:2] == [("quantize_aware", -0.33), ("prune", 1.0)]
    assert [round(each.factor) for each in beyond] == [90]
    section = parts_of({"digits": [line for p in points for line in p.lines]}, [])["digits"]
    assert "above 2 of 3 points" in section
    assert "; leads beyond chance over seeds (95 % intervals): 2." in section
    assert "no learned file is as small: 1." in section
    assert rows(section, "QAT + entropy coding")[-1] == [
        "QAT + entropy coding",
        "bits=8",
        "8.0",
        "98.00",
        "97.67",
        "0.33",
        "–",
    ]
    better = lines_of(*DIGITS, *seeds("learned", [0.98, 0.99, 0.99], 50))
    section = parts_of({"digits": better}, [])["digits"]
    assert rows(section, "QAT + entropy coding")[-1][-1] == "50.0"


def test_the_smallest_lead_is_named() -> None:
    lines = lines_of(
        *seeds("dense", [0.97, 0.98, 0.98], 1.2),
        *seeds("learned", [0.96, 0.97, 0.98], 40),
        *seeds("prune", [0.94, 0.95, 0.97], 10),
        *seeds("sampled", [0.95, 0.96, 0.97], 8),
    )
    compared, _ = compare(series_of(points_of(lines)))
    found = [(each.point.treatment, each.beyond_chance) for each in compared]
    assert found == [("sampled", True), ("prune", False)]
    section = parts_of({"digits": lines}, [])["digits"]
    assert (
        "The smallest lead is 1.00 points, over sampled MoMos (the paper's), –." in section
    )


def test_without_three_seeds_there_is_no_chance() -> None:
    points = [point("learned", 0.9, 10), point("prune", 0.8, 10)]
    (compared,), _ = compare(series_of(points))
    assert compared.beyond_chance is None
    (compared,), _ = compare(series_of([points[0], point("prune", 0.8, 10, seed=5)]))
    assert compared.beyond_chance is None


def test_runs_of_other_epochs_are_compared_with_their_own() -> None:
    points = [
        point("learned", 0.9, 10, epochs=3.0),
        point("learned", 0.5, 10, epochs=0.25),
        point("prune", 0.6, 10, epochs=0.25),
        point("sampled", 0.6, 10, epochs=1.0),
    ]
    series = series_of(points)
    assert len(series) == 4
    compared, beyond = compare(series)
    assert [round(each.gain) for each in compared] == [-10]
    assert [each.treatment for each in beyond] == ["sampled"]


def test_how_else_a_run_was_trained_stands_with_its_settings() -> None:
    lines = lines_of(
        raw("dense", 0.9, 1.2, learning_rate=1e-9, epochs=0.01),
        raw("learned", 0.9, 20),
        raw("learned", 0.9, 20, learning_rate=0.001, teacher=""),
        raw("prune", 0.9, 20, start="", teacher=""),
        raw("dense", 0.9, 1.2, start="dense-{seed}.pt", teacher="dense-{seed}.pt"),
    )
    section = parts_of({"digits": lines}, [])["digits"]
    assert [row[1] for row in rows(section, "dense")] == [
        "as published",
        "learning rate 0.004",
    ]
    assert [row[1] for row in rows(section, "learned motifs")] == [
        "rate_weight=20 learning rate 0.004",
        "rate_weight=20 learning rate 0.001 no teacher",
    ]
    assert rows(section, "pruning + lossless coder")[0][1] == "sparsity=20 from scratch"


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ('{"task": "digits", ', "Expecting"),
        ("[1]", r"a result must be an object, got \[1\]"),
        ("{}", r"a result must have 'task', got \[\]"),
        (
            json.dumps(raw("distil", 0.9, 2)),
            "treatment must be one of dense, .*, learned, got 'distil'",
        ),
        (json.dumps(raw("learned", 0.9, 2, seed="1")), "seed must be int, got '1'"),
        (json.dumps(raw("learned", float("nan"), 2)), "metric must be finite, got nan"),
        (
            json.dumps(raw("learned", 0.9, 2, file_bytes=0)),
            "file_bytes and dense_bytes must be at least 1",
        ),
        (
            json.dumps(raw("learned", 0.9, 20)),
            "a run must be there once, got that of line 1",
        ),
        (json.dumps(raw("learned", 0.9, 30, task="mnist")), "task and metric must be"),
    ],
)
def test_broken_lines_are_named(tmp_path: Path, broken: str, words: str) -> None:
    path = write(tmp_path / "digits.jsonl", raw("learned", 0.9, 20), raw("prune", 0.9, 9))
    path.write_text(path.read_text() + broken + "\n")
    with pytest.raises(ValueError, match=f"{re.escape(str(path))}:3: {words}"):
        read_lines(path)


def test_there_must_be_one_dense_reference() -> None:
    with pytest.raises(ValueError, match="trained from scratch in one way, got 0"):
        reference_of([point("learned", 0.9, 20)])
    two = [point("dense", 0.9, 1.2), point("dense", 0.9, 1.2, epochs=3.0)]
    with pytest.raises(ValueError, match="trained from scratch in one way, got 2"):
        reference_of(two)


def test_an_unknown_metric_is_named() -> None:
    with pytest.raises(
        ValueError, match=r"metric_name must be one of accuracy, .*got 'loss'"
    ):
        _ = point("learned", 0.9, 20, metric_name="loss").metric


def test_ablations_are_compared_with_their_reference() -> None:
    group = {"group": "digits", "settings": {"rate_weight": 1}}
    lines = lines_of(
        *seeds("learned", [0.95, 0.95], 30, ablation="no scales", **group),
        *seeds("learned", [0.96, 0.97], 40, ablation="reference", **group),
        raw("learned", 0.5, 10, ablation="alone", group="other"),
    )
    section = parts_of({"digits": lines_of(*DIGITS)}, lines)["ablations"]
    assert (
        section.index("### digits") < section.index("| reference") < section.index("no sc")
    )
    assert rows(section, "reference")[0][4:] == [
        "96.50 ± 0.71",
        "–",
        "21 659",
        "40.0",
        "–",
        "−0.83",
    ]
    assert rows(section, "no scales")[0][4:9] == [
        "95.00 ± 0.00",
        "−1.50",
        "28 878",
        "30.0",
        "1.33",
    ]
    assert rows(section, "alone")[0][5] == "–"


def test_what_was_not_run_says_so() -> None:
    parts = parts_of({}, [])
    assert {parts[name] for name in (*GOALS, "ablations")} == {"Not run.\n"}
    assert parts["summary"].count("not run") == 2 * len(GOALS)


def test_only_places_of_a_page_change() -> None:
    page = "a\n<!-- generated: x -->\nold\n<!-- end -->\nb\n<!-- generated: y -->\n<!-- end -->"
    filled = fill(page, {"x": "1\n", "y": "2\n"})
    assert filled.startswith("a\n<!-- generated: x -->\n\n1\n\n<!-- end -->\nb\n")
    assert fill(filled, {"x": "1\n", "y": "2\n"}) == filled
    with pytest.raises(ValueError, match="one place for each of x, z, got x, y"):
        fill(page, {"x": "", "z": ""})


def test_the_page_has_every_place() -> None:
    page = Path(__file__).parents[1] / "docs/sizes.md"
    assert fill(page.read_text("utf-8"), parts_of({}, []))


def test_numbers_have_true_minus_signs() -> None:
    assert [number(value, 1, sign=True) for value in (-1, 0, 1)] == ["−1.0", "+0.0", "+1.0"]
    assert number(-0.001, 2) == "0.00"


def test_a_gain_and_the_value_of_a_gain_are_inverse() -> None:
    for metric in METRICS.values():
        assert metric.gain(metric.at_gain(1.5, 2.3), 2.3) == pytest.approx(1.5)
    assert METRICS["accuracy"].amount(1.0) == "1 point"


def legend_of(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_the_picture_shows_all_treatments_and_marks_what_is_below_it() -> None:
    figure = metric_against_size(points_of(lines_of(*DIGITS)))
    assert legend_of(figure) == [
        f"{label} (n = 3)" for label in [*TREATMENTS.values()][::-1]
    ]
    (axes,) = figure.axes
    texts = [text.get_text() for text in axes.texts]
    assert texts[:3] == ["dense 97.67 %", "dense − 0.5 points", "60.0"]
    assert axes.get_title().startswith("digits, 216 586 weights: dense 40 epochs, then 20")
    assert axes.get_ylim()[0] < 95 - 0.1  # the smallest learned file is in sight


def test_longer_training_has_a_line_of_its_own() -> None:
    longer = raw("learned", 0.98, 40, epochs=60.0)
    figure = metric_against_size(points_of(lines_of(*DIGITS, longer)))
    assert "learned motifs, 60 epochs (n = 1)" in legend_of(figure)


def test_fewer_bits_are_upwards() -> None:
    text = {"task": "shakespeare", "metric_name": "bits per character"}
    bits = [point("dense", 2.0, 1.2, **text), point("learned", 2.1, 20, **text)]
    low, high = metric_against_size(bits).axes[0].get_ylim()
    assert low > 2.1 > 2.0 > high


def test_tables_and_pictures_are_written(tmp_path: Path) -> None:
    folder = tmp_path / "results"
    write(folder / "digits.jsonl", *DIGITS)
    write(
        folder / "resnet20.jsonl",
        raw("dense", 0.9, 1.2, task="resnet20", learning_rate=1e-9),
    )
    write(folder / "ablations.jsonl", raw("learned", 0.9, 20, ablation="reference"))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    page = tmp_path / "sizes.md"
    places = [*GOALS, "summary", "ablations"]
    page.write_text("".join(f"<!-- generated: {n} -->\n<!-- end -->\n" for n in places))
    main(["-o", str(tmp_path)])
    after = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert before.items() <= after.items()
    assert after.keys() - before.keys() == {"digits.png", "resnet20.png"}
    assert imread(folder / "digits.png").std() > 0.05
    once = page.read_text()
    assert "learned motifs" in once
    main(["-o", str(tmp_path)])
    assert page.read_text() == once
