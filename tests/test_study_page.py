from dataclasses import replace
from pathlib import Path

import pytest
import torch
from made_up import finished
from study_runs import MEASURES, NUM_WEIGHTS, row
from torch import nn

import momos
from momos.study.analysis.claims import (
    CLAIMS,
    Claim,
    Judgement,
    Verdict,
    claims,
    judgements,
)
from momos.study.analysis.cohort import subjects_of
from momos.study.cell import Cell
from momos.study.report.accuracy import accuracy_against_capacity
from momos.study.report.course import chosen
from momos.study.report.listings import settings_of, table_of_claims, table_of_runs
from momos.study.report.tensors import colours_of, tiles_of
from momos.study.store import (
    FAILURE,
    HISTORY,
    RESULT,
    begin,
    read_all,
    write_json,
    write_lines,
)
from networks import projected

HOSTILE = '<script>alert("settings")</script>'
EPOCHS = (0, 1, 2, 4, 8, 16)
ENVIRONMENT = {
    "versions": {"momos": "0.1.0", "torch": "2.13.0"},
    "commit": "abc1234",
    "machine": {"processor": "made up", "cores": 2},
    "when": "2026-11-26T00:00:00+00:00",
}


def build() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


def history(cell: Cell, metric: float, share: float, usage: list[int]) -> list[dict]:
    lines = []
    for epoch in EPOCHS:
        progress = 1 - 0.7**epoch
        line = {"epoch": epoch, "train_loss": 2.3 * 0.8**epoch if epoch else None}
        line["metric"] = 0.1 + (metric - 0.1) * progress
        if cell.measure_every:
            rows = [row(n, 1 - (1 - share) * progress, seed=cell.seed) for n in MEASURES]
            kept = ("value", "bits_per_weight", "shuffled_mean", "shuffled_deviation")
            line["measures"] = {r["name"]: {k: r[k] for k in kept} for r in rows}
            if usage:
                line["usage"] = [round(count ** (0.8 + epoch / 40)) for count in usage]
        lines.append(line)
    return lines


def write_run(
    place: Path,
    cell: Cell,
    *,
    metric: float,
    bits: float,
    share: float,
    mosaic: bool = False,
) -> Path:
    """A finished run, with a real mosaic file if wanted."""
    folder = place / cell.folder
    begin(folder, cell, recipe="made-up", environment=ENVIRONMENT)
    usage: list[int] = []
    length = bits * NUM_WEIGHTS
    if mosaic:
        network = projected(build, seed=cell.seed, num_motifs=40)
        saved = momos.save(network, folder / "network.momos")
        usage = sorted(momos.Mosaic.of(network).usage().tolist(), reverse=True)
        length = 8 * saved.num_bytes
    write_lines(folder / HISTORY, history(cell, metric, share, usage))
    sampled = cell.treatment in ("sampled", "learned")
    bound = {"bound": 1.1 * length, "entropy": 1.05 * length} if sampled else {}
    result = {
        "metric_name": "accuracy",
        "metric": metric,
        "higher_is_better": True,
        "num_weights": NUM_WEIGHTS,
        "file": "network.momos" if mosaic else "network.zst",
        "lengths": {"dense": 32 * NUM_WEIGHTS, "file": length} | bound,
        "measures": [row(name, share, seed=cell.seed) for name in MEASURES],
        "seconds": 12.5 + cell.seed,
    }
    write_json(folder / RESULT, result)
    return folder


def write_runs(place: Path, *, seeds: int = 3) -> Path:
    """A study of every treatment; also one run that failed, and a damaged one."""
    for seed in range(seeds):
        lift = 0.004 * seed * (-1) ** seed
        dense = Cell(task="digits", seed=seed, measure_every=1)
        write_run(place, dense, metric=0.975 + lift, bits=29.5, share=0.93)
        for sparsity, bits, metric in (
            (0.8, 6.1, 0.972),
            (0.95, 2.2, 0.964),
            (0.98, 1.1, 0.93),
        ):
            cell = Cell(
                task="digits", treatment="prune", seed=seed, settings={"to": sparsity}
            )
            write_run(place, cell, metric=metric + lift, bits=bits, share=0.6)
        for size in (2, 4, 8):
            for capacity in (0.01, 0.02, 0.05, 0.1):
                settings = {"block_size": size, "capacity": capacity}
                cell = Cell(
                    task="digits", treatment="sampled", seed=seed, settings=settings
                )
                metric = 0.978 - 0.002 * size - 0.0004 * size / capacity + lift / size
                bits = 20 / size + 30 * capacity
                write_run(place, cell, metric=metric, bits=bits, share=0.5)
        settings = {"block_size": 4, "rate_weight": 0.5}
        cell = Cell(
            task="digits",
            treatment="learned",
            seed=seed,
            settings=settings,
            measure_every=1,
        )
        write_run(place, cell, metric=0.976 + lift, bits=0, share=0.35, mosaic=True)
    return place


