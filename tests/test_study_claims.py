"""A claim is what its interval says, and says so."""

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up import finished, row

from momos.study.analysis.claims import Claim, claims
from momos.study.analysis.metric import metric_difference
from momos.study.cell import Cell
from momos.study.store import Finished

SEEDS = range(5)


def several(treatment: str = "dense", value: float = 10.0, **others: Any) -> list[Finished]:
    """Five runs whose measure scatters by about one in a thousand."""
    metric = others.pop("metric", 0.9)
    return [
        finished(
            treatment,
            seed,
            measures=(row("signs", value * (1 + 1e-3 * (-1) ** seed)),),
            metric=metric + 1e-4 * (-1) ** seed,
            **others,
        )
        for seed in SEEDS
    ]


def of(found: Sequence[Claim], number: int, measure: str = "signs") -> Claim:
    (claim,) = (c for c in found if c.number == number and c.measure.startswith(measure))
    return claim


# Claim 1


@pytest.mark.parametrize(
    ("value", "verdict"),
    [(19.0, "supported"), (20.0, "undecided"), (21.0, "not supported")],
)
def test_training_simplifies_where_the_interval_says_so(value, verdict):
    claim = of(claims(several(value=value)), 1)
    assert claim.verdict == verdict
    assert claim.case == "digits: dense"
    assert "n = 5 seeds" in claim.evidence


@given(st.lists(st.floats(1.0, 100.0), min_size=3, max_size=6))
@settings(max_examples=25)
def test_a_verdict_is_that_of_the_interval_it_tells(values):
    runs = [finished(seed=seed, measures={"signs": v}) for seed, v in enumerate(values)]
    claim = of(claims(runs), 1)
    told = re.search(r"95 % interval (\S+) to (\S+),", claim.evidence)
    assert told is not None
    low, high = map(float, told.groups())
    if claim.verdict == "supported":
        assert high <= 1
    elif claim.verdict == "not supported":
        assert low >= 1
    else:
        assert low <= 1 <= high


def test_equal_values_are_not_simpler():
    runs = [finished(seed=seed, measures={"signs": 20.0}) for seed in SEEDS]
    assert of(claims(runs), 1).verdict == "not supported"


def test_the_evidence_is_a_sentence_with_the_effect_split():
    runs = [finished(seed=seed, measures={"signs": 8.0}) for seed in SEEDS]
    assert of(claims(runs), 1).evidence == (
        "0.4000 times that of the initialization (95 % interval 0.4000 to 0.4000, "
        "n = 5 seeds); arrangement × 0.8000, value distribution × 0.5000."
    )


@pytest.mark.parametrize("count", [1, 2])
def test_few_seeds_decide_nothing_and_say_so(count):
    runs = [finished(seed=seed, measures={"signs": 1.0}) for seed in range(count)]
    claim = of(claims(runs), 1)
    assert claim.verdict == "undecided"
    assert "undecided with fewer than 3" in claim.evidence
    assert "interval" not in claim.evidence


def test_trainings_that_differ_are_told_apart():
    runs = several(weight_decay=0.0) + several(value=19.0, weight_decay=0.01, epochs=3)
    cases = [claim.case for claim in claims(runs) if claim.number == 1]
    assert cases == [
        "digits: dense weight_decay=0",
        "digits: dense weight_decay=0.01, 3 epochs",
    ]


def test_dense_networks_from_trained_weights_say_nothing_of_initialization():
    start = Cell(task="digits")
    found = claims(several(start=start, teacher=start))
    assert [claim.evidence for claim in found] == 3 * [
        "No finished run is about it.",
    ]


def test_codes_and_scores_are_told_apart():
    rows = (
        row("signs", 10.0),
        row("BDM", 10.0, kind="score", unit="score"),
        row("gzip rate", 10.0, kind="score", unit="ratio"),
    )
    found = claims([finished(seed=seed, measures=rows) for seed in SEEDS])
    assert [c.measure for c in found if c.number == 1] == [
        "signs (code, bits)",
        "BDM (score)",
        "gzip rate (score, turned over)",
    ]


