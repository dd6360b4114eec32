"""Recipes print, are overridden by text, and stand for cells."""

import json
from typing import Any

import pytest

from momos.study.cell import ordered
from momos.study.recipes import RECIPES, recipe_named
from momos.study.recipes.questions import Compressors, Plane, Simplify
from momos.study.recipes.sizes import (
    REFERENCE,
    Ablations,
    Sizes,
    presets,
    sizing,
)
from momos.study.training.preparation import prepared
from momos.study.treatments import TREATMENTS
from page_parts import recipe_of


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_stand_for_runs_that_can_be_run(name: str) -> None:
    recipe = RECIPES[name](seeds=2)
    cells = ordered(recipe.cells())
    assert {cell.seed for cell in cells} == {0, 1}
    assert str(recipe).startswith(f"{name}(task=")
    assert recipe_of(json.loads(json.dumps(recipe.asked))) == recipe
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
        ({"seeds": "many"}, "seeds must be a whole number of at least 1, got 'many'"),
        ({"seeds": "true"}, "seeds must be a whole number of at least 1, got True"),
        ({"seeds": "0"}, "seeds must be a whole number of at least 1, got 0"),
        ({"weight_decays": '["a"]'}, r"weight_decays\[0\] must be a number, got 'a'"),
        ({"task": "3"}, "task must be text that is not empty, got 3"),
        ({"keep": "first"}, "keep must be 'last' or 'best', got 'first'"),
        ({"precision": "16"}, "precision must be 'float32' or 'bfloat16', got 16"),
        ({"channels_last": "1"}, "channels_last must be true or false, got 1"),
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


def test_the_plane_is_of_the_runs_that_were_asked_for() -> None:
    recipe = Plane(validation=0.1, channels_last=True, seeds=2)
    wanted = [cell for plane in recipe.planes() for cell in plane.cells.values()]
    assert wanted == ordered(recipe.runs())


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


def test_nothing_of_a_published_network_is_trained() -> None:
    recipe = Compressors(published=True, validation=0.1, precision="bfloat16", keep="best")
    published, tuned, *_ = recipe.runs()
    assert published.options == {"validation": 0.1}
    assert tuned.options == {"validation": 0.1, "precision": "bfloat16", "keep": "best"}
    with pytest.raises(ValueError, match="epochs must not be given for published weights"):
        Simplify(published=True, epochs=3)


def test_what_is_no_recipe_is_none() -> None:
    names = ("", "sweep mine", "nothing", "simplify(seeds=1)")
    assert [recipe_of({"name": name, "settings": {}}) for name in names] == [None] * 4


@pytest.mark.parametrize("task", [*presets("sizes"), "mnist"])
def test_files_of_every_size_go_on_from_one_dense_network(task: str) -> None:
    cells = Sizes(task=task).cells()
    starts = [cell for cell in cells if cell.start is None]
    assert len(starts) == sizing(task).seeds
    assert len({cell.key for cell in cells}) == len(cells)
    for cell in cells:
        if cell.start is not None:
            assert cell.start == cell.teacher == starts[cell.seed]
            assert cell.treatment in TREATMENTS
            TREATMENTS[cell.treatment].kind(**cell.settings)


def test_what_a_preset_says_can_be_said_otherwise() -> None:
    found = Sizes().with_settings(
        {
            "seeds": "1",
            "epochs": "3",
            "tuning": "2",
            "rate_weights": "0.5",
            "bits": "[]",
            "sparsities": "[0.5, 0.6]",
            "sampled": '[{"block_size": 4, "num_motifs": 9}]',
            "more": "false",
        }
    )
    cells = found.cells()
    assert [(cell.treatment, cell.epochs) for cell in cells] == [
        ("dense", 3),
        ("learned", 2),
        ("prune", 2),
        ("prune", 2),
        ("sampled", 2),
    ]
    assert cells[-1].settings == {"block_size": 4, "num_motifs": 9}
    again = found.with_settings({"bits": "null"})
    assert [c.settings["bits"] for c in again.cells() if "bits" in c.settings] == [
        2,
        3,
        4,
        8,
    ]
    with pytest.raises(ValueError, match=r"sampled\[0\] must be an object, got 4"):
        found.with_settings({"sampled": "4"})
    with pytest.raises(
        ValueError, match="seeds must be a whole number of at least 0, got -1"
    ):
        found.with_settings({"seeds": "-1"})


def test_some_are_of_the_first_seed_alone() -> None:
    cells = Sizes(task="shakespeare").cells()
    assert [cell.seed for cell in cells if cell.epochs == 2] == [0, 0, 0]
    assert [cell.seed for cell in cells if cell.settings.get("every") == 4] == [0, 1, 2]


def test_published_networks_are_where_the_others_start() -> None:
    start, *others = Sizes(task="resnet20").cells()
    assert start.treatment == "published"
    assert Simplify(task="resnet20").cells()[0] == start
    assert {cell.learning_rate for cell in others} == {0.01, None}
    trained, *_ = Sizes(task="resnet20", epochs=5).cells()
    assert (trained.epochs, trained.learning_rate) == (5, None)


def test_compressors_and_sizes_share_their_runs() -> None:
    sizes = {cell.key for cell in Sizes(seeds=1).cells()}
    shared = sizes & {cell.key for cell in Compressors(seeds=1, tuning=20).cells()}
    assert len(shared) == 10  # dense, 2 sparsities, 3 bits, 1 sampled, 3 rates


@pytest.mark.parametrize("task", ["digits", "resnet20", "mnist"])
def test_an_ablation_changes_one_ingredient(task: str) -> None:
    rows = Ablations(task=task, seeds=1).rows()
    (reference,) = rows.pop(REFERENCE)
    (alone,) = rows.pop("no teacher")
    assert alone.teacher is None
    assert (alone.start, alone.settings) == (reference.start, reference.settings)
    for name, (cell,) in rows.items():
        assert cell.settings != reference.settings, name
        assert reference.settings.keys() <= cell.settings.keys()
        assert (cell.start, cell.teacher) == (reference.start, reference.teacher)
        TREATMENTS[cell.treatment].kind(**cell.settings)


def test_ingredients_are_chosen_by_name() -> None:
    found = Ablations(rate_weight=0.7).with_settings({"ingredients": '["no scales"]'})
    assert list(found.rows()) == [REFERENCE, "no scales"]
    assert {cell.settings["rate_weight"] for cell in found.cells()} == {0.7}
    with pytest.raises(ValueError, match=r"among reference; no teacher; .*, got 'scales'"):
        found.with_settings({"ingredients": '["scales"]'})


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("simplify", {"seeds": 1000000000}),
        ("capacity", {"block_sizes": [1] * 500, "capacities": [0.1] * 500}),
        ("simplify", {"seeds": "x"}),
        ("simplify", {"weight_decays": ["x"]}),
        ("simplify", {"nothing": 1}),
        ("simplify", {"epochs": -1}),
        ("usage", {"capacity": 0}),
        ("ablations", {"ingredients": ["scales"]}),
    ],
)
def test_settings_that_no_recipe_of_today_has_are_refused(
    name: str, settings: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match="recipe must be one of today's, got"):
        recipe_of({"name": name, "settings": settings})