def write_broken(place: Path) -> None:
    """A run that failed, one that goes on, a damaged one, and one with a hostile setting."""
    failed = Cell(task="digits", seed=90)
    begin(place / failed.folder, failed, recipe="made-up", environment=ENVIRONMENT)
    (place / failed.folder / FAILURE).write_text("Traceback\nMemoryError: <b>no memory</b>")
    goes_on = Cell(task="digits", seed=91)
    begin(place / goes_on.folder, goes_on, recipe="made-up", environment=ENVIRONMENT)
    damaged = Cell(task="digits", seed=92)
    folder = write_run(place, damaged, metric=0.9, bits=8, share=0.9)
    (folder / RESULT).write_text('{"metric": ')
    hostile = Cell(task="digits", treatment="prune", settings={"to": HOSTILE})
    write_run(place, hostile, metric=0.5, bits=9, share=0.9)


def write_plane(place: Path) -> None:
    ends = [-1.0, -0.5, 0.0, 0.5, 1.0, 1.5]
    plane = {
        "title": "Loss through dense and mosaic networks, digits, seed 0",
        "x": ends,
        "y": ends[1:],
        "loss": [[0.05 + x * x * (x - 1) ** 2 + y * y for x in ends] for y in ends[1:]],
        "points": {"dense": [0.0, 0.0], "mosaic": [1.0, 0.0], "start": [0.4, 1.2]},
        "lines": [{"from": "dense", "to": "mosaic", "loss": [0.05, 0.1125, 0.05]}],
        "unit": "nats",
    }
    (place / "plane").mkdir()
    write_json(place / "plane" / "plane.json", plane)


def test_runs_that_differ_in_seeds_or_measuring_are_one_group(tmp_path: Path) -> None:
    first = Cell(task="digits", treatment="prune", settings={"to": 0.5})
    cells = [
        first,
        replace(first, seed=1, start=Cell(task="digits", seed=1)),
        replace(first, seed=2, start=Cell(task="digits", seed=2)),
        replace(first, measure_every=1),
    ]
    for cell in cells:
        write_run(tmp_path, cell, metric=0.9, bits=8, share=0.9)
    subject, *others = subjects_of(read_all([tmp_path])[0])
    assert not others
    by_label = {cohort.label: cohort for cohort in subject.cohorts}
    assert set(by_label) == {
        "prune to=0.5 (from scratch)",
        "prune to=0.5 (trained further)",
    }
    scratch, further = by_label.values()
    assert [run.cell.measure_every for run in scratch.runs.values()] == [1]
    assert [*further.runs] == [1, 2]


def test_runs_trained_in_other_ways_are_other_groups_and_say_so(tmp_path: Path) -> None:
    plain = Cell(task="digits")
    others = ({"validation": 0.1, "keep": "best"}, {"precision": "bfloat16"})
    for cell in (plain, *(replace(plain, **options) for options in others)):
        write_run(tmp_path, cell, metric=0.9, bits=8, share=0.9)
    runs, _ = read_all([tmp_path])
    (subject,) = subjects_of(runs)
    assert [cohort.label for cohort in subject.cohorts] == [
        *("dense", "dense precision=bfloat16", "dense validation=0.1 keep=best")
    ]
    assert subject.dense is subject.cohorts[0]
    assert {settings_of(run) for run in runs} == {
        *("–", "precision=bfloat16", "validation=0.1, keep=best")
    }


def judged(verdicts: dict[str, str]) -> Judgement:
    """Of claim 2, from the first letters of the verdicts of each case."""
    letters: dict[str, Verdict] = {
        "s": "supported",
        "n": "not supported",
        "u": "undecided",
    }
    found = [
        Claim(2, *case.split(": "), letters[letter], f"measure {n}", "evidence")
        for case, row in verdicts.items()
        for n, letter in enumerate(row)
    ]
    (only,) = judgements(found)
    assert only.text == f"{CLAIMS[2].capitalize()}.".replace("momos", "MoMos")
    return only


