"""Runs are one cohort when seeds alone tell them apart, and each has its dense counterpart."""

from hypothesis import given, settings
from hypothesis import strategies as st
from made_up import finished

from momos.study.analysis.cohort import Cohort, cohorts, reference_of
from momos.study.cell import Cell

treatments = st.dictionaries(st.sampled_from(["bits", "capacity"]), st.integers(1, 3))


def only(*runs) -> Cohort:
    (cohort,) = cohorts(runs)
    return cohort


def starting(seed: int) -> dict[str, Cell]:
    """From the dense network of the seed, with it as a teacher."""
    return dict.fromkeys(("start", "teacher"), Cell(task="digits", seed=seed))


@given(st.lists(st.tuples(st.integers(0, 9), treatments), max_size=20))
@settings(max_examples=25)
def test_every_cell_is_in_one_cohort_once(cells):
    runs = [finished("prune", seed, settings=values) for seed, values in cells]
    found = cohorts(runs)
    assert len(found) == len({str(sorted(values.items())) for _, values in cells})
    inside = [run.cell.key for cohort in found for run in cohort.runs.values()]
    assert sorted(inside) == sorted({run.cell.key for run in runs})
    for cohort in found:
        assert all(run.cell.seed == seed for seed, run in cohort.runs.items())


def test_seeds_of_starts_and_teachers_go_along():
    cohort = only(*(finished("prune", seed, **starting(seed)) for seed in range(3)))
    assert sorted(cohort.runs) == [0, 1, 2]


def test_of_two_runs_of_one_cell_the_first_counts():
    first, second = finished(metric=0.5), finished(metric=0.6)
    assert only(first, second).runs == {0: first}


def test_how_often_it_was_measured_makes_no_difference():
    assert sorted(only(finished(), finished(seed=1, measure_every=3)).runs) == [0, 1]


def test_cohorts_come_by_task_in_the_order_of_their_runs():
    runs = [finished("prune", task="b"), finished(task="a"), finished(task="b")]
    found = [(cohort.cell.task, cohort.cell.treatment) for cohort in cohorts(runs)]
    assert found == [("b", "prune"), ("b", "dense"), ("a", "dense")]


def test_a_label_says_all_that_differs():
    run = finished(
        "prune", settings={"sparsity": 0.9}, epochs=3, learning_rate=0.1, **starting(0)
    )
    assert only(run).full_label == (
        "prune sparsity=0.9, 3 epochs, learning rate 0.1, from trained weights, "
        "with a teacher"
    )


def test_a_mosaic_is_what_has_a_bound():
    assert only(finished("anything", mosaic=True)).is_mosaic
    assert not only(finished("prune")).is_mosaic


def test_distilled_networks_start_afresh():
    student = only(finished(network="mlp:8", teacher=Cell(task="digits")))
    tuned = only(finished(**starting(0)))
    assert student.is_distilled
    assert not student.is_dense
    assert tuned.is_dense
    assert not tuned.is_distilled


# References


def test_the_dense_network_trained_likewise_comes_before_the_start():
    dense, tuned = finished(), finished(**starting(0))
    everything = cohorts([dense, tuned, finished("prune", **starting(0))])
    pruned = everything[2]
    assert reference_of(pruned, everything) == (everything[1], "the dense network")
    without = [everything[0], pruned]
    assert reference_of(pruned, without) == (everything[0], "its dense start")
    assert reference_of(pruned, [pruned]) == (None, "")


def test_the_reference_of_a_student_is_its_teacher():
    student = finished(network="mlp:8", teacher=Cell(task="digits"))
    everything = cohorts([student, finished(), finished(network="mlp:8")])
    assert reference_of(everything[0], everything) == (everything[1], "its teacher")


def test_other_epochs_are_not_trained_likewise():
    everything = cohorts([finished(), finished("prune", epochs=3)])
    assert reference_of(everything[1], everything) == (None, "")
