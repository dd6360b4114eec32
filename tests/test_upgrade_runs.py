"""Recipes that older run folders name as text become values; everything else stays."""

import json
from pathlib import Path

import pytest
from study_runs import write_made_up
from upgrade_runs import asked, upgrade

from momos.study.recipes.questions import Simplify
from momos.study.store import CELL, read, write_json
from page_parts import recipe_of

TEXT = "simplify(task='digits', seeds=2, epochs=None, weight_decays=(0.0, 0.1))"


def test_a_text_becomes_the_recipe_that_it_names(tmp_path: Path) -> None:
    recipe = Simplify(seeds=2, weight_decays=(0.0, 0.1))
    folder = write_made_up(tmp_path, recipe.runs()[0], recipe.asked)
    described = json.loads((folder / CELL).read_text())
    write_json(folder / CELL, described | {"recipe": TEXT})
    before = read(folder)
    assert upgrade(folder)
    assert recipe_of(read(folder).recipe) == recipe
    assert read(folder).cell == before.cell
    assert not upgrade(folder)


@pytest.mark.parametrize(
    "text",
    [
        *("", "sweep mine", "simplify(", "simplify(seeds='x')", "nothing(seeds=1)"),
        *("simplify(nothing=1)", "simplify(seeds=open('x'))", "simplify(**{'seeds': 1})"),
    ],
)
def test_other_texts_stay(text: str) -> None:
    assert asked(text) is None
