"""Recipes print, are overridden by text, and stand for cells."""

import pytest

from momos.study.cells import ordered
from momos.study.recipes import RECIPES, recipe_named
from momos.study.recipes.compressors import Compressors
from momos.study.recipes.simplify import Simplify
from momos.study.run import prepared


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_stand_for_runs_that_can_be_run(name: str) -> None:
    recipe = RECIPES[name](seeds=2)
    cells = ordered(recipe.cells())
    assert {cell.seed for cell in cells} == {0, 1}
    assert str(recipe).startswith(f"{name}(task=")
    assert (RECIPES[name].__doc__ or "").splitlines()[0]
    for cell in {(c.task, c.treatment, str(c.settings)): c for c in cells}.values():
        prepared(cell)


def test_settings_are_given_as_text() -> None:
    found = Simplify().with_settings(
        {"task": "fashion", "seeds": "2", "epochs": "0.5", "weight_decays": "[0, 0.1]"}
    )
    assert found == Simplify(task="fashion", seeds=2, epochs=0.5, weight_decays=(0, 0.1))
    assert found.with_settings({"weight_decays": "0.1"}).weight_decays == (0.1,)
    assert found.with_settings({"epochs": "null"}).epochs is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seed": "2"}, r"got 'seed' \(near it: seeds"),
        ({"weight_decay": "2"}, r"near it: weight_decays"),
        ({"seeds": "many"}, "seeds must be of type int, got 'many'"),
        ({"seeds": "true"}, "seeds must be of type int, got 'true'"),
        ({"seeds": "0"}, "seeds must be at least 1, got 0"),
        ({"weight_decays": '["a"]'}, "weight_decays must be of type tuple"),
        ({"task": "3"}, "task must be of type str, got '3'"),
    ],
)
def test_other_settings_are_refused(settings: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Simplify().with_settings(settings)


def test_recipes_that_there_are_not_are_refused_with_those_like_them() -> None:
    with pytest.raises(ValueError, match=r"got 'simplfy' \(near it: simplify"):
        recipe_named("simplfy")


def test_treatments_start_from_one_dense_network_and_have_it_as_teacher() -> None:
    cells = Compressors(seeds=1).cells()
    dense, *others, student = cells
    assert dense.start is None
    assert all(cell.start == cell.teacher == dense for cell in others)
    assert student.start is None
    assert student.teacher == dense
    assert {cell.treatment for cell in others} == {
        *("dense", "prune", "quantize_aware", "sampled", "learned")
    }


def test_published_weights_take_the_place_of_training() -> None:
    found = Simplify(task="resnet20", published=True, seeds=2).cells()
    assert [(cell.treatment, cell.seed) for cell in found] == [
        ("published", 0),
        ("published", 1),
    ]
    dense, *others, student = Compressors(
        seeds=1, epochs=9, tuning=1, published=True
    ).cells()
    assert (dense.treatment, dense.epochs) == ("published", None)
    assert all((cell.start, cell.epochs) == (dense, 1) for cell in others)
    assert (student.teacher, student.treatment, student.epochs) == (dense, "dense", 9)