@pytest.mark.parametrize(
    ("verdicts", "verdict", "words"),
    [
        ({"digits: a": "s"}, "supported", "The only comparison supports it."),
        ({"digits: a": "nn"}, "not supported", "All 2 comparisons do not."),
        ({"digits: a": "su"}, "undecided", "Of 2 comparisons, 1 supports it and 1 is un"),
        (
            {"digits: a": "ss", "digits: b": "sn"},
            "divided",
            "Of 4 comparisons, 3 support it and 1 does not. It holds by every measure for a.",
        ),
        (
            {"digits: a": "ss", "text: b": "ssu"},
            "supported",
            "Of 5 comparisons, 4 support it and 1 is undecided. It holds by every measure for "
            "digits: a.",
        ),
        (
            {"digits: a": "sn", "digits: b": "uu"},
            "divided",
            "Of 4 comparisons, 1 supports it, 1 does not and 2 are undecided. It holds by "
            "every measure for no treatment.",
        ),
        (
            {f"digits: {name}": "s" for name in "abcd"} | {"digits: e": "u"},
            "supported",
            "It holds by every measure for a; b and 2 more.",
        ),
    ],
)
def test_a_claim_is_judged_in_words(
    verdicts: dict[str, str], verdict: str, words: str
) -> None:
    found = judged(verdicts)
    assert found.verdict == verdict
    assert words in found.words


def test_a_claim_that_no_run_is_about_says_so() -> None:
    found = judgements(claims([finished("prune", settings={"to": 0.5})]))
    assert [claim.number for claim in found] == [1, 2, 3]
    assert found[0].verdict == "undecided"
    assert found[0].words == "No finished run is about it."
    assert judgements([]) == []


def test_no_row_of_the_verdicts_repeats_the_sentence_of_its_claim() -> None:
    runs = [finished(t, measures={"signs": 9.0}) for t in ("dense", "prune", "learned")]
    table = table_of_claims(claims(runs))
    shown = [entry.text for row in table.rows for entry in row]
    assert not [text for text in shown for claim in CLAIMS.values() if claim in text]
    assert {row[1].text for row in table.rows} == {
        "digits: dense",
        "digits: prune",
        "digits: learned",
    }


def test_links_of_runs_are_relative_and_lead_there(tmp_path: Path) -> None:
    cell = Cell(task="digits")
    folder = write_run(tmp_path / "some runs", cell, metric=0.9, bits=8, share=0.9)
    runs, _ = read_all([tmp_path])
    link = table_of_runs(runs, tmp_path / "report").rows[0][-1].link
    assert link == f"../some%20runs/{folder.name}/"


@pytest.mark.parametrize("size", [1, 3, 4])
def test_tiles_have_the_colours_of_their_motifs(size: int) -> None:
    mosaic = momos.Mosaic.of(projected(build, block_size=size, num_motifs=12))
    place = mosaic.layout.placements[0]
    tiles, motifs = tiles_of(mosaic, place)
    assert tiles.shape == (32, 64, 3)
    assert torch.equal(tiles, colours_of(mosaic)[motifs])
    flat = mosaic.indices[place.start : place.stop].repeat_interleave(size)[: 32 * 64]
    assert torch.equal(motifs.flatten(), flat.long())
    torch.testing.assert_close(colours_of(mosaic)[0], torch.ones(3), atol=1e-3, rtol=0)


def test_epochs_are_chosen_from_first_to_last() -> None:
    assert chosen([7.0]) == [7.0]
    assert chosen([0.0, 1.0, 2.0]) == [0.0, 1.0, 2.0]
    found = chosen([float(epoch) for epoch in range(101)])
    assert found == [0.0, 25.0, 50.0, 75.0, 100.0]


def test_what_was_trained_for_longer_has_a_capacity_picture_of_its_own(
    tmp_path: Path,
) -> None:
    for epochs in (3, 9):
        write_run(tmp_path, Cell(task="digits", epochs=epochs), metric=0.9, bits=8, share=1)
        for capacity in (0.01, 0.1):
            settings = {"block_size": 2, "capacity": capacity}
            cell = Cell(
                task="digits", treatment="sampled", settings=settings, epochs=epochs
            )
            write_run(tmp_path, cell, metric=0.01 * epochs, bits=8, share=0.9)
    (subject,) = subjects_of(read_all([tmp_path])[0])
    figures = accuracy_against_capacity(subject)
    assert sorted(figure.rows[0][3] for figure in figures) == pytest.approx([3, 9])
    for figure in figures:
        *sampled, dense = figure.rows
        assert [row[:3] for row in sampled] == [(2, 0.01, 1), (2, 0.1, 1)]
        assert dense[:3] == ("dense", None, 1)
