"""Recipes print, are overridden by text, and stand for cells."""

from types import SimpleNamespace

import pytest

from momos.study.cells import ordered
from momos.study.recipes import RECIPES, recipe_named
from momos.study.recipes.compressors import Compressors
from momos.study.recipes.plane import Plane
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
        ({"keep": "first"}, "keep must be last or best, got 'first'"),
        ({"precision": "16"}, "precision must be float32 or bfloat16, got '16'"),
        ({"channels_last": "1"}, "channels_last must be of type bool, got '1'"),
    ],
)
def test_other_settings_are_refused(settings: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Simplify().with_settings(settings)


SHARED = {
    "validation": "0.1",
    "patience": "5",
    "keep": "best",
    "precision": "bfloat16",
    "channels_last": "true",
}


@pytest.mark.parametrize("name", RECIPES)
def test_every_cell_and_those_it_needs_have_the_settings_that_all_share(name: str) -> None:
    plain = RECIPES[name](seeds=1)
    assert plain.runs() == plain.cells()
    found = ordered(plain.with_settings(SHARED).runs())
    for cell, without in zip(found, ordered(plain.runs()), strict=True):
        assert list(cell.options) == list(SHARED)
        assert (cell.validation, cell.keep, cell.channels_last) == (0.1, "best", True)
        assert (cell.task, cell.settings) == (without.task, without.settings)


def test_a_recipe_prints_what_all_share_where_it_was_given() -> None:
    assert "validation" not in str(Simplify())
    given = Simplify().with_settings({"validation": "0.1", "keep": "best"})
    assert str(given).endswith(", validation=0.1, keep='best')")


def test_the_plane_is_of_the_runs_that_were_asked_for(tmp_path, monkeypatch) -> None:
    recipe = Plane(validation=0.1, channels_last=True)
    found = []
    monkeypatch.setattr(
        "momos.study.recipes.plane.load_file", lambda path: found.append(path.parent)
    )
    monkeypatch.setattr(
        "momos.study.recipes.plane.plane",
        lambda loss, network, states, **about: SimpleNamespace(to_json=lambda path: None),
    )
    recipe.finish(tmp_path)
    assert found == [tmp_path / cell.folder for cell in ordered(recipe.runs())]


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