def test_a_higher_rate_of_compression_is_simpler():
    rates = (row("gzip rate", 40.0, kind="score", unit="ratio"),)
    claim = of(claims([finished(seed=seed, measures=rates) for seed in SEEDS]), 1, "gzip")
    assert claim.verdict == "supported"
    assert claim.evidence.startswith("0.5000 times")
    assert "arrangement × 0.2500, value distribution × 2.0000" in claim.evidence


def test_rows_of_single_tensors_are_no_measures_of_the_network():
    rows = (row("signs", 1.0, tensor="0.weight"), row("signs", 10.0))
    found = claims([finished(seed=seed, measures=rows) for seed in SEEDS])
    assert of(found, 1).evidence.startswith("0.5000")


def test_a_measure_without_a_value_says_why():
    claim = of(claims([finished(measures={"signs": None})]), 1)
    assert claim.verdict == "undecided"
    assert claim.evidence == (
        "No seed has it both trained and at initialization (too few weights)."
    )


def test_seeds_without_a_value_are_told():
    runs = [finished(seed=seed, measures={"signs": 10.0}) for seed in range(3)]
    runs += [finished(seed=3, measures={"signs": None})]
    assert "n = 3 seeds" in of(claims(runs), 1).evidence
    assert "1 of 4 shared seeds left out (too few weights)" in of(claims(runs), 1).evidence


# Claims 2 and 3


@pytest.mark.parametrize(("treatment", "number"), [("prune", 2), ("sampled", 3)])
@pytest.mark.parametrize(
    ("value", "verdict"),
    [(9.0, "supported"), (10.0, "not supported"), (11.0, "not supported")],
)
def test_treated_networks_are_compared_with_dense_ones_seed_by_seed(
    treatment, number, value, verdict
):
    claim = of(claims(several() + several(treatment, value)), number)
    assert claim.verdict == verdict
    assert f"{value / 10:.4f} times that of the dense network" in claim.evidence
    assert claim.case == f"digits: {treatment}"


def test_the_file_length_is_one_of_the_measures():
    found = claims(several() + several("learned", 9.0, file=2_600.0))
    claim = of(found, 3, "file length")
    assert claim.measure == "file length (code, bits)"
    assert claim.verdict == "supported"
    assert claim.evidence.startswith("0.1000 times that of the dense network")


def test_the_order_of_runs_and_how_often_they_were_measured_do_not_matter():
    runs = several(measure_every=5) + several("prune", 9.0)
    found = claims(runs)
    turned = claims([*runs[:5][::-1], *runs[5:][::-1]])
    assert found == turned
    assert of(found, 2).verdict == "supported"


def test_mosaics_that_lose_too_much_are_not_simpler_at_comparable_accuracy():
    claim = of(claims(several() + several("sampled", 9.0, metric=0.88)), 3)
    assert claim.verdict == "not supported"
    assert "accuracy −2.00 points (−2.00 to −2.00), not comparable" in claim.evidence


def test_mosaics_that_win_are_comparable():
    claim = of(claims(several() + several("sampled", 9.0, metric=0.95)), 3)
    assert claim.verdict == "supported"
    assert "accuracy +5.00 points" in claim.evidence


def test_a_loss_that_is_not_excluded_leaves_it_undecided():
    treated = [
        finished("sampled", seed, metric=0.9 - 0.002 * seed, measures={"signs": 5.0})
        for seed in SEEDS
    ]
    claim = of(claims(several() + treated), 3)
    assert claim.verdict == "undecided"
    assert "a loss of more than 0.5 points not excluded" in claim.evidence


@pytest.mark.parametrize(
    ("metric", "verdict"),
    [(2.03, "supported"), (1.5, "supported"), (2.05, "not supported")],
)
def test_bits_per_character_may_grow_by_two_percent(metric, verdict):
    dense = several(metric=2.0, higher_is_better=False)
    treated = several("learned", 9.0, metric=metric, higher_is_better=False)
    assert of(claims(dense + treated), 3).verdict == verdict


def test_what_compressors_lose_is_told_without_a_judgement():
    claim = of(claims(several() + several("prune", 9.0, metric=0.5)), 2)
    assert claim.verdict == "supported"
    assert "accuracy −40.00 points" in claim.evidence
    assert "comparable" not in claim.evidence


