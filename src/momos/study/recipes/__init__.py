"""Recipes: studies that can be repeated, by name."""

from momos.study.recipes import questions
from momos.study.recipes.recipe import Recipe
from momos.study.recipes.sizes import Ablations, Sizes
from momos.study.recipes.smallest import Records
from momos.study.schema import got

_KINDS = (
    *(questions.Demo, questions.Simplify, questions.Compressors, Sizes, Ablations, Records),
    *(questions.Capacity, questions.Usage, questions.Plane, questions.Grokking),
)
RECIPES: dict[str, type[Recipe]] = {recipe.name: recipe for recipe in _KINDS}


def recipe_named(name: str) -> type[Recipe]:
    """The recipe of that name.

    Raises:
        ValueError: if there is none; names those like it.
    """
    if name not in RECIPES:
        known = ", ".join(RECIPES)
        raise ValueError(f"a recipe must be among {known}, {got(name, RECIPES)}")
    return RECIPES[name]