def test_a_metric_that_is_no_number_leaves_it_undecided():
    treated = several("sampled", 9.0)[:4]
    treated += [finished("sampled", 4, metric=math.nan, measures={"signs": 9.0})]
    claim = of(claims(several() + treated), 3)
    assert claim.verdict == "undecided"
    assert "accuracy must be finite, got nan for seed 4" in claim.evidence


def test_a_distilled_network_is_compared_with_its_teacher_in_total():
    teacher = Cell(task="digits")
    student = several(
        value=1.0, network="mlp:8", teacher=teacher, num_weights=100, file=3_000.0
    )
    claim = of(claims(several() + student), 2)
    assert claim.verdict == "supported"
    assert "0.1000 times that of its teacher" in claim.evidence
    assert "value distribution and size × 1.0000" in claim.evidence
    assert (
        "totals are compared, of 100 weights and of 1000 in its teacher" in claim.evidence
    )


def test_without_dense_networks_trained_likewise_it_is_undecided():
    (claim,) = (c for c in claims(several("prune", epochs=7)) if c.number == 2)
    assert (claim.verdict, claim.measure) == ("undecided", "none")
    assert claim.evidence == "No dense networks trained in the same way have finished."


def test_tasks_are_not_mixed():
    runs = several(task="one") + several("prune", 9.0, task="two")
    assert {c.verdict for c in claims(runs) if c.number == 2} == {"undecided"}


def test_without_a_shared_seed_it_is_undecided():
    pruned = [finished("prune", seed, measures={"signs": 1.0}) for seed in (7, 8, 9)]
    claim = of(claims(several() + pruned), 2)
    assert claim.verdict == "undecided"
    assert claim.evidence == "No seed is shared with the dense network."


def test_measures_that_dense_networks_have_not_are_left_to_the_mosaic():
    rows = (row("mosaic, bound", 1.0), row("signs", 9.0))
    treated = [finished("sampled", seed, measures=rows) for seed in SEEDS]
    measures = [c.measure for c in claims(several() + treated) if c.number == 3]
    assert measures == ["file length (code, bits)", "signs (code, bits)"]


def test_a_measure_that_treated_networks_lack_is_undecided():
    treated = [finished("prune", seed) for seed in SEEDS]
    claim = of(claims(several() + treated), 2)
    assert claim.verdict == "undecided"
    assert claim.evidence == (
        "No seed has it both here and in the dense network (not measured, or 0)."
    )


@pytest.mark.parametrize("runs", [[], several()])
def test_every_claim_has_a_row(runs):
    found = claims(runs)
    assert [claim.number for claim in found] == [1, 2, 3]
    nothing = "No finished run is about it."
    assert found[2] == Claim(3, "", "", "undecided", "none", nothing)


def test_the_metric_is_compared_once_whatever_the_number_of_measures(monkeypatch):
    compared = []

    def counting(first, second):
        compared.append(second)
        return metric_difference(first, second)

    monkeypatch.setattr("momos.study.analysis.claims.metric_difference", counting)
    measures = {"signs": 10.0, "codes": 4.0}
    runs = [
        finished(treatment, seed, measures=measures)
        for seed in SEEDS
        for treatment in ("dense", "prune")
    ]
    assert sum(claim.number == 2 for claim in claims(runs)) == 3  # with the file length
    assert len(compared) == 1


def test_measures_without_shuffles_are_not_split():
    rows = (row("signs", 10.0, arrangement=None, value_distribution=None),)
    found = claims([finished(seed=seed, measures=rows) for seed in SEEDS])
    assert "not split into arrangement and value distribution" in of(found, 1).evidence


def test_published_weights_are_held_against_initializations():
    found = of(claims(several("published")), 1)
    assert found.verdict == "supported"
    assert "; one published network against initializations." in found.evidence
    start = finished("published").cell
    tuned, pruned = (
        [replace(run, cell=replace(run.cell, start=start)) for run in several(name)]
        for name in ("dense", "prune")
    )
    published = several("published")
    assert (
        "that of the dense network" in of(claims([*published, *tuned, *pruned]), 2).evidence
    )
    assert "that of its dense start" in of(claims([*published, *pruned]), 2).evidence
